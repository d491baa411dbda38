"""Modules of version 0.1 under their old names: they work, and say where they are now. They end with version 0.3."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: By what was behind ``skillsd.``; several places where a module was taken apart.
MOVED = {
    "acting": "rollouts.actors",
    "alarm": "runs.health",
    "cache": "system.cache",
    "checkpoint": "runs.checkpoint",
    "compare.figures": "analysis.compare.figures analysis.charts",
    "doctor": "cli.doctor",
    "evaluation": "analysis.evaluate rollouts.playing rollouts.results",
    "explain": "analysis.explain",
    "files": "system.files",
    "idle": "config.idle",
    "integrations.gymnasium": "envs.adapters.gymnasium",
    "integrations.openenv": "envs.adapters.openenv",
    "integrations.seeds": "envs.adapters.seeds",
    "integrations.textarena": "envs.adapters.textarena",
    "interrupt": "system.interrupt",
    "learner": "training.learner training.scoring",
    "metrics": "runs.health",
    "overrides": "config.overrides",
    "pages": "analysis.pages",
    "parallel": "distributed.processes",
    "probe": "analysis.probe",
    "progress": "runs.progress",
    "redact": "system.redact",
    "report": "analysis.report",
    "rollout": "rollouts.rollout rollouts.calls",
    "run_dir": "runs.folder system.files",
    "sampling": "rollouts.sampling",
    "sharding": "distributed.fsdp",
    "skills.hints": "training.hints types",
    "skills.skill": "types",
    "skills.summarize.appworld_rules": "envs.appworld.rules",
    "skills.summarize.sokoban_rules": "envs.sokoban.rules",
    "skills.summarize.trial": "analysis.trial",
    "teacher": "training.teacher",
    "terminal": "system.terminal",
    "tracking": "runs.trackers",
    "trainer": "training.trainer runs.progress",
    "trajectory": "types runs.episodes",
    "warm_up": "training.warm_up",
    "web": "system.web",
    "zero": "distributed.zero",
    **{
        f"compare{part}": f"analysis.compare{part}"
        for part in ("", ".cell", ".live", ".matrix", ".report", ".runner", ".stats", ".tables", ".worker")
    },
}


class _Finder(MetaPathFinder, Loader):
    """Asked last, for names that no file has."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for a name of version 0.1."""
        name = fullname.removeprefix("skillsd.")
        return ModuleSpec(fullname, self, is_package=name == "compare") if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Look names up where they are now."""
        places = [f"skillsd.{place}" for place in MOVED[module.__name__.removeprefix("skillsd.")].split()]
        warnings.warn(f"{module.__name__} is now {' and '.join(places)}", DeprecationWarning, stacklevel=2)
        found = [import_module(place) for place in places]

        def look_up(name: str) -> Any:
            for place in found:
                if hasattr(place, name):
                    return getattr(place, name)
            raise AttributeError(f"neither {module.__name__} nor {' nor '.join(places)} has {name!r}")

        vars(module)["__getattr__"] = look_up


def install() -> None:
    """Let the old names be found."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
