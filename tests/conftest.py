"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent

# a loaded machine must not fail a property, and CI must judge the same examples twice
settings.register_profile(
    "ffr", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("ffr")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real dialogues and chat exports: FFR_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("FFR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("the folder of real dialogues is not here; set FFR_SHARED to it")
    return folder


@pytest.fixture(scope="session")
def real_dialogues(shared_dir: Path) -> Path:
    """Folder with dev.json and train.jsonl.gz: real dialogues with real photographs."""
    folder = shared_dir / "real-dialogues"
    if not folder.is_dir():
        pytest.skip("the real dialogues are not here; set FFR_SHARED to the folder that holds real-dialogues/")
    return folder


@pytest.fixture(scope="session")
def sample_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """FFR_DATA_HOME of the session, with the generated sets in it."""
    from ffr.data.sample import SAMPLE_NAMES, write_sample

    home = tmp_path_factory.mktemp("data-home")
    for name in SAMPLE_NAMES:
        write_sample(home / name, name)
    before = os.environ.get("FFR_DATA_HOME")
    os.environ["FFR_DATA_HOME"] = str(home)
    yield home
    if before is None:
        del os.environ["FFR_DATA_HOME"]
    else:
        os.environ["FFR_DATA_HOME"] = before
