"""Text–image encoders against plain calls of transformers, folders that are none, and the cache of vectors."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from encoder_builds import CONTEXT, build_encoder
from model_builds import random_picture

from ffr.embedding import BATCH_SIZE, CachedEncoder, DualEncoder, load_encoder
from ffr.errors import DataError, ModelError, UsageError

TEXTS = ["a cat", "", "一只猫在垫子上", "x"]


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def build(kind: str) -> Path:
        if kind not in built:
            built[kind] = build_encoder(kind, tmp_path_factory.mktemp(kind))
        return built[kind]

    return build


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(60, 40), (32, 32), (20, 90)]
    return [random_picture(folder / f"{seed}.png", *size, seed=seed) for seed, size in enumerate(sizes)]


# -- dual encoders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONTEXT)
def test_vectors_are_those_of_plain_transformers(
    kind: str, encoder_folder: Callable[[str], Path], pictures: list[Path]
) -> None:
    folder = encoder_folder(kind)
    encoder = load_encoder(folder)
    model, tokens = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    texts, images = encoder.embed_texts(TEXTS), encoder.embed_images([str(path) for path in pictures])
    for row, text in enumerate(TEXTS):
        # as the models' own pages call them: SigLIP on full rows of padding
        full = {"padding": "max_length", "max_length": CONTEXT[kind]} if kind.startswith("siglip") else {}
        inputs = tokens([text], truncation=True, return_tensors="pt", **full)
        if full:
            inputs = {"input_ids": inputs["input_ids"]}
        with torch.no_grad():
            expected = model.get_text_features(**inputs).pooler_output[0]
        torch.testing.assert_close(texts[row], expected / expected.norm(), atol=1e-5, rtol=0)
    for row, path in enumerate(pictures):
        with torch.no_grad():
            expected = model.get_image_features(
                **processor(images=Image.open(path), return_tensors="pt")
            ).pooler_output[0]
        torch.testing.assert_close(images[row], expected / expected.norm(), atol=1e-5, rtol=0)
    assert texts.dtype == images.dtype == torch.float32
    torch.testing.assert_close(torch.cat((texts, images)).norm(dim=-1), torch.ones(len(TEXTS) + len(pictures)))
    # and different things have different vectors
    assert (torch.cat((texts, images)) @ torch.cat((texts, images)).T).fill_diagonal_(-1).max() < 0.9999


@pytest.mark.parametrize("kind", CONTEXT)
def test_long_texts_are_cut_to_the_context(kind: str, encoder_folder: Callable[[str], Path]) -> None:
    encoder = load_encoder(encoder_folder(kind))
    assert encoder.max_text_tokens == CONTEXT[kind]
    room = CONTEXT[kind] - 2  # start and end
    long, other_tail, at_the_edge = (
        ("ab" * 5000)[: room + 5000],
        "ab" * (room // 2) + "zz",
        "ab" * (room // 2 - 1) + "zz",
    )
    one, two, three = encoder.embed_texts([long, other_tail, at_the_edge])
    torch.testing.assert_close(one, two, atol=1e-6, rtol=0)
    assert float(one @ three) < 0.9999


def test_batches_do_not_matter(encoder_folder: Callable[[str], Path], pictures: list[Path]) -> None:
    encoder = load_encoder(encoder_folder("clip"))
    texts = [f"text {number}" * (number % 3 + 1) for number in range(2 * BATCH_SIZE + 3)]
    together = encoder.embed_texts(texts)
    alone = torch.cat([encoder.embed_texts([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    many = encoder.embed_images([pictures[number % 3] for number in range(BATCH_SIZE + 1)])
    torch.testing.assert_close(many[BATCH_SIZE], encoder.embed_images([pictures[BATCH_SIZE % 3]])[0], atol=1e-6, rtol=0)
    assert encoder.embed_texts([]).shape == encoder.embed_images([]).shape == (0, 16)


def test_text_that_is_no_unicode_is_taken(encoder_folder: Callable[[str], Path]) -> None:
    encoder = load_encoder(encoder_folder("clip"))
    torch.testing.assert_close(encoder.embed_texts(["a\ud800"]), encoder.embed_texts(["a?"]))


def test_pictures_that_cannot_be_taken(encoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    encoder = load_encoder(encoder_folder("clip"))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    Image.new("RGB", (5000, 1)).save(tmp_path / "strip.png")
    for name, message in (("torn.png", "torn.png"), ("none.png", "not found"), ("strip.png", "5000×1 pixels")):
        with pytest.raises(DataError, match=message):
            encoder.embed_images([tmp_path / name])


def test_the_fingerprint_names_what_decides_vectors(encoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = encoder_folder("clip")
    first = load_encoder(folder).fingerprint
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert load_encoder(copied).fingerprint == first
    settings = json.loads((copied / "preprocessor_config.json").read_text())
    (copied / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))
    changed = load_encoder(copied).fingerprint
    assert changed != first
    weights = load_file(copied / "model.safetensors")
    weights["logit_scale"] = weights["logit_scale"] + 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(copied).fingerprint not in (first, changed)


def _edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return change


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _drop(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def _only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _with_another_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("config.json"), "holds no config.json"),
        (_drop("model.safetensors"), "holds no weights"),
        (_drop("preprocessor_config.json"), "cannot be loaded as a text–image encoder"),
        (_drop("tokenizer.json", "tokenizer_config.json"), "tokenizer|cannot be loaded"),
        (_only_a_pickle, "pytorch_model.bin, which can run code"),
        (_without_a_weight, "lacks 1 weights, such as text_projection.weight"),
        (_with_another_shape, "other shapes than its config.json says"),
        (_write("model.safetensors", b"\xff" * 64), "weights are damaged"),
        (_write("config.json", b"[1"), "cannot be loaded"),
        (_write("config.json", b'{"model_type": "bert"}'), "is a bert model; name one of the kinds clip, siglip"),
        (_edit("config.json", model_type="no-such-kind"), "cannot be loaded"),
        (_edit("config.json", text_config=7), "cannot be loaded"),
        (_write("tokenizer.json", b"{}"), "cannot be loaded"),
        (_write("preprocessor_config.json", b'{"image_processor_type": "os.system"}'), "cannot be loaded"),
        (_edit("config.json", auto_map={"AutoConfig": "evil.Config"}, model_type="evil"), "comes with code of its own"),
    ],
)
def test_folders_that_are_no_encoder(
    change: Callable[[Path], None], message: str, encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder_folder("clip"), tmp_path / "encoder"))
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    change(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


def test_names_that_are_no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    for name in (tmp_path / "file", tmp_path / "nothing", "a/b/c", "../x"):
        with pytest.raises(ModelError, match="no folder and no hub id"):
            load_encoder(name)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="finds no GPU"):
            load_encoder(tmp_path, device="cuda")


def test_a_tokenizer_of_another_model_is_refused(encoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder("clip"), tmp_path / "encoder"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["a"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="ids that the model does not know"):
        load_encoder(folder).embed_texts(["a"])


def test_broken_weights_give_no_vectors(encoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder("clip"), tmp_path / "encoder"))
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not finite"):
        load_encoder(folder).embed_texts(["a"])


# -- cache ------------------------------------------------------------------------------------------------------------------


class Counting:
    """Vectors that depend on the bytes, with a count of what was asked."""

    name = "counting"

    def __init__(self, fingerprint: str = "f", width: int = 8) -> None:
        self.fingerprint = fingerprint
        self.width = width
        self.asked: list[str] = []

    def _vectors(self, contents: Sequence[bytes]) -> torch.Tensor:
        seeds = [int.from_bytes(content[:4].ljust(4, b"\0"), "big") + len(self.fingerprint) for content in contents]
        rows = [torch.randn(self.width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked += texts
        return self._vectors([text.encode("utf-8", "surrogatepass") for text in texts])

    def embed_images(self, images: Sequence[str | Path]) -> torch.Tensor:
        self.asked += [Path(image).name for image in images]
        return self._vectors([Path(image).read_bytes()[-40:] for image in images])


MIB = 2**20


def test_a_hit_is_the_same_to_the_bit(
    encoder_folder: Callable[[str], Path], pictures: list[Path], tmp_path: Path
) -> None:
    plain = load_encoder(encoder_folder("clip"))
    cached = CachedEncoder(plain, tmp_path, max_bytes=MIB)
    texts, images = cached.embed_texts(TEXTS), cached.embed_images(pictures)
    assert torch.equal(texts, plain.embed_texts(TEXTS))
    again = CachedEncoder(load_encoder(encoder_folder("clip")), tmp_path, max_bytes=MIB)
    assert again.name == plain.name
    for encoder in (cached, again):
        assert torch.equal(encoder.embed_texts(TEXTS), texts)
        assert torch.equal(encoder.embed_images(pictures), images)
        # in another order, twice, and one at a time
        assert torch.equal(encoder.embed_texts([TEXTS[2], TEXTS[0], TEXTS[2]]), texts[[2, 0, 2]])
        assert torch.equal(encoder.embed_images([pictures[1]])[0], images[1])
    assert cached.embed_texts([]).shape == (0, 16)


def test_each_content_is_computed_once(pictures: list[Path], tmp_path: Path) -> None:
    encoder = Counting()
    cached = CachedEncoder(encoder, tmp_path / "cache", max_bytes=MIB)
    cached.embed_texts(["x", "y", "x"])
    cached.embed_texts(["y", "z", "\ud800"])
    copied = shutil.copy(pictures[0], tmp_path / "other name.png")
    cached.embed_images([pictures[0], copied, str(pictures[1])])
    assert encoder.asked == ["x", "y", "z", "\ud800", "0.png", "1.png"]
    later = Counting()
    CachedEncoder(later, tmp_path / "cache", max_bytes=MIB).embed_images([copied])
    assert later.asked == ["a"]  # the width alone
    random_picture(copied, 9, 9, seed=7)  # another picture under the same name
    assert torch.equal(cached.embed_images([copied]), encoder.embed_images([copied]))
    with pytest.raises(DataError, match="not found"):
        cached.embed_images([tmp_path / "none.png"])


def test_encoders_do_not_share_entries(tmp_path: Path) -> None:
    one, two = Counting("one"), Counting("other", width=4)
    first = CachedEncoder(one, tmp_path, max_bytes=MIB).embed_texts(["x"])
    second = CachedEncoder(two, tmp_path, max_bytes=MIB).embed_texts(["x"])
    assert one.asked == two.asked == ["x"]
    assert first.shape == (1, 8)
    assert second.shape == (1, 4)
    # nor do a text and a picture with the same bytes
    cached = CachedEncoder(one, tmp_path, max_bytes=MIB)
    digest_text = "0" * 64
    cached.embed_texts([digest_text])
    assert cached._key("text", digest_text.encode()) != cached._key("image", digest_text.encode())


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev" + "/" * 56 + "zero")  # a name as long as the file is due to be


def _of_another_text(path: Path) -> None:
    other = next(item for item in path.parent.parent.glob("??/*.vector") if item != path)
    shutil.copy(other, path)


@pytest.mark.parametrize("damage", [_torn, _longer, _flipped, _empty, _pipe, _link, _of_another_text])
def test_damaged_files_are_counted_and_computed_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    expected = CachedEncoder(Counting(), tmp_path, max_bytes=MIB).embed_texts(["x", "y"])
    cached = CachedEncoder(encoder := Counting(), tmp_path, max_bytes=MIB)
    damage(cached._path(cached._key("text", b"x")))
    assert torch.equal(cached.embed_texts(["x", "y"]), expected)
    assert cached.num_damaged_files == 1
    assert "x" in encoder.asked
    assert "y" not in encoder.asked
    healed = CachedEncoder(encoder := Counting(), tmp_path, max_bytes=MIB)
    assert torch.equal(healed.embed_texts(["x", "y"]), expected)
    assert healed.num_damaged_files == 0
    assert "x" not in encoder.asked


def test_a_vector_that_is_not_finite_is_computed_again(tmp_path: Path) -> None:
    cached = CachedEncoder(Counting(), tmp_path, max_bytes=MIB)
    cached._write(cached._key("text", b"x"), torch.full((8,), float("nan")))
    assert torch.equal(cached.embed_texts(["x"]), Counting().embed_texts(["x"]))
    assert cached.num_damaged_files == 1


def test_the_folder_keeps_to_its_bound(tmp_path: Path) -> None:
    file_bytes = 32 + 4 * 8
    bound = 50 * file_bytes
    encoder = Counting()
    for start in range(0, 300, 10):
        # a new run each time, so that what earlier runs left counts as well
        cached = CachedEncoder(encoder, tmp_path, max_bytes=bound)
        for number in range(start, start + 10):
            cached.embed_texts([f"{number:04}"])
            held = [path.stat().st_size for path in tmp_path.glob("??/*")]
            assert sum(held) <= bound
    assert sum(held) >= bound / 2
    encoder.asked.clear()
    cached = CachedEncoder(encoder, tmp_path, max_bytes=bound)
    cached.embed_texts(["0299", "0290", "0000"])
    assert encoder.asked == ["a", "0000"]  # the newest are kept


def test_memory_keeps_to_its_bound(tmp_path: Path) -> None:
    cached = CachedEncoder(Counting(), tmp_path, max_bytes=MIB, memory_bytes=3 * 32)
    cached.embed_texts([str(number) for number in range(10)])
    assert len(cached._kept) == 3
    assert cached._kept_bytes == 96
    assert torch.equal(cached.embed_texts(["0"]), Counting().embed_texts(["0"]))


def test_what_a_dead_process_left_goes_too(tmp_path: Path) -> None:
    left, live = tmp_path / "ab" / ".key.vector.1.1", tmp_path / "ab" / ".key.vector.2.2"
    left.parent.mkdir()
    for path in (left, live):
        path.write_bytes(b"0" * 1000)
    os.utime(left, (1, 1))
    CachedEncoder(Counting(), tmp_path, max_bytes=500).embed_texts(["x"])
    assert not left.exists()
    assert live.exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UsageError, match="vectors cannot be written there"):
        CachedEncoder(Counting(), tmp_path / "cache", max_bytes=MIB).embed_texts(["x"])


def _work(folder: str, seed: int) -> None:
    cached = CachedEncoder(Counting(), Path(folder), max_bytes=40 * 64)
    texts = [f"{number:04}" for number in range(60)]
    for start in range(60):
        batch = texts[(start * (seed + 3)) % 60 :][:5]
        assert torch.equal(cached.embed_texts(batch), Counting().embed_texts(batch))
    assert cached.num_damaged_files == 0


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(str(tmp_path), seed)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert not list(tmp_path.glob("??/.*"))


def test_the_model_itself_is_an_encoder(tmp_path: Path) -> None:
    from ffr.models.vlm import load_vlm

    vlm = load_vlm("tiny")
    cached = CachedEncoder(vlm, tmp_path, max_bytes=MIB)
    expected = vlm.embed_texts(["cat", "dog"])
    assert torch.equal(cached.embed_texts(["cat", "dog"]), expected)
    assert torch.equal(CachedEncoder(vlm, tmp_path, max_bytes=MIB).embed_texts(["dog"])[0], expected[1])


def test_loaded_encoders_stand_still(encoder_folder: Callable[[str], Path]) -> None:
    encoder = load_encoder(encoder_folder("clip"))
    assert isinstance(encoder, DualEncoder)
    assert not encoder.embed_texts(["a"]).requires_grad
