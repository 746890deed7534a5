"""Data, pictures and archives from someone else.

Read or refused in time that grows no faster than they do.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data import index as index_module
from ffr.data.catalog import load_dataset, locate
from ffr.data.check import check_file
from ffr.data.dataset import open_dataset
from ffr.data.download import extract
from ffr.data.forms.ms_swift import example_to_record
from ffr.data.index import RecordFile, parse_record
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.images import open_image


def seconds(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


# -- records ---------------------------------------------------------------------------------------


def test_a_key_that_stands_twice_among_many_is_found_at_once() -> None:
    data = ("{" + ",".join(f'"k{n}":1' for n in range(60_000)) + ',"k59999":2}').encode()

    def read() -> None:
        with pytest.raises(DataError, match="x:1: the key 'k59999' stands twice"):
            parse_record(data, "x:1")

    assert seconds(read) < 5


def test_many_queries_on_a_long_dialogue_are_read_in_one_walk(tmp_path: Path) -> None:
    lines = [{"speaker": "a", "utterance": [{"image_url": f"{n}.png"}]} for n in range(20_000)]
    queries = [f"q{n}" for n in range(1_000)]
    record = {
        "dialogue_id": "d",
        "dialogue": lines,
        "query_text": queries,
        "gt_turns": [[n, 0] for n in range(1_000)],
    }
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(record) + "\n")
    found: list[Example] = []

    def read() -> None:
        data = open_dataset(path, require_images=False)
        found.extend(data[number] for number in range(len(data)))

    assert seconds(read) < 15
    assert len(found) == 1_000
    assert found[7].fragment == Fragment((7, 0), (0, 7))
    assert found[0].fragment == Fragment((0, 0), (0,))


def test_the_examples_of_a_record_are_not_mixed_up_when_asked_for_in_turn(tmp_path: Path) -> None:
    records = [
        {
            "dialogue_id": name,
            "dialogue": [{"speaker": "a", "utterance": name}],
            "query_text": [f"{name}0", f"{name}1"],
        }
        for name in "ab"
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = open_dataset(path)
    assert [data[number].query for number in (0, 2, 1, 3, 3, 0)] == [
        "a0",
        "b0",
        "a1",
        "b1",
        "b1",
        "a0",
    ]


@pytest.mark.parametrize("blank", [b"\n", b" \r\n", b"\t\n\n"])
def test_blank_lines_are_counted_and_passed_by(tmp_path: Path, blank: bytes) -> None:
    path = tmp_path / "d.jsonl"
    num_lines = 40_000 * blank.count(b"\n")
    path.write_bytes(b'{"a": 1}\n' + blank * 40_000 + b'  {"a": 2}\n\n{"a": 3}')
    records = RecordFile(path)
    assert [records.read(number) for number in range(3)] == [
        b'{"a": 1}\n',
        b'  {"a": 2}\n',
        b'{"a": 3}',
    ]
    assert [records.line(number) for number in range(3)] == [1, num_lines + 2, num_lines + 4]


def test_empty_lines_without_end_are_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\n" * 30_000_000)

    def read() -> None:
        with pytest.raises(DataError, match="holds no records"):
            RecordFile(path)

    assert seconds(read) < 3


def test_what_unpacks_to_far_more_than_it_packs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.jsonl.gz"
    line = b'{"a": "' + b"x" * 1000 + b'"}\n'
    path.write_bytes(gzip.compress(line * 3000))
    assert len(RecordFile(path)) == 3000
    monkeypatch.setattr(index_module, "_FREE_UNPACKED_BYTES", 1000)
    bound = 200 * path.stat().st_size
    with pytest.raises(
        DataError,
        match=f"unpacks to more than {bound:,} bytes; .* set FFR_MAX_UNPACKED_BYTES higher",
    ):
        RecordFile(path)
    monkeypatch.setenv("FFR_MAX_UNPACKED_BYTES", "10000000")
    assert len(RecordFile(path)) == 3000


def chat_record(number: int, *sources: str) -> dict[str, Any]:
    lines = (
        Utterance("a", (f"line {number}",)),
        *(Utterance("b", (Image(source),)) for source in sources),
    )
    return example_to_record(Example(Dialogue(f"d{number}", lines), "q", Fragment((0,), ())))


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
        encoding="utf-8",
    )
    return path


def test_keys_that_hold_nothing_are_let_through(tmp_path: Path) -> None:
    record = chat_record(0)
    for message in record["messages"]:
        message.update(name=None, tool_calls=None)
    report = check_file(write(tmp_path / "d.jsonl", record))
    assert (report.num_good, [fault.message for fault in report.faults]) == (
        1,
        [
            f'messages have the unknown key "{key}", which holds nothing'
            for key in ("name", "tool_calls")
        ],
    )
    record["messages"][0]["name"] = "x"
    report = check_file(write(tmp_path / "e.jsonl", record))
    assert [fault.message for fault in report.errors] == [
        'message 0 has the unknown key "name"; remove it'
    ]
    raw = {
        "dialogue_id": "d",
        "dialogue": [{"speaker": "a", "utterance_idx": None, "utterance": "x"}],
        "query_text": "q",
    }
    assert check_file(write(tmp_path / "f.jsonl", raw)).num_good == 1


def test_check_and_skip_bad_agree_on_the_pictures(tmp_path: Path) -> None:
    noise = PIL.Image.effect_noise((200, 150), 80).convert("RGB")
    noise.save(tmp_path / "whole.jpg")
    half = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(half[: len(half) // 2])
    sources = [
        "whole.jpg",
        "half.jpg",
        "none.jpg",
        "data:image/png;base64,AAAA",
        "ftp://x.org/a.png",
        "file:///a.png",
    ]
    path = write(
        tmp_path / "d.jsonl",
        *(chat_record(number, source) for number, source in enumerate(sources)),
    )
    report = check_file(path)
    assert (report.num_good, [fault.line for fault in report.errors]) == (1, [2, 3, 4, 5, 6])
    said: list[str] = []
    data = load_dataset(path, skip_bad=True, echo=said.append)
    assert [example.dialogue.id for example in data] == ["d0"]
    assert data.num_left_out == 5
    assert said == [
        "d.jsonl: 5 bad records or queries left out:",
        *(f"  {fault.where}: {fault.message}" for fault in report.errors),
    ]
    assert [fault.message.partition("; ")[2] for fault in report.errors[2:]] == [
        "write it to a file and name its path",
        "download it and write its path",
        "write the path that it means",
    ]


# -- pictures --------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_one_grey_of_many_is_see_through(tmp_path: Path) -> None:
    greys = np.array([[10_000, 30_000, 60_000, 60_001]], np.uint16)
    header = struct.pack(">IIBBBBB", 4, 1, 16, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">H", 60_000))
    png += chunk(b"IDAT", zlib.compress(b"\0" + greys.astype(">u2").tobytes())) + chunk(
        b"IEND", b""
    )
    (tmp_path / "a.png").write_bytes(png)
    picture = open_image(tmp_path / "a.png")
    assert [picture.getpixel((x, 0)) for x in range(4)] == [
        (39,) * 3,
        (117,) * 3,
        (255,) * 3,
        (234,) * 3,
    ]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_greys_without_a_white_are_refused(tmp_path: Path, kind: Any) -> None:
    PIL.Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "a.tif")
    with pytest.raises(
        DataError, match="greys of 32 bits, of which none says what is white; convert it to 8 or 16"
    ):
        open_image(tmp_path / "a.tif")


# -- archives --------------------------------------------------------------------------------------


def tar_of(names: list[str], content: bytes = b"x" * 512) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return held.getvalue()


def damaged(data: bytes) -> bytes:
    return data[: 4 * 1024] + b"\x01" * 512 + data[4 * 1024 + 512 :]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize(
    "cut", [lambda data: data[: 4 * 1024], lambda data: data[: 4 * 1024 + 100], damaged]
)
def test_an_archive_without_its_end_is_refused(tmp_path: Path, cut: Any, pack: Any) -> None:
    whole = tar_of([f"images/{number}.png" for number in range(8)])
    (tmp_path / "whole.tar").write_bytes(pack(whole))
    assert extract(tmp_path / "whole.tar", tmp_path / "all") == 8
    (tmp_path / "cut.tar").write_bytes(pack(cut(whole)))
    with pytest.raises(
        DataError, match=r"cut\.tar: the archive is cut off, its end is missing; fetch it again"
    ):
        extract(tmp_path / "cut.tar", tmp_path / "half")


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_name_without_measure_is_not_read(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 1 << 40
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)
    with pytest.raises(
        DataError, match=r"a\.tar: the archive holds a name of 1,099,511,627,776 bytes; it is not"
    ):
        extract(tmp_path / "a.tar", tmp_path / "out")


def test_names_upon_names_are_no_traceback(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = b"L", 2
    (tmp_path / "a.tar").write_bytes(
        (header.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")) * 5_000
    )
    with pytest.raises(DataError, match=r"is no \.tar that can be unpacked"):
        extract(tmp_path / "a.tar", tmp_path / "out")


def test_what_a_mac_adds_to_an_archive_is_no_second_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path))
    folder = tmp_path / "wechat"
    for name in (
        "wechat_val.jsonl",
        "._wechat_val.jsonl",
        "__MACOSX/wechat_val.jsonl",
        "__MACOSX/a/._wechat_val.jsonl",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, chat_record(0))
    assert locate("wechat", split="val") == (folder / "wechat_val.jsonl", folder)


# -- pictures of this machine that data of someone else name -----------------------------------------


@pytest.fixture
def nowhere() -> str:
    """A server's address at which nobody answers."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/v1"


