"""The model of a training and its process, as the settings say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ffr.data.catalog import load_dataset
from ffr.settings import SftConfig
from ffr.training.common.setup import KERNELS_KEPT, load_base, make_prompt_builder, prepare_process


@pytest.mark.parametrize(("given", "expected"), [(None, "128"), ("7", "7")])
def test_few_kernels_are_kept_unless_told(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = KERNELS_KEPT[0]
    monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(name)
    prepare_process(SftConfig())
    assert os.environ[name] == expected


def test_image_features_are_kept_where_the_settings_say(sample_home: Path, tmp_path: Path) -> None:
    data = load_dataset("sample", split="val")
    example = next(example for example in data if example.dialogue.images)
    found = {}
    for name, settings in (
        ("off", {"feature_cache_mb": 0, "feature_cache_dir": str(tmp_path / "off")}),
        ("memory", {"feature_cache_mb": 1}),
        (
            "folder",
            {
                "feature_cache_mb": 2,
                "feature_cache_dir": str(tmp_path / "kept"),
                "feature_cache_dir_mb": 3,
            },
        ),
    ):
        config = SftConfig(accelerator="cpu", **settings)
        vlm = load_base(config, "tiny")
        builder = make_prompt_builder(config, vlm)
        vlm.collate([builder(example, with_answer=True)], padding_side="right")
        found[name] = vlm.tower.cache
    assert found["off"] is None
    assert found["memory"] is not None
    assert found["folder"] is not None
    assert (found["memory"].memory_bytes, found["memory"].disk_folder) == (2**20, None)
    assert (found["folder"].memory_bytes, found["folder"].disk_bytes) == (2 * 2**20, 3 * 2**20)
    assert not (tmp_path / "off").exists()
    kept = list((tmp_path / "kept").rglob("*.safetensors"))
    assert len(kept) == len({image.source for image in example.dialogue.images})


@pytest.mark.parametrize(("limit", "is_refused"), [(16, True), (15_536, False)])
def test_prompts_are_bounded(sample_home: Path, limit: int, is_refused: bool) -> None:
    from ffr.errors import DataError

    config = SftConfig(accelerator="cpu", max_tokens=limit)
    builder = make_prompt_builder(config, load_base(config, "tiny"))
    example = load_dataset("sample", split="val")[0]
    if is_refused:
        with pytest.raises(DataError, match="more than the 16 allowed"):
            builder(example)
    else:
        assert builder(example).num_tokens > 16
