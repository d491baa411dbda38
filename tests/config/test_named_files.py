"""Files that somebody names in a setting: whatever is there under the name is read, or refused in one line, at once."""

import os
import shutil

import pytest

from skillsd.config import ModelConfig, load_config
from skillsd.envs import make_taskset
from skillsd.envs.appworld.environment import prompt_template
from skillsd.errors import SkillSDError, UsageError
from skillsd.policy.loading import load_policy
from skillsd.skills.summarize.prompting import Prompt
from skillsd.system.files import LARGEST_TEXT, read_text

READERS = {
    "settings": load_config,
    "chat template": lambda path: load_policy(ModelConfig(path="embedded", chat_template=path)),
    "summariser's prompt": Prompt,
    "levels": lambda path: make_taskset("sokoban", levels=path, test_levels=path).tasks("train"),
    "AppWorld's prompt": prompt_template,
    "any text": read_text,
}


def huge(path):
    with path.open("wb") as file:
        file.truncate(10**9)  # of which the disk holds nothing


KINDS = {
    "device": lambda path: path.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "1 GB": huge,
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_text_is_refused_in_one_line(tmp_path, reader, kind):
    path = tmp_path / "named"
    KINDS[kind](path)
    with pytest.raises(UsageError) as error:
        READERS[reader](str(path))
    assert len(str(error.value)) < 400


def test_a_text_is_read_as_people_save_it(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    assert read_text(path) == "one\ntwo\n"
    path.write_bytes(b"x" * LARGEST_TEXT)
    assert len(read_text(path)) == LARGEST_TEXT


@pytest.mark.parametrize("name", ["chat_template.jinja", "config.json", "model.safetensors", "anything"])
def test_a_pipe_in_a_models_folder_is_refused_in_one_line(tmp_path, llama_folder, name):
    folder = tmp_path / "model"
    shutil.copytree(llama_folder, folder)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(SkillSDError, match=f"model.path: .*{name}.* is no regular file"):
        load_policy(ModelConfig(path=str(folder)))
