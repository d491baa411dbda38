"""Settings that nobody would write: a configuration comes out, or one short line, and soon."""

import math
import time
from importlib import resources

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st

from fuzzing import examples, texts
from skillsd.config import Config, load_config, presets
from skillsd.errors import UsageError


def names_of(model=Config, prefix=""):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from names_of(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


NAMES = [*names_of(), "env.options.size", "env", "model", "meta", "env.name.x"]
PRESET = (resources.files("skillsd.config") / "presets" / "sokoban-demo.toml").read_text("utf-8")

VALUES = [
    "1", "0", "-1", "1.5", "1e-4", ".5", "inf", "-inf", "nan", "1e999", "1e308", "1e-320", "true", "false", '"true"',
    "", "[]", "{}", '""', "[1, 2]", "{a = 1}", "2026-01-01", "embedded", "grpo", "meta", "9" * 5000, "[" * 5000, "1e5",
    "{a=" * 500, '"' + "x" * 5000 + '"', "x" * 5000, "-" * 400, '"\\u0000"', "'''\na\n'''", "1 seed=2", "1\nseed=2",
    "x, seed=2", "0x" + "f" * 300, "1_000", "+1", "1 # seed", "/" * 300, "a b", "\x1b[31mred", "\udcff", "[[[[]]]]",
    "[inf]", "{a = inf}",
]  # fmt: skip
values = st.sampled_from(VALUES) | texts | st.integers().map(str) | st.floats().map(repr)
keys = (
    st.sampled_from(NAMES)
    | texts
    | st.lists(st.sampled_from(["env", "options", "a", "", " "]), max_size=6).map(".".join)
)
overrides = st.builds(lambda key, value: f"{key}={value}", keys, values) | texts


@st.composite
def mutated(draw, text):
    """``text`` with a few pieces cut out, doubled, or replaced."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(text) - 1)))
        stop = start + draw(st.integers(0, 30))
        piece = draw(st.sampled_from(["", text[start:stop] * 2]) | values)
        text = text[:start] + piece + text[stop:]
    return text


def tried(load):
    """The configuration, or None for one line of refusal; within a second."""
    started = time.thread_time()  # of computing: other processes do not count
    try:
        found = load()
    except UsageError as error:
        told = str(error)
        assert told.isprintable(), ascii(told)
        assert 0 < len(told) < 500
        found = None
    assert time.thread_time() - started < 1.0
    return found


def check(config):
    """Every number is one, and the whole can be written and read again."""
    for section in config.model_dump().values():
        for name, value in section.items() if isinstance(section, dict) else ():
            assert name == "options" or not isinstance(value, float) or math.isfinite(value)
    tree = config.model_dump(exclude_none=True)
    assert tomli_w.dumps(tree).encode()


@examples(700)
@given(given=st.lists(overrides, min_size=1, max_size=3))
@example(given=["a." * 20_000 + "b=1"])
@example(given=["optim.lr=" + "9" * 100_000])
@example(given=["model.path=" + "[" * 100_000])
def test_any_overrides_make_sound_settings_or_one_line(given):
    config = tried(lambda: load_config("sokoban-smoke", given))
    if config is not None:
        check(config)


@examples(250)
@given(raw=mutated(PRESET).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=200))
@example(raw=b"\xef\xbb\xbfseed = 3")
@example(raw=b"a = " + b"[" * 50_000)
@example(raw=b"#" * 2_000_000)
@example(raw="seed = 3".encode("utf-16"))
def test_any_file_makes_sound_settings_or_one_line(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(raw)
    config = tried(lambda: load_config(path))
    if config is not None:
        check(config)


@pytest.mark.parametrize("name", presets())
def test_every_preset_takes_single_settings_of_every_kind(name):
    for setting in ("seed=1", "rollout.temperature=0.5", "env.options={}", "skills.wait=false"):
        assert tried(lambda setting=setting: load_config(name, [setting])) is not None
