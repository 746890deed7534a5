"""`ffr serve`: chats are read, the address is said, and Ctrl-C ends it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
import webbrowser
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from ffr.cli.main import ffr
from ffr.page import serving
from ffr.shipped.chats import CHATS_FILE

EXPORT = """[12.05.23, 18:00:00] Ann: shall we fly to Lisbon?
[12.05.23, 18:01:00] Bob: I found a flat in Alfama
[12.05.23, 18:02:00] Ann: lovely
"""


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "WhatsApp Chat with Bob.txt"
    path.write_text(EXPORT)
    return path


Call = Callable[..., Any]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`ffr serve`, of which the server answers the questions of a function and ends."""

    def make(*words: object, asked: Callable[[TestClient], None] = lambda _: None) -> Any:
        def answer(app: ASGIApp, listening: socket.socket) -> None:
            port = listening.getsockname()[1]
            asked(TestClient(app, base_url=f"http://127.0.0.1:{port}"))

        monkeypatch.setattr(serving, "serve", answer)
        options = ["--index", tmp_path / "kept", "--model", "baseline:overlap"]
        return CliRunner().invoke(ffr, ["serve", *map(str, [*options, *words])])

    return make


def test_a_chat_is_served(call: Call, export: Path) -> None:
    done = call(export, "--no-open")
    assert done.exit_code == 0, done.output
    assert "3 messages" in done.stderr
    (line,) = done.stdout.splitlines()
    assert re.fullmatch(
        r"Open http://127\.0\.0\.1:\d+/\?token=[\w-]{43} in a browser of this machine; "
        r"Ctrl-C ends\.",
        line,
    )
    again = call("--no-open")  # what was read before
    assert again.exit_code == 0
    assert line.partition("token=")[2] not in again.stdout


def test_the_browser_gets_a_key_for_once(
    call: Call, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    answers = []

    def asked(client: TestClient) -> None:
        answers.append(client.get(opened[0]).status_code)
        found = client.get("/api/search?q=Alfama").json()
        answers.append([line["text"] for hit in found["hits"] for line in hit["lines"]])
        client.cookies.clear()
        answers.append(client.get(opened[0]).status_code)

    done = call(export, "--open", asked=asked)
    assert done.exit_code == 0, done.output
    assert "I found a flat in Alfama" in answers.pop(1)
    assert answers == [200, 403]
    assert opened[0] not in done.output


def test_only_the_chats_that_are_named(
    call: Call, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "WhatsApp Chat with Cem.txt"
    other.write_text(EXPORT.replace("Bob", "Cem"))
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    shown: list[list[str]] = []

    def asked(client: TestClient) -> None:
        client.get(opened[-1])
        shown.append([chat["title"] for chat in client.get("/api/chats").json()["chats"]])

    call(export, "--no-open")
    call(other, "--open", asked=asked)
    call("--open", asked=asked)
    assert shown == [["Cem"], ["Bob", "Cem"]]


def test_a_data_file_brings_its_pictures_from_wherever_one_stands(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.chdir(CHATS_FILE.parent.parent)
    answers = []

    def asked(client: TestClient) -> None:
        client.get(opened[0])
        lines = client.get("/api/chats/1/lines").json()["lines"]
        (first, *_) = [line for line in lines if line["media"]]
        answers.append(first["media"][0])
        answers.append(client.get(f"/thumbnails/{first['id']}/0").headers["content-type"])

    done = call(CHATS_FILE.relative_to(Path.cwd()), "--open", asked=asked)
    assert done.exit_code == 0, done.output
    assert answers == [
        {"number": 0, "kind": "picture", "name": "lake.jpg", "is_picture": True},
        "image/jpeg",
    ]


def test_what_cannot_be_served_is_a_sentence(call: Call, tmp_path: Path) -> None:
    done = call("--no-open")
    assert done.exit_code == 1
    assert "holds no chat yet" in done.stderr
    done = call(tmp_path / "gone.zip", "--no-open")
    assert done.exit_code == 1
    assert "is not there; check the path" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = call("--port", taken.getsockname()[1], "--no-open")
    assert done.exit_code == 2
    assert "cannot be had" in done.stderr
    assert call("--port", 80).exit_code == 2


def test_a_taken_usual_port_is_said(
    call: Call, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(serving, "DEFAULT_PORT", taken.getsockname()[1])
        done = call(export, "--no-open")
    assert re.search(r"port \d+ is taken, so the page is at \d+", done.stderr)


@pytest.mark.slow
def test_ctrl_c_ends_it(export: Path, tmp_path: Path) -> None:
    words = ["serve", export, "--index", tmp_path / "kept", "--model", "baseline:overlap"]
    with subprocess.Popen(
        [sys.executable, "-m", "ffr.cli.main", *map(str, words), "--no-open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        browser = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar()), urllib.request.ProxyHandler({})
        )
        with browser.open(address, timeout=30) as page:
            assert b"Your chats" in page.read()
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped by Ctrl-C" in said
    assert "Traceback" not in said
    assert out == ""