@pytest.mark.parametrize("way", ["above", "absolute", "link", "inside"])
def test_pictures_outside_the_data_go_to_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("private", "set"):
        (tmp_path / folder).mkdir()
        PIL.Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / folder / "a.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "private")
    source = {
        "above": "../private/a.png",
        "absolute": str(tmp_path / "private" / "a.png"),
        "link": "linked/a.png",
        "inside": "../set/a.png",
    }[way]
    write(tmp_path / "set" / "d.jsonl", chat_record(0, source))
    server = ["--model", f"api:{nowhere}#m", "--dataset", "set/d.jsonl", "--max-retries", "0"]
    asked = CliRunner().invoke(ffr, ["eval", *server, "--out", "o", "--no-progress"])
    trusted = CliRunner().invoke(
        ffr, ["eval", *server, "--out", "o", "--no-progress", "--outside-pictures"]
    )
    refusal = "lies outside the data's folder, so it is not sent to a server; pass --outside-pict"
    assert (asked.exit_code, trusted.exit_code) == (1, 1)
    assert (refusal in asked.output) == (way != "inside"), asked.output
    assert "gave no answer, at last a cut connection" in trusted.output, trusted.output

    (tmp_path / "suite.yaml").write_text(
        f"figures: [joint_f1]\ndatasets: [{{label: d, dataset: set/d.jsonl}}]\n"
        f'models: [{{label: m, model: "api:{nowhere}#m", settings: {{max_retries: 0}}}}]\n'
    )
    suite = ["bench", "run", "suite.yaml", "--out", "b", "--no-progress"]
    assert (refusal in CliRunner().invoke(ffr, suite).output) == (way != "inside")
    assert "cut connection" in CliRunner().invoke(ffr, [*suite, "--outside-pictures"]).output


