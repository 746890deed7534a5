"""Where named sets are kept: where the user says, else with the user's other caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffr.data.home import data_home
from ffr.errors import UsageError


def test_the_folder_of_named_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("FFR_DATA_HOME", "some/where")
    assert data_home() == Path("some/where")
    monkeypatch.setenv("FFR_DATA_HOME", "")
    assert data_home() == tmp_path / ".cache" / "ffr" / "data"
    monkeypatch.delenv("FFR_DATA_HOME")
    assert data_home() == tmp_path / ".cache" / "ffr" / "data"


def test_nobody_is_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("FFR_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(UsageError, match="no home folder is known here, so set FFR_DATA_HOME"):
        data_home()
