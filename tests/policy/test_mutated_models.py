"""Whatever befalls the files of a model or an adapter, a command says one line about it, or works.

Each file is harmed in every way below, and values in JSON files are replaced by others, drawn from a fixed seed.
"""

import json
import random
import shutil
import sys
import time

import pytest

from harms import a_folder, edit, flipped
from models_lab import CHATML, save_model
from skillsd.cli import main
from skillsd.config import ModelConfig
from skillsd.errors import SkillSDError
from skillsd.policy import pretrained
from skillsd.policy.loading import load_policy

VALUES = [None, True, -1, 0, 3, 1.5, 1e300, "x", "", "\x1b[31mred\n", [], ["x"], {}, {"x": 1}, [10**9, -1, None, "x"]]
HARMS = {
    "gone": lambda path: path.unlink(),
    "a folder": a_folder,
    "empty": edit(lambda b: b""),
    "cut off": edit(lambda b: b[: len(b) // 2]),
    "a byte": edit(flipped),
    "zeros": edit(lambda b: b"\0" * len(b)),
    "list": edit(lambda b: b"[]"),
    "null": edit(lambda b: b"null"),
    "object": edit(lambda b: b"{}"),
    "deep": edit(lambda b: b"[" * 100_000),
    "no UTF-8": edit(lambda b: b"\xff\xfe" + b),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, an adapter for it, and a model of another kind to swap files with."""
    pytest.importorskip("peft")
    root = tmp_path_factory.mktemp("whole")
    base, other = save_model(root / "base"), save_model(root / "other", "qwen3")
    policy = load_policy(ModelConfig(path=str(base), device="cpu", lora_rank=2), train=True)
    for part in (policy.model, policy.tokenizer):
        part.save_pretrained(root / "adapter")
    return {"model": base, "adapter": root / "adapter", "other": other}


@pytest.fixture
def doctor(monkeypatch, capfd):
    def run(folder):
        monkeypatch.setattr(sys, "argv", ["skillsd", "doctor", str(folder), "--json"])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert ended.value.code in (0, 1)
        assert err == ""
        told = json.loads(out)
        assert told["ok"] == (ended.value.code == 0)
        assert told["model"].isprintable()
        return told

    return run


def copy(folder, tmp_path):
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("kind", ["model", "adapter"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_file_is_one_line(folders, doctor, tmp_path, kind, harm):
    for name in sorted(path.name for path in folders[kind].iterdir()):
        folder = copy(folders[kind], tmp_path)
        HARMS[harm](folder / name)
        told = doctor(folder)
        needed = name in ("config.json", "model.safetensors", "adapter_model.safetensors", "tokenizer.json")
        if needed and not (harm == "a byte" and name != "tokenizer.json"):
            assert not told["ok"], name


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_of_another_model_is_one_line(folders, doctor, tmp_path, name):
    folder = copy(folders["model"], tmp_path)
    shutil.copy(folders["other"] / name, folder)
    assert doctor(folder)["ok"] == name.startswith("tokenizer")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("model", "config.json"),
        ("model", "generation_config.json"),
        ("model", "tokenizer_config.json"),
        ("model", "tokenizer.json"),
        ("adapter", "adapter_config.json"),
    ],
)
def test_any_value_in_a_json_file_is_one_line(folders, doctor, tmp_path, kind, name):
    draw = random.Random(name)
    tree = json.loads((folders[kind] / name).read_text())
    for _ in range(20):
        folder = copy(folders[kind], tmp_path)
        (folder / name).write_text(json.dumps({**tree, draw.choice(sorted(tree)): draw.choice(VALUES)}))
        doctor(folder)


@pytest.mark.parametrize(
    "index", [{}, [], {"weight_map": []}, {"weight_map": {"model.norm.weight": "gone.safetensors"}}]
)
def test_an_index_that_names_no_file_is_one_line(folders, doctor, tmp_path, index):
    folder = copy(folders["model"], tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not doctor(folder)["ok"]


@pytest.mark.parametrize(
    ("template", "ok"),
    [
        ("{% for", False),
        ("{{ raise_exception('one\ntwo\x1b[31m') }}", False),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", False),
        ("x" * 2**20, False),
        (f"{{# {'x' * 2**20} #}}{CHATML}", True),
        ("{{ " + "(" * 100_000, False),
    ],
    ids=["no end", "two lines", "endless recursion", "long", "a long comment", "deep"],
)
def test_any_template_is_one_line(folders, doctor, tmp_path, template, ok):
    folder = copy(folders["model"], tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    assert doctor(folder)["ok"] == ok


def test_a_template_without_an_end_is_left(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "PATIENCE", 0.5)
    folder = copy(folders["model"], tmp_path)
    loop = "{% for i in range(9999) %}"
    (folder / "chat_template.jinja").write_text(f"{loop}{loop}{loop}{'{% endfor %}' * 3}")
    started = time.monotonic()
    with pytest.raises(
        SkillSDError, match=r"chat template does not come to an end within 0\.5 s; try model\.chat_template"
    ):
        load_policy(ModelConfig(path=str(folder), device="cpu"))
    assert time.monotonic() - started < 30


def test_numbers_of_an_adapter_are_numbers(folders, doctor, tmp_path):
    folder = copy(folders["adapter"], tmp_path)
    settings = json.loads((folder / "adapter_config.json").read_text())
    for change, told in (
        ({"lora_alpha": None}, "lora_alpha is None: make it a number"),
        ({"r": 4}, "size mismatch"),
        ({"peft_type": "ZZZ"}, "'ZZZ' is unknown"),
        ({"base_model_name_or_path": str(folder)}, "is an adapter too"),
        ({"target_modules": ["nothing"]}, "not found in the base model"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps({**settings, **change}))
        assert told in doctor(folder)["model"]
