"""Reading models that somebody else has saved: silent, and one line for what is wrong with them.

transformers makes up what is missing, drops what is too much, and writes a table about it.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from skillsd.errors import SkillSDError, one_line, reason, shown

#: Asks transformers for what :func:`check_whole` needs, in place of a table and an error that points to it.
CHECKED: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
#: Seconds for what takes some tenths.
PATIENCE = 30.0
T = TypeVar("T")
_LIBRARIES = ("transformers", "peft", "huggingface_hub")
#: Constants that older versions saved beside the weights.
_CONSTANT = re.compile(r"(^|\.)(inv_freq|masked_bias|position_ids)$")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Inside, the libraries say nothing; what they raise becomes a :class:`SkillSDError` that names ``what``."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SkillSDError:
        raise
    except Exception as error:  # files that somebody else has made, read by code that trusts them
        raise SkillSDError(f"{what} cannot be loaded: {told(error)}") from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def told(error: Exception) -> str:
    """What a library raised; the type is left out where the text says more."""
    text = one_line(str(error), 240)
    if "above report" in text:  # of conversions, and nothing else that CHECKED lets pass
        return "they do not make up the model's own, which some are put together into: incomplete, or of other shapes"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f"it needs the package {package}, which is not installed: pip install {package}"
    if isinstance(error, KeyError) and error.args:
        return f"{shown(error.args[0])} is unknown, or missing"
    return text if isinstance(error, OSError | ValueError | RuntimeError | ImportError) and text else reason(error, 240)


def in_time(function: Callable[[], T], what: str) -> T:
    """``function()``. Raises :class:`SkillSDError` that names ``what`` where it takes longer than ``PATIENCE``."""
    box: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            box.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        # Ends it at its next step in Python, as it would take a core for good.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        raise SkillSDError(f"{what} does not come to an end within {PATIENCE:g} s")
    if errors:
        raise errors[0]
    return box[0]


def read_config(source: str, **where: Any) -> PreTrainedConfig:
    """config.json in a folder or on the hub. Raises :class:`SkillSDError` for one that no transformers class reads."""
    with reading("config.json"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False, **where)
    return config


def read_weights(source: str, config: PreTrainedConfig, **options: Any) -> PreTrainedModel:
    """The causal LM of ``config``, from safetensors in a folder or on the hub.

    Raises :class:`SkillSDError` for files that do not hold just what ``config`` asks for.
    """
    with reading("the weights (as config.json describes them)"):
        found: Any = AutoModelForCausalLM.from_pretrained(
            source, config=config, use_safetensors=True, trust_remote_code=False, **CHECKED, **options
        )
    model: PreTrainedModel = found[0]
    check_whole(model, found[1], part=type(model.config) is not type(config))
    return model


def check_whole(model: PreTrainedModel, info: dict[str, Any], *, part: bool) -> None:
    """Raise :class:`SkillSDError` if the files were not those of ``model``.

    ``info``: what transformers tells of the loading; ``part``: the files are of a model of which this is the text part.
    """
    if shapes := sorted(info["mismatched_keys"]):
        name, held, asked = shapes[0]
        raise SkillSDError(
            f"{len(shapes)} of the weights have another shape than config.json asks for, such as {shown(name)} with "
            f"{list(held)} instead of {list(asked)}: it is made for another model"
        )
    if missing := sorted(info["missing_keys"]):
        raise SkillSDError(
            f"the files lack {len(missing)} of the weights that config.json asks for, such as {_some(missing)}: they "
            "are incomplete, or made for another model"
        )
    buffers = {name for name, _ in model.named_buffers()}
    extra = [name for name in sorted(info["unexpected_keys"]) if name not in buffers and not _CONSTANT.search(name)]
    if extra := [name for name in extra if not (part and _is_beside(model, name))]:
        raise SkillSDError(
            f"{len(extra)} of the weights have no place in the model that config.json describes, such as "
            f"{_some(extra)}: it is made for another model"
        )


def _is_beside(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight belongs to something that ``model`` does not have at all, such as a vision tower."""
    module: Any = model
    for step in name.split(".")[:2]:
        if not hasattr(module, step):
            return True
        module = getattr(module, step)
    return False


def _some(names: Sequence[str]) -> str:
    return ", ".join(shown(name, 60) for name in names[:3])
