"""Sizes of numbers and forms of addresses: what no later step would take is refused where settings are read."""

import math
import struct
import typing

import pytest

from skillsd.config import Config, load_config
from skillsd.config.fields import LARGEST, SMALLEST
from skillsd.errors import UsageError


def numbers(model=Config, prefix=""):
    """(name, type) of every setting that is a number."""
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from numbers(field.annotation, f"{prefix}{name}.")
        for kind in {field.annotation, *typing.get_args(field.annotation)} & {int, float}:
            yield f"{prefix}{name}", kind


NUMBERS = sorted(numbers(), key=lambda pair: pair[0])


def value_of(config, setting):
    for part in setting.split("."):
        config = getattr(config, part)
    return config


def load(setting, value):
    """The number as it is read, or None where it is refused."""
    try:
        return value_of(load_config("sokoban-smoke", [f"{setting}={value}"]), setting)
    except UsageError:
        return None


@pytest.mark.parametrize(("setting", "kind"), NUMBERS)
def test_the_greatest_and_the_smallest_number_of_a_setting_can_be_computed_with(setting, kind):
    exponents = [kind(sign * 10**power) for power in range(20) for sign in (1, -1)]
    exponents += [LARGEST, LARGEST + 1, 2**32, 2**62]
    if kind is float:
        exponents += [sign * 10.0**power for power in (-320, -45, -30, -8, 30, 38, 300, 308) for sign in (1, -1)]
    taken = [found for value in exponents if (found := load(setting, value)) is not None]
    assert taken, "a setting that takes no number"
    for value in taken:
        assert SMALLEST <= abs(value) <= LARGEST
        single = struct.unpack("f", struct.pack("f", value))[0]
        assert math.isfinite(single)
        assert single != 0, "as fp32"
        assert -(2**31) <= value < 2**31, "as a 32-bit integer"


def test_the_optimiser_takes_the_greatest_learning_rate():
    import torch

    for beta in (0.0, 0.9, 1 - 1e-16):
        optim = load_config("sokoban-smoke", ["optim.lr=1e3", f"optim.beta1={beta!r}"]).optim
        weight = torch.nn.Parameter(torch.ones(3))
        weight.grad = torch.ones(3)
        torch.optim.AdamW([weight], lr=optim.lr, betas=(optim.beta1, optim.beta2)).step()
    assert load("optim.lr", 1e38) is None


URLS = ("vllm.url", "summarizer.base_url")
MORE = {"vllm.url": ["vllm.folder=/shared"], "summarizer.base_url": []}


@pytest.mark.parametrize("setting", URLS)
@pytest.mark.parametrize(
    "address",
    ["http://[::1", "http://h:99999", "http://h:0", "http://h:x", "http://", "http:///v1", "ftp://h", "h:8000", "",
     "http://a..b", "http://" + "a" * 70, "http://a b", "https://h:-1", "http://[::1]x:1", "file:///etc/passwd"],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_one_line(setting, address):
    with pytest.raises(UsageError, match=rf"^{setting}: .*of the form http://host:port"):
        load_config("sokoban-smoke", [f'{setting}="{address}"', *MORE[setting]])


@pytest.mark.parametrize("setting", URLS)
def test_a_key_in_an_address_is_refused_and_not_told(setting):
    for address in ("http://me:sk-secret@h/v1", "http://h/v1?key=sk-secret", "http://h:sk-secret", "http://[sk-secret"):
        with pytest.raises(UsageError) as error:
            load_config("sokoban-smoke", [f'{setting}="{address}"', *MORE[setting]])
        assert "secret" not in str(error.value)


@pytest.mark.parametrize("setting", URLS)
@pytest.mark.parametrize(
    "address", ["http://localhost:8000", "https://a-b.example/v1", "http://[::1]:65535", "http://10.0.0.1"]
)
def test_addresses_of_servers_are_taken_as_given(setting, address):
    assert value_of(load_config("sokoban-smoke", [f"{setting}={address}", *MORE[setting]]), setting) == address
