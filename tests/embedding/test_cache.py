"""The cache of vectors: hits to the bit, damaged files, bounds of disk and memory, several processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from model_builds import random_picture

from ffr.embedding import CachedEncoder, load_encoder
from ffr.errors import DataError, UsageError

TEXTS = ["a cat", "", "一只猫在垫子上", "x"]


class Counting:
    """Vectors that depend on the bytes, with a count of what was asked."""

    name = "counting"

    def __init__(self, fingerprint: str = "f", width: int = 8) -> None:
        self.fingerprint = fingerprint
        self.width = width
        self.asked: list[str] = []

    def _vectors(self, contents: Sequence[bytes]) -> torch.Tensor:
        seeds = [
            int.from_bytes(content[:4].ljust(4, b"\0"), "big") + len(self.fingerprint)
            for content in contents
        ]
        rows = [
            torch.randn(self.width, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked += texts
        return self._vectors([text.encode("utf-8", "surrogatepass") for text in texts])

    def embed_images(self, images: Sequence[str | Path]) -> torch.Tensor:
        self.asked += [Path(image).name for image in images]
        return self._vectors([Path(image).read_bytes()[-40:] for image in images])


MIB = 2**20


def test_vectors_of_another_processor_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for capability, asked in (("ONE", True), ("ONE", False), ("OTHER", True), ("ONE", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)  # noqa: B023
        encoder = Counting()
        CachedEncoder(encoder, tmp_path, max_bytes=MIB).embed_texts(["word"])
        assert ("word" in encoder.asked) == asked


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


@pytest.mark.parametrize(
    "damage", [_torn, _longer, _flipped, _empty, _pipe, _link, _of_another_text]
)
def test_damaged_files_are_counted_and_computed_again(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
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
    from ffr.embedding.policy import PolicyEncoder
    from ffr.models.loading import load_vlm

    policy = PolicyEncoder(load_vlm("tiny"))
    cached = CachedEncoder(policy, tmp_path, max_bytes=MIB)
    expected = policy.embed_texts(["cat", "dog"])
    assert torch.equal(cached.embed_texts(["cat", "dog"]), expected)
    assert torch.equal(
        CachedEncoder(policy, tmp_path, max_bytes=MIB).embed_texts(["dog"])[0], expected[1]
    )


def test_the_digest_of_weights_is_the_encoders_own(tmp_path: Path) -> None:
    encoder = Counting("f1")
    assert CachedEncoder(encoder, tmp_path, max_bytes=MIB).weights_digest == "f1"
    encoder.weights_digest = "w1"
    assert CachedEncoder(encoder, tmp_path, max_bytes=MIB).weights_digest == "w1"
