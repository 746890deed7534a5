"""Where a result comes from, as files state it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata

import pytest

from ffr import provenance


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["/home/me/.venv/bin/ffr", "eval", "--model", "/a/b"], ["ffr", "eval", "--model", "/a/b"]),
        (["C:\\Users\\me\\ffr.exe", "doctor"], ["ffr.exe", "doctor"]),
        (["ffr"], ["ffr"]),
        ([""], [""]),
    ],
)
def test_a_command_does_not_tell_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, words: list[str], told: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", words)
    assert provenance.command() == told


def test_versions_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "9.9", "pillow": "1.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    provenance._versions.cache_clear()
    try:
        found = provenance.versions()
        assert list(found) == ["python", "platform", "torch", "pillow"]
        assert (found["torch"], found["pillow"]) == ("9.9", "1.0")
        assert found["python"] == ".".join(map(str, sys.version_info[:3]))
        found["torch"] = "changed"
        assert provenance.versions()["torch"] == "9.9", "what is handed out is a copy"
    finally:
        provenance._versions.cache_clear()


def test_a_moment_is_in_utc_to_the_millisecond() -> None:
    text = provenance.now()
    moment = datetime.fromisoformat(text)
    assert moment.utcoffset() == timedelta(0)
    assert len(text) == len("2026-01-01T00:00:00.000+00:00")
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)
