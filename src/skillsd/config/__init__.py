"""Settings: one typed tree, its presets, what may be laid over it, and which of it would have no effect.

Uses ``methods`` and ``errors`` alone.
"""

from skillsd.config.loading import (
    load_config,
    parse_config,
    presets,
    read_tree,
    with_environment,
    with_model,
    with_overrides,
)
from skillsd.config.overrides import toml_value
from skillsd.config.schema import (
    Config,
    EnvConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RolloutConfig,
    Section,
    SkillsConfig,
    SummarizerConfig,
    TeacherConfig,
    TrainerConfig,
    VLLMConfig,
)

__all__ = [
    "Config",
    "EnvConfig",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "RolloutConfig",
    "Section",
    "SkillsConfig",
    "SummarizerConfig",
    "TeacherConfig",
    "TrainerConfig",
    "VLLMConfig",
    "load_config",
    "parse_config",
    "presets",
    "read_tree",
    "toml_value",
    "with_environment",
    "with_model",
    "with_overrides",
]