@pytest.mark.parametrize("address", ["https://x.org/a.json", "file:///a.json", "s3://b/a.json"])
@pytest.mark.parametrize(
    "words",
    [
        "data check {}",
        "data stats {}",
        "data import {} --out o.jsonl",
        "eval --model baseline:overlap --dataset {}",
        "eval --predictions {}",
        "report {}",
        "compare {} {}",
        "gate {} --baseline {}",
        "bench run {}",
    ],
)
def test_an_address_in_place_of_a_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(ffr, words.replace("{}", address).split())
    assert done.exit_code in (1, 2)
    assert "(it is an address: fetch it, and name the file)" in done.output


# -- the terminal ----------------------------------------------------------------------------------

STEERING = "\x1b]0;OWNED\x07\x1b[31m\u202e"


def test_what_check_says_of_foreign_words_steers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # long paths are cut
    record = chat_record(0, f"no{STEERING}.png") | {"dialogue_id": f"d{STEERING}\n::error::x"}
    again = {**record, "messages": chat_record(1, f"no{STEERING}.png")["messages"]}
    write(tmp_path / "d.jsonl", record, again)
    for options in ([], ["--json"]):
        result = CliRunner().invoke(ffr, ["data", "check", "d.jsonl", *options])
        assert result.exit_code == 1
        assert "OWNED" in result.output
        assert not set(STEERING) & set(result.output) - set("]0;OWNED[31m")
        assert not any(line.startswith("::error::") for line in result.output.splitlines())
    assert (
        json.loads(result.output)["faults"][0]["message"].count("no␛]0;OWNED␇␛[31m⟨U+202E⟩.png")
        == 1
    )


def test_what_an_archive_calls_its_members_steers_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([f"val_{STEERING}a.jsonl", "val_b.jsonl"], b"{}\n"))
    environment = {"FFR_DATA_HOME": str(tmp_path / "home")}
    result = CliRunner(env=environment).invoke(
        ffr, ["data", "download", "mldr", "--archive", str(tmp_path / "a.tar")]
    )
    assert (
        "cannot be told (found: val_␛]0;OWNED␇␛[31m⟨U+202E⟩a.jsonl, val_b.jsonl)" in result.output
    )


def run(*words: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    known = {
        name: value for name, value in {**os.environ, **environment}.items() if value is not None
    }
    command = [sys.executable, "-m", "ffr.cli.main", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=known, encoding="utf-8"
    )


def test_a_console_that_is_not_utf8_loses_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "猫.jsonl", chat_record(0))
    done = run("data", "stats", str(path), PYTHONIOENCODING="ascii", COLUMNS="300")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u732b.jsonl" in done.stdout
    assert "+---" in done.stdout  # the table's frame in ASCII


def test_without_a_home_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FFR_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(
        UsageError, match="no home folder is known here, so set FFR_DATA_HOME to a folder"
    ):
        locate("sample", split="val")
