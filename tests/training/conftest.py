"""A small part of the generated set: trainings of a few steps need not read 2,000 records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

NUM_DIALOGUES = 10
"""Of each language and part."""


@pytest.fixture(scope="module")
def sample_home(sample_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """FFR_DATA_HOME of a module, in which `sample` has 10 dialogues a language and part."""
    whole, home = sample_home / "sample", tmp_path_factory.mktemp("small-data-home")
    for source in whole.glob("*.jsonl"):
        lines = []
        for line in source.read_text(encoding="utf-8").splitlines(keepends=True):
            record = json.loads(line)
            number = int(record["dialogue_id"].split("_")[3])  # sample_train_zh_00000_q0
            if number < NUM_DIALOGUES:
                lines.append(line)
                for image in record["images"]:
                    target = home / "sample" / image
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(whole / image, target)
        (home / "sample" / source.name).write_text("".join(lines), encoding="utf-8")
    shutil.copyfile(whole / "generator.json", home / "sample" / "generator.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFR_DATA_HOME", str(home))
        yield home
