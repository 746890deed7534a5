"""The feature cache: bounds in memory and on disk, damage, threads, and what its keys depend on."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_builds import build_model, random_picture
from vlm_reference import ANSWERS, answer_loss, with_lora

from ffr.dialogue import FilePrompt
from ffr.errors import UsageError
from ffr.models.features import ImageFeatureCache, ImageFeatures
from ffr.models.loading import load_vlm

Ask = Callable[..., tuple[FilePrompt, list[Path]]]


def features(
    number: int, *, tokens: int = 8, deep: int = 2, dtype: torch.dtype = torch.float32
) -> ImageFeatures:
    generator = torch.Generator().manual_seed(number)
    return ImageFeatures(
        pooled=torch.randn((tokens, 16), generator=generator).to(dtype),
        deepstack=tuple(
            torch.randn((tokens, 16), generator=generator).to(dtype) for _ in range(deep)
        ),
        grid=torch.tensor([[1, 4, number]]) if number % 2 else None,
        in_tuple=bool(number % 3),
    )


def assert_same(found: ImageFeatures | None, expected: ImageFeatures) -> None:
    assert found is not None
    mine, theirs = found.tensors(), expected.tensors()
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert mine[name].dtype == tensor.dtype
        assert torch.equal(mine[name], tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_disk_gives_back_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    cache = ImageFeatureCache(memory_bytes=0, disk_folder=tmp_path, disk_bytes=10**7)
    for number in range(6):
        cache.put(f"{number:064x}", features(number, deep=number % 3, dtype=dtype))
    again = ImageFeatureCache(memory_bytes=10**6, disk_folder=tmp_path, disk_bytes=10**7)
    for number in range(6):
        assert f"{number:064x}" in again
        assert_same(
            again.get(f"{number:064x}", "cpu"), features(number, deep=number % 3, dtype=dtype)
        )
    assert again.get("f" * 64, "cpu") is None
    assert again.num_damaged_files == 0


@given(numbers=st.lists(st.integers(0, 12), max_size=40), room=st.integers(0, 6))
def test_memory_keeps_the_newest_within_its_bound(numbers: list[int], room: int) -> None:
    size = features(1).num_bytes
    cache = ImageFeatureCache(memory_bytes=room * size)
    order: list[int] = []  # the model: least recently used first
    for number in numbers:
        found = cache.get(str(number), "cpu")
        assert (found is not None) is (number in order)
        if found is None:
            cache.put(str(number), features(1))
        else:
            order.remove(number)
        order = [*order, number][-room:] if room else []
        assert {item for item in range(13) if str(item) in cache} == set(order)
        assert cache._used_bytes == len(order) * size <= cache.memory_bytes


def test_putting_again_counts_once() -> None:
    cache = ImageFeatureCache(memory_bytes=10**6)
    for number in (1, 2, 3):
        cache.put("a", features(number))
    assert cache._used_bytes == features(3).num_bytes
    assert_same(cache.get("a", "cpu"), features(3))


def test_disk_stays_within_its_bound_and_the_oldest_go(tmp_path: Path) -> None:
    one = ImageFeatureCache(memory_bytes=0, disk_folder=tmp_path / "one", disk_bytes=10**6)
    one.put("0" * 64, features(1))
    size = one._folder_size()
    cache = ImageFeatureCache(
        memory_bytes=0, disk_folder=tmp_path / "many", disk_bytes=10 * size + 5
    )
    keys = [f"{number * 7919:064x}"[::-1] for number in range(40)]
    for key in keys:
        cache.put(key, features(1))
        assert cache._folder_size() <= 10 * size + 5
        assert key in cache
    kept = [key in cache for key in keys]
    assert kept == sorted(kept)
    assert 8 <= sum(kept) <= 10
    assert not list((tmp_path / "many").glob("??/.*"))  # no scratch file is left
    fresh = ImageFeatureCache(memory_bytes=0, disk_folder=tmp_path / "many", disk_bytes=2 * size)
    fresh.put("0" * 64, features(1))  # a bound that shrank between two runs
    assert fresh._folder_size() <= 2 * size


def test_damaged_files_are_counted_and_computed_again(tmp_path: Path) -> None:
    """Any changed, missing or added byte is noticed."""
    cache = ImageFeatureCache(memory_bytes=0, disk_folder=tmp_path, disk_bytes=10**7)
    key = "ab" * 32
    cache.put(key, features(5))
    path = cache._path(key)
    good = path.read_bytes()
    rng = random.Random(0)
    damaged = [b"", good[:7], good[: len(good) // 2], good[:-1], good + b"x", b"\xff" * len(good)]
    for _ in range(300):
        changed = bytearray(good)
        for _ in range(rng.choice((1, 1, 4))):
            changed[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(changed))
    num_damaged = 0
    for content in damaged:
        path.write_bytes(content)
        found = cache.get(key, "cpu")
        if found is None:
            num_damaged += 1
            assert not path.exists()
        else:
            assert_same(found, features(5))  # white space in the header, say
    assert cache.num_damaged_files == num_damaged > 290


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = ImageFeatureCache(memory_bytes=0, disk_folder=tmp_path / "file", disk_bytes=10**6)
    with pytest.raises(
        UsageError,
        match=r"file: image features cannot be written there \(.*\); free space or name another",
    ):
        cache.put("ab" * 32, features(1))


def test_threads_share_it(tmp_path: Path) -> None:
    cache = ImageFeatureCache(
        memory_bytes=3 * features(1).num_bytes, disk_folder=tmp_path, disk_bytes=20_000
    )

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            number = rng.randrange(12)
            found = cache.get(f"{number:064x}", "cpu")
            if found is None:
                cache.put(f"{number:064x}", features(number))
            else:
                assert_same(found, features(number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert cache.num_damaged_files == 0
    assert (
        cache._used_bytes
        == sum(item.num_bytes for item in cache._kept.values())
        <= cache.memory_bytes
    )


def test_key_names_picture_weights_and_settings(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = model_folder("qwen2-vl")
    first = load_vlm(folder)
    keys = {first.tower.key("a"), first.tower.key("b")}
    keys |= {
        load_vlm(folder, max_image_pixels=5000).tower.key("a"),
        load_vlm(folder, dtype="bfloat16").tower.key("a"),
        load_vlm(build_model("qwen2-vl", tmp_path / "other", seed=9)).tower.key("a"),
        load_vlm(model_folder("qwen2.5-vl")).tower.key("a"),
    }
    assert len(keys) == 6
    assert (
        first.tower.key("a") == load_vlm(folder).tower.key("a") == with_lora(folder).tower.key("a")
    )


def test_features_of_another_processor_are_other_features(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = load_vlm(model_folder("qwen2-vl")).tower
    key = tower.key("a")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER")
    assert tower.key("a") != key


def test_same_path_with_another_picture_is_another_picture(
    model_folder: Callable[[str], Path], ask: Ask, tmp_path: Path
) -> None:
    vlm = load_vlm(model_folder("qwen2-vl"))
    vlm.tower.cache = ImageFeatureCache(memory_bytes=10**7)
    prompt, _ = ask(0)
    path = random_picture(tmp_path / "a.png", 60, 60, seed=1)
    first = answer_loss(vlm, [vlm.encode(prompt, [path], answer=ANSWERS[0])])
    random_picture(path, 112, 60, seed=2)
    second = answer_loss(vlm, [vlm.encode(prompt, [path], answer=ANSWERS[0])])
    copy = tmp_path / "b.png"
    copy.write_bytes(path.read_bytes())
    third = answer_loss(vlm, [vlm.encode(prompt, [copy], answer=ANSWERS[0])])
    assert first != second
    assert torch.equal(second, third)


def test_a_picture_that_was_put_out_is_computed_again(
    model_folder: Callable[[str], Path], ask: Ask
) -> None:
    vlm = load_vlm(model_folder("qwen3-vl"))
    expected = answer_loss(vlm, [vlm.encode(*ask(0, 1, 2), answer=ANSWERS[0])])
    vlm.tower.cache = ImageFeatureCache(memory_bytes=10**7)
    answer_loss(vlm, [vlm.encode(*ask(0, 1, 2), answer=ANSWERS[0])])
    row = vlm.encode(*ask(0, 1, 2), answer=ANSWERS[0])
    assert all(image.inputs is None for image in row.images)
    vlm.tower.cache = ImageFeatureCache(memory_bytes=0)
    assert torch.equal(answer_loss(vlm, [row]), expected)
