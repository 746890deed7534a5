"""Downloads from a local server with faults, and archives that try to get out."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ffr.data.download import MANIFEST, extract, fetch, install
from ffr.errors import DataError, UsageError


def make_tar(
    path: Path, members: dict[str, bytes] | None = None, *odd: tarfile.TarInfo, mode: str = "w"
) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in (
            members or {"val.jsonl": b"{}\n", "images/a.png": b"\x89PNG" * 5000}
        ).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in odd:
            tar.addfile(info)
    return path


@dataclass
class Server:
    """What the server gives and how it misbehaves."""

    content: bytes = b""
    tag: str | None = '"v1"'
    ranges: bool = True
    cut_after: list[int] = field(
        default_factory=list
    )  # bytes sent of each coming answer before the cut
    status: list[int] = field(default_factory=list)  # of each coming answer, before it behaves
    no_length: bool = False
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append(asked)
            if state.status:
                self.send_error(state.status.pop(0))
                return
            begin = 0
            fresh = self.headers.get("If-Range") in (None, state.tag)
            if asked and state.ranges and fresh:
                begin = int(asked.removeprefix("bytes=").rstrip("-"))
                if begin >= len(state.content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {begin}-{len(state.content) - 1}/{len(state.content)}"
                )
            else:
                self.send_response(200)
            if not state.no_length:
                self.send_header("Content-Length", str(len(state.content) - begin))
            if state.tag:
                self.send_header("ETag", state.tag)
            self.end_headers()
            body = state.content[begin:]
            if state.cut_after:
                body = body[: state.cut_after.pop(0)]
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is given
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/sets/mldr.tar"
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def tar(tmp_path: Path, server: Server) -> Path:
    path = make_tar(tmp_path / "set.tar")
    server.content = path.read_bytes()
    return path


def _install(server: Server, folder: Path, **options: Any) -> Any:
    return install(folder, url=server.url, retry_seconds=0, **options)


def test_a_download(server: Server, tar: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    folder = tmp_path / "home" / "mldr"
    result = _install(server, folder, progress=lambda *at: heard.append(at))
    digest = hashlib.sha256(tar.read_bytes()).hexdigest()
    assert (result.sha256, result.num_bytes, result.num_files) == (digest, tar.stat().st_size, 2)
    assert (folder / "images" / "a.png").read_bytes() == b"\x89PNG" * 5000
    assert heard[-1] == (len(server.content), len(server.content))
    manifest = json.loads((folder / MANIFEST).read_text())
    assert (manifest["sha256"], manifest["origin"], manifest["files"]) == (digest, server.url, 2)
    assert [path.name for path in folder.parent.iterdir()] == ["mldr"]


def test_keys_in_the_address_are_not_written_down(
    server: Server, tar: Path, tmp_path: Path
) -> None:
    address = server.url.replace("http://", "http://user:secret@") + "?token=secret"
    # urllib takes no user in the address: the failure must not show it either
    with pytest.raises(DataError) as caught:
        install(tmp_path / "h" / "mldr", url=address, retry_seconds=0, num_retries=0)
    assert "secret" not in str(caught.value)
    install(tmp_path / "mldr", url=server.url + "?token=secret", retry_seconds=0)
    assert "secret" not in (tmp_path / "mldr" / MANIFEST).read_text()


def test_a_cut_connection_is_taken_up_again(server: Server, tar: Path, tmp_path: Path) -> None:
    server.cut_after = [3000, 5000]
    result = _install(server, tmp_path / "mldr")
    assert result.sha256 == hashlib.sha256(tar.read_bytes()).hexdigest()
    assert server.requests == [None, "bytes=3000-", "bytes=8000-"]


def test_the_next_call_goes_on(server: Server, tar: Path, tmp_path: Path) -> None:
    server.cut_after = [3000]
    server.status = []
    with pytest.raises(DataError, match=r"failed at 3,000 bytes .* run the command again to go on"):
        _install(server, tmp_path / "mldr", num_retries=0)
    assert not (tmp_path / "mldr").exists()
    _install(server, tmp_path / "mldr")
    assert server.requests == [None, "bytes=3000-"]


def test_a_full_disk_is_not_taken_for_a_cut_connection(
    server: Server, tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, offset: int) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("ffr.data.download.open_from", full)
    with pytest.raises(
        DataError, match=r"mldr: cannot be written \(No space left on device\); is there room\?"
    ):
        _install(server, tmp_path / "mldr")
    assert server.requests == [None]


def test_a_file_that_changed_begins_anew(server: Server, tar: Path, tmp_path: Path) -> None:
    server.cut_after = [3000]
    with pytest.raises(DataError, match="failed at"):
        _install(server, tmp_path / "mldr", num_retries=0)
    server.tag = '"v2"'
    server.content = make_tar(tmp_path / "new.tar", {"val.jsonl": b"new" * 3000}).read_bytes()
    _install(server, tmp_path / "mldr")
    assert (tmp_path / "mldr" / "val.jsonl").read_bytes() == b"new" * 3000


def test_what_lies_there_of_another_address_is_not_gone_on_with(
    server: Server, tar: Path, tmp_path: Path
) -> None:
    """Two files of a server may bear the same tag, and the beginning of one is not that of the other."""
    server.cut_after = [3000]
    with pytest.raises(DataError, match="failed at 3,000 bytes"):
        _install(server, tmp_path / "mldr", num_retries=0)
    server.content = make_tar(tmp_path / "new.tar", {"val.jsonl": b"new" * 3000}).read_bytes()
    server.url += "?part=2"
    _install(server, tmp_path / "mldr")
    assert server.requests == [None, None]
    assert (tmp_path / "mldr" / "val.jsonl").read_bytes() == b"new" * 3000


@pytest.mark.parametrize(("ranges", "tag"), [(False, '"v1"'), (True, None), (True, 'W/"weak"')])
def test_servers_that_cannot_resume(
    server: Server, tar: Path, tmp_path: Path, ranges: bool, tag: str | None
) -> None:
    server.ranges, server.tag, server.cut_after = ranges, tag, [3000, 4000]
    result = _install(server, tmp_path / "mldr")
    assert result.sha256 == hashlib.sha256(tar.read_bytes()).hexdigest()


def test_servers_that_do_not_tell_the_length(server: Server, tar: Path, tmp_path: Path) -> None:
    server.no_length = True
    assert _install(server, tmp_path / "mldr").num_files == 2


def test_server_errors(server: Server, tar: Path, tmp_path: Path) -> None:
    server.status = [503, 503]
    assert _install(server, tmp_path / "a").num_files == 2
    server.status = [404]
    with pytest.raises(DataError, match="the server answers 404 Not Found; check the address"):
        _install(server, tmp_path / "b")
    server.status = [500] * 9
    with pytest.raises(DataError, match="500"):
        _install(server, tmp_path / "b", num_retries=2)
    assert not (tmp_path / "b").exists()


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the download failed at 0 bytes"):
        install(tmp_path / "a", url="http://127.0.0.1:9/x.tar", num_retries=0, retry_seconds=0)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://e.org/a", "/a.tar", "http://", "mldr.tar"]
)
def test_addresses_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="no web address"):
        fetch(url, tmp_path / "x")


@pytest.mark.parametrize("no_length", [False, True])
def test_size_limit(server: Server, tar: Path, tmp_path: Path, no_length: bool) -> None:
    server.no_length = no_length
    with pytest.raises(DataError, match="raise --max-gigabytes"):
        _install(server, tmp_path / "mldr", max_bytes=10_000)
    assert not (tmp_path / "mldr").exists()


def test_checksums(server: Server, tar: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(tar.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"its SHA-256 is {digest}, not 000"):
        _install(server, tmp_path / "mldr", sha256="0" * 64)
    assert not list(tmp_path.glob(".mldr*"))
    assert _install(server, tmp_path / "mldr", sha256=digest.upper()).sha256 == digest
    with pytest.raises(UsageError, match="64 hex digits"):
        _install(server, tmp_path / "b", sha256="abc")


def test_a_local_copy(tar: Path, tmp_path: Path) -> None:
    assert install(tmp_path / "home" / "mldr", archive=tar).num_files == 2
    assert tar.exists()
    with pytest.raises(UsageError, match="is there already; pass --force"):
        install(tmp_path / "home" / "mldr", archive=tar)
    make_tar(tar, {"other.jsonl": b"x"})
    install(tmp_path / "home" / "mldr", archive=tar, replace=True)
    assert sorted(path.name for path in (tmp_path / "home" / "mldr").iterdir()) == [
        MANIFEST,
        "other.jsonl",
    ]
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["mldr"]
    with pytest.raises(DataError, match="not found"):
        install(tmp_path / "x", archive=tmp_path / "none.tar")


def test_one_source_is_needed(tmp_path: Path) -> None:
    for options in ({}, {"url": "http://e.org/a", "archive": tmp_path}):
        with pytest.raises(UsageError, match=r"--url URL .* or by --archive FILE"):
            install(tmp_path / "x", **options)


def _odd(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (_odd("/etc/evil"), "leads out of its folder"),
        (_odd("../evil"), "leads out of its folder"),
        (_odd("a/../../evil"), "leads out of its folder"),
        (_odd("C:/evil"), "leads out of its folder"),
        (_odd("a\\..\\evil"), "leads out of its folder"),
        (_odd("link", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (_odd("link", tarfile.SYMTYPE, "val.jsonl"), "is a link"),
        (_odd("link", tarfile.LNKTYPE, "val.jsonl"), "is a link"),
        (_odd("pipe", tarfile.FIFOTYPE), "neither a file nor a folder"),
        (_odd("disk", tarfile.BLKTYPE), "neither a file nor a folder"),
        (_odd("tty", tarfile.CHRTYPE), "neither a file nor a folder"),
        (_odd("val.jsonl"), "twice"),
        (_odd("./val.jsonl"), "twice"),
        (_odd(MANIFEST), "reserved"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, odd: tarfile.TarInfo, message: str) -> None:
    archive = make_tar(tmp_path / "a.tar", None, odd)
    with pytest.raises(DataError, match=message):
        install(tmp_path / "home" / "mldr", archive=archive)
    assert list((tmp_path / "home").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "home"]


def test_rights_are_made_harmless(tmp_path: Path) -> None:
    info = _odd("run.sh")
    info.mode = 0o6777
    make_tar(tmp_path / "a.tar", None, info)
    (tmp_path / "out").mkdir()
    extract(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o6022 == 0


def test_bombs(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar.gz", {"zeros": b"\0" * 5_000_000}, mode="w:gz")
    assert (tmp_path / "a.tar.gz").stat().st_size < 20_000
    with pytest.raises(DataError, match="unpacks to more than 1,000,000 bytes"):
        install(tmp_path / "x", archive=tmp_path / "a.tar.gz", max_bytes=1_000_000)
    make_tar(tmp_path / "b.tar", {f"{number}": b"" for number in range(30)})
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="or 20 files"):
        extract(tmp_path / "b.tar", tmp_path / "out", max_members=20)
    # a header that lies about its size ends at the limit or at the end of the file, not in memory
    lying = tmp_path / "c.tar"
    lying.write_bytes(_odd("big", size=1 << 40).tobuf() + b"\0" * 2048)
    with pytest.raises(DataError):
        install(tmp_path / "x", archive=lying)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\0" * 10_240, gzip.compress(b"hello", mtime=0)]
)
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"is no \.tar that can be unpacked|holds no files"):
        install(tmp_path / "x", archive=tmp_path / "a.tar")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_damaged_archives_end_in_a_sentence(tmp_path: Path, mode: str) -> None:
    whole = make_tar(tmp_path / "a.tar", mode=mode).read_bytes()
    chance = random.Random(mode)
    for number in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(min(len(damaged), 1600))] = chance.randrange(256)
        (tmp_path / "b.tar").write_bytes(bytes(damaged[: chance.randint(1, len(damaged))]))
        try:
            install(
                tmp_path / "home" / f"x{number}", archive=tmp_path / "b.tar", max_bytes=1_000_000
            )
        except DataError:
            assert not (tmp_path / "home" / f"x{number}").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "b.tar", "home"]
