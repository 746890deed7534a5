"""`ffr retrieve` and `ffr index`, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import PIL.Image
import pytest
from click.testing import CliRunner, Result

from ffr.cli.main import ffr
from ffr.corpus.store import Store

TRIP = """\
12/05/2023, 18:02 - Ann: shall we fly to Lisbon in May?
12/05/2023, 18:05 - Bob: I found a flat in Alfama
12/05/2023, 18:06 - Bob: IMG-20230512-WA0001.png (file attached)
13/05/2023, 09:00 - Ann: did the dentist call?
13/05/2023, 09:01 - Bob: 今天不看牙医
"""


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "WhatsApp Chat with Trip.zip"
    PIL.Image.new("RGB", (8, 6), "red").save(tmp_path / "IMG-20230512-WA0001.png")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("WhatsApp Chat with Trip.txt", TRIP)
        archive.write(tmp_path / "IMG-20230512-WA0001.png", "IMG-20230512-WA0001.png")
    (tmp_path / "IMG-20230512-WA0001.png").unlink()
    return path


def _run(*arguments: object, words: str = "") -> Result:
    return CliRunner().invoke(ffr, [str(item) for item in arguments], input=words or None)


def _ask(query: str, export: Path | None, *more: object) -> Result:
    chats = [] if export is None else [export]
    folder = more[0] if more else "kept"
    return _run(
        "retrieve", query, *chats, "--index", folder, "--model", "baseline:overlap", *more[1:]
    )


def test_a_chat_is_asked_and_asked_again(export: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    first = _ask("Alfama", export, kept)
    assert first.exit_code == 0, first.output
    assert first.stderr.startswith(
        "Trip: 5 messages, 1 picture, 2 people, 12 May 2023 – 13 May 2023, day/month order d/m"
    )
    assert "18:05 Bob  I found a flat in Alfama" in first.stdout
    assert first.stdout.endswith("1 fragment; searched 5 of 5 messages\n")
    picture = next((kept / "media").iterdir())
    assert f"[picture {picture}]" in first.stdout
    again = _ask("牙医", export, kept)
    assert again.stderr == ""
    assert "今天不看牙医" in again.stdout
    assert "今天不看牙医" in _ask("牙医", None, kept).stdout


def test_nothing_found_is_no_fault(export: Path, tmp_path: Path) -> None:
    done = _ask("zebra", export, tmp_path / "kept", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["found"] is False
    shown = _ask("zebra", export, tmp_path / "kept")
    assert shown.stdout == "Nothing found; searched 5 of 5 messages\n"


def test_filters(export: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"

    def found(*more: object) -> int:
        return len(json.loads(_ask("a flat", export, kept, "--json", *more).stdout)["hits"])

    assert found() == 1
    assert found("--has", "photo") == 1
    assert found("--by", "Ann") == 0
    assert found("--since", "2023-05-13") == 0
    assert found("--until", "2023-05", "--since", "2023") == 1
    assert found("--chat", "Trip", "--by", "bob") == 1


def test_it_goes_on_asking(export: Path, tmp_path: Path) -> None:
    done = _run(
        "retrieve", "Lisbon", export, "--index", tmp_path / "kept", "--model", "baseline:overlap",
        "--interactive", words="Alfama\n\n",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.count("searched 5 of 5 messages") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["  ", "EXPORT"], 2, "the query is empty"),
        (["x", "EXPORT", "--by", "Eve"], 2, "--by Eve: nobody is called so; there are Ann, Bob"),
        (["x", "EXPORT", "--since", "tomorrow"], 2, "tomorrow is no day; write 2023-05-12"),
        (["x", "EXPORT", "--since", "2024", "--until", "2023"], 2, "which leaves no day"),
        (["x", "EXPORT", "--chat", "Lake"], 2, "no chat called Lake"),
        (["x", "no-such-chat.zip"], 1, "no-such-chat.zip: is not there"),
        (["x", "NOTHING"], 1, "holds no chat that can be read"),
        (["x"], 1, "holds no chat yet"),
        (["x", "EXPORT", "--json", "--interactive"], 2, "choose one"),
        (["x", "EXPORT", "--as", "icq"], 2, "there is no form of chats called icq"),
        (["x", "EXPORT", "--model", "baseline:nosuch"], 2, "no baseline 'nosuch'"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    export: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    nothing = tmp_path / "nothing.txt"
    nothing.write_text("once upon a time\n")
    named = {"EXPORT": str(export), "NOTHING": str(nothing)}
    given = [named.get(item, item) for item in arguments]
    more = [] if "--model" in given else ["--model", "baseline:overlap"]
    done = _run("retrieve", *given, "--index", tmp_path / "kept", *more)
    assert done.exit_code == code, done.output
    assert words in done.stderr
    assert "Traceback" not in done.output


def test_a_chat_is_read_beforehand(export: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    done = _run("index", "add", export, "--index", kept, "--model", "baseline:overlap")
    assert done.exit_code == 0, done.output
    assert done.stdout == f'1 chat in {kept}; next: ffr retrieve "…"\n'
    assert _ask("Alfama", None, kept).stderr == ""


def test_list_and_forget(export: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert "No chat is kept in" in _run("index", "list", "--index", kept).stdout
    _ask("Alfama", export, kept)
    listed = _run("index", "list", "--index", kept).stdout.splitlines()
    assert listed[0] == (
        "1  Trip (whatsapp): 5 messages, 1 picture, 2 people, 12 May 2023 – 13 May 2023"
    )
    assert listed[1] == f"   {export}"
    assert listed[2].startswith("1 chat, 0.")
    assert _run("index", "forget", "--index", kept).exit_code == 2
    assert _run("index", "forget", "Lake", "--index", kept).exit_code == 2
    assert _run("index", "forget", "Trip", "--index", kept).stdout == f"{kept}: 1 chat forgotten\n"
    assert list((kept / "media").iterdir()) == []
    assert _run("index", "forget", "--all", "--index", kept).exit_code == 0
    assert not kept.exists()
    assert export.is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_it_works_without_any_network(export: Path, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace without a network can be made here")
    code = (
        "import socket\n"
        "try:\n"
        "    socket.create_connection(('127.0.0.1', 9), 1)\n"
        "except OSError as error:\n"
        "    assert error.errno == 101, error  # no network at all, not even its own\n"
        "from ffr.cli.main import main; main()"
    )
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", code, "retrieve", "Alfama", str(export), "--index",
         str(tmp_path / "kept"), "--model", "baseline:overlap"],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "I found a flat in Alfama" in done.stdout


def test_a_page_of_what_was_found(export: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    done = _ask("Alfama", export, tmp_path / "kept", "--html", page)
    assert done.exit_code == 0, done.output
    assert done.stderr.endswith(f"{page}: 1 fragment, in one file; open it in a browser\n")
    written = page.read_text(encoding="utf-8")
    assert "I found a flat in Alfama" in written
    assert "data:image/jpeg;base64," in written
    refused = _ask("Alfama", export, tmp_path / "kept", "--html", tmp_path / "found.pdf")
    assert refused.exit_code == 2
    assert "let its name end in .html" in refused.stderr


@pytest.mark.slow
def test_an_encoder_of_both_looks_at_pictures(export: Path, tmp_path: Path) -> None:
    done = _run(
        "retrieve", "a flat", export, "--index", tmp_path / "kept", "--image-model", "tiny-clip", "--json"
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    with Store(tmp_path / "kept") as store:
        (row,) = store.rows("SELECT looker, words FROM shown")
    assert row["looker"].startswith("tiny-clip ")
    assert row["words"].startswith("a photo of ")


@pytest.mark.parametrize("day", ["9999", "9999-12", "9999-12-31"])
def test_the_last_day_that_there_is(export: Path, tmp_path: Path, day: str) -> None:
    done = _ask("Alfama", export, tmp_path / "kept", "--until", day)
    assert done.exit_code == 0, done.output
    assert "searched 5 of 5 messages" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-messages", "9" * 30], "give numbers from 0"),
        (["--pause", "inf"], "give numbers from 0"),
        (["--by", ""], "nobody is called so; there are Ann, Bob"),
    ],
)
def test_numbers_and_names_that_cannot_be(
    export: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = _ask("Alfama", export, tmp_path / "kept", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.output


def test_the_chat_that_is_named_with_its_export_is_of_that_export(
    export: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / export.with_suffix(".txt").name
    other.parent.mkdir()
    other.write_text("01/02/2024, 10:00 - Zoe: quite another flat in Alfama\n")
    kept = tmp_path / "kept"
    assert _ask("Alfama", other, kept).exit_code == 0
    found = json.loads(_ask("Alfama", export, kept, "--chat", "Trip", "--json").stdout)
    assert [hit["chat_id"] for hit in found["hits"]] == [2]
    assert _ask("Alfama", None, kept, "--chat", "Trip").exit_code == 2
