"""Fetches a published archive, resumed where it was cut, checks it, and unpacks it safely."""

from __future__ import annotations

import hashlib
import http.client
import json
import lzma
import os
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Self

from ffr.errors import DataError, UsageError
from ffr.files import (
    dump_record,
    make_folder,
    open_from,
    remove,
    replaced_file,
    replaced_folder,
    write_json,
)
from ffr.progress import Progress
from ffr.text import counted, one_line

MAX_ARCHIVE_BYTES = 50 << 30
"""Default bound of an archive and of what it unpacks to."""
MAX_MEMBERS = 2_000_000
MAX_NAME_BYTES = 1 << 20
"""Bound of the part of a header that holds a long name and other facts of a member."""
MANIFEST = "ffr-download.json"
"""Beside the unpacked files: where the archive came from, its SHA-256 and size, when it was
fetched, and by which version."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30.0
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError)


class _LostError(Exception):
    """The connection failed; what a disk refuses is another matter, which no new try mends."""


@dataclass(frozen=True, slots=True)
class Download:
    """What `install` did."""

    folder: Path
    sha256: str
    num_bytes: int
    num_files: int


def install(
    folder: Path,
    *,
    url: str | None = None,
    archive: Path | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_ARCHIVE_BYTES,
    replace: bool = False,
    progress: Progress | None = None,
    num_retries: int = 5,
    retry_seconds: float = 2.0,
) -> Download:
    """Puts the contents of an archive into a folder, which appears whole or not at all.

    A download that was cut off is kept beside the folder and taken up again by the next call with
    the same URL.

    Args:
        folder: Where the contents go; its name names the set.
        url: Web address of the .tar (plain, .gz, .bz2 or .xz); or
        archive: a local copy of it.
        sha256: What the archive's SHA-256 must be; None to record it only.
        max_bytes: Bound of the archive, and of what it unpacks to.
        replace: Put it in the place of what is there.
        progress: Is told the bytes that are there and those in all, at every chunk of a download.
        num_retries: How often in a row a download is tried again without getting further.
        retry_seconds: Pause before the first of these; doubled for each further one.

    Raises:
        UsageError: where neither or both of `url` and `archive` are given, the URL is no web
            address, or the folder is there.
        DataError: where the download fails, is too large or not what `sha256` says, or holds what
            may not be unpacked.
    """
    if (url is None) == (archive is None):
        raise UsageError(
            "name the archive by --url URL (to fetch it) or by --archive FILE (a copy on this "
            "machine)"
        )
    if sha256 is not None and (
        len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")
    ):
        raise UsageError(f"--sha256 {sha256!r} is not 64 hex digits")
    if folder.exists() and not replace:
        raise UsageError(f"{folder} is there already; pass --force to put the archive in its place")
    try:
        make_folder(folder.parent)
        if url is not None:
            part = folder.parent / f".{folder.name}.tar.part"
            fetch(
                url,
                part,
                max_bytes=max_bytes,
                progress=progress,
                num_retries=num_retries,
                retry_seconds=retry_seconds,
            )
            source, origin = part, _shown_url(url)
        else:
            assert archive is not None
            source, origin = archive, archive.name
        result = _unpack(source, origin, folder, sha256, max_bytes, is_ours=url is not None)
        if url is not None:
            _forget(source)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror or error}); is there room?", where=str(folder)
        ) from error
    return result


def fetch(
    url: str,
    part: Path,
    *,
    max_bytes: int = MAX_ARCHIVE_BYTES,
    progress: Progress | None = None,
    num_retries: int = 5,
    retry_seconds: float = 2.0,
) -> None:
    """Downloads a file, from where an earlier call for the same URL stopped if the server can.

    Beside `part` lies a small .json with the URL and the server's tag of its content, by which a
    changed file is noticed.

    Raises:
        UsageError: where the URL is no http or https address.
        DataError: where the server refuses, the file is too large, or the connection fails again
            and again.
        OSError: where the disk refuses; no new try would mend that.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{url!r} is no web address (http or https); for a file on this machine use --archive "
            "FILE"
        )
    failures = 0
    while True:
        had = part.stat().st_size if part.exists() else 0
        try:
            if _fetch_once(url, part, max_bytes, progress):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise DataError(
                    f"the server answers {error.code} {error.reason}; check the address",
                    where=_shown_url(url),
                ) from error
            reason = f"the server answers {error.code} {error.reason}"
        except _LostError as error:
            reason = str(error)
        got = part.stat().st_size if part.exists() else 0
        failures = 1 if got > had else failures + 1
        if failures > num_retries:
            raise DataError(
                f"the download failed at {counted(got, 'byte')} ({reason}); run the command "
                "again to go on "
                "from there",
                where=_shown_url(url),
            )
        time.sleep(retry_seconds * 2 ** (failures - 1))


def _fetch_once(url: str, part: Path, max_bytes: int, progress: Progress | None) -> bool:
    """One request; True where the file is complete afterwards."""
    note = part.with_suffix(".json")
    known = _read_note(note)
    have = part.stat().st_size if part.exists() else 0
    if have and (known.get("url") != url or not known.get("tag")):
        have = 0  # of another address, or nothing to tell whether it is still the same file
    if have and have == known.get("total"):
        return True
    request = urllib.request.Request(
        url, headers={"User-Agent": f"ffr/{_version()}", "Accept-Encoding": "identity"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", str(known["tag"]))
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            remove(part)  # what lies here does not fit the server's file: start over
            return False
        raise
    except _NETWORK_ERRORS as error:
        raise _lost(error) from error
    with response:
        begin, total = _extent(response, have)
        if total is not None and total > max_bytes:
            raise DataError(
                f"the archive has {counted(total, 'byte')}, more than the {max_bytes:,} allowed; "
                "raise "
                "--max-gigabytes",
                where=_shown_url(url),
            )
        headers = response.headers
        tag = (
            headers.get("ETag")
            if not str(headers.get("ETag", "W/")).startswith("W/")
            else headers.get("Last-Modified")
        )
        # an address may carry a key
        with replaced_file(note, is_private=True) as write:
            write(dump_record({"url": url, "tag": tag, "total": total}))
        with open_from(part, begin) as file:
            have = begin
            while chunk := _read(response):
                have += len(chunk)
                if have > max_bytes:
                    raise DataError(
                        f"the archive has more than the {max_bytes:,} bytes allowed; raise "
                        "--max-gigabytes",
                        where=_shown_url(url),
                    )
                file.write(chunk)
                if progress is not None:
                    progress(have, total)
    return total is None or have == total


def _read(response: Any) -> bytes:
    """The next bytes of an answer; none at its end."""
    try:
        chunk: bytes = response.read(_CHUNK_BYTES)
    except _NETWORK_ERRORS as error:
        raise _lost(error) from error
    return chunk


def _lost(error: Exception) -> _LostError:
    return _LostError(str(getattr(error, "reason", None) or error) or type(error).__name__)


def _extent(response: Any, asked_from: int) -> tuple[int, int | None]:
    """The offset that the answer begins at, and the length of the whole file where it is told."""
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    if response.status != 206:
        return 0, size
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, whole = rest.partition("/")
    if unit != "bytes" or span.partition("-")[0] != str(asked_from):
        raise _LostError("the server sent another part than was asked for")
    return asked_from, int(whole) if whole.isascii() and whole.isdigit() and len(
        whole
    ) < 19 else None


def _version() -> str:
    return metadata.version("ffr-vlm")


def _read_note(note: Path) -> dict[str, Any]:
    try:
        value = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _forget(part: Path) -> None:
    remove(part)
    remove(part.with_suffix(".json"))


def _shown_url(url: str) -> str:
    """The address without what may be a password or a key."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")
    )


def _unpack(
    source: Path, origin: str, folder: Path, sha256: str | None, max_bytes: int, *, is_ours: bool
) -> Download:
    if not source.is_file():
        raise DataError("not found; correct the path of the archive", where=str(source))
    with source.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and found != sha256.lower():
        if is_ours:
            _forget(source)
        raise DataError(
            f"its SHA-256 is {found}, not {sha256.lower()}; fetch it again, or correct --sha256",
            where=origin,
        )
    num_bytes = source.stat().st_size
    with replaced_folder(folder) as scratch:
        try:
            num_files = extract(source, scratch, max_bytes=max_bytes, where=origin)
        except DataError:
            if is_ours:
                _forget(source)  # what cannot be unpacked is no use for going on
            raise
        manifest = {
            "name": folder.name,
            "origin": origin,
            "sha256": found,
            "bytes": num_bytes,
            "files": num_files,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "ffr": _version(),
        }
        write_json(scratch / MANIFEST, manifest)
    return Download(folder, found, num_bytes, num_files)


def extract(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int = MAX_ARCHIVE_BYTES,
    max_members: int = MAX_MEMBERS,
    where: str | None = None,
) -> int:
    """Unpacks a .tar into an empty folder and tells the number of files.

    Only plain files and folders inside it are let through.

    Every member is judged before its content is read: links, devices, absolute paths, `..`, names
    that stand twice, and more bytes or members than allowed end it. Python's own `data` filter is
    applied on top.

    Raises:
        DataError: with the member that is refused, or what is wrong with the archive.
        UsageError: on a Python without extraction filters (before 3.11.4).
    """
    place = where or archive.name
    if not hasattr(tarfile, "data_filter"):
        raise UsageError("this Python cannot unpack archives safely; use 3.11.4 or later")
    names: set[str] = set()
    num_files = num_bytes = 0
    try:
        with tarfile.open(archive, "r:*", tarinfo=_Header) as tar:
            for member in tar:
                name = _checked_name(member, place)
                if name in names and not member.isdir():
                    raise DataError(
                        f"the archive has {_quoted(member.name)} twice; it is not unpacked",
                        where=place,
                    )
                names.add(name)
                num_bytes += member.size
                if num_bytes > max_bytes or len(names) > max_members:
                    raise DataError(
                        f"the archive unpacks to more than {max_bytes:,} bytes or {max_members:,} "
                        "files; "
                        "raise --max-gigabytes if that is right",
                        where=place,
                    )
                tar.extract(member, folder, filter="data")
                num_files += member.isfile()
            if not getattr(tar, "has_end", False):
                raise DataError(
                    "the archive is cut off, its end is missing; fetch it again", where=place
                )
    except _HeaderError as error:
        raise DataError(str(error), where=place) from error
    except tarfile.FilterError as error:
        raise DataError(
            f"the archive holds what may not be unpacked ({one_line(error)})", where=place
        ) from error
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DataError(
            f"is no .tar that can be unpacked ({one_line(error)}); fetch it again", where=place
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot be unpacked ({error.strerror or error}); is there room?", where=place
        ) from error
    if not num_files:
        raise DataError("the archive holds no files; is it the right one?", where=place)
    return num_files


class _HeaderError(Exception):
    """Raised for a header that is not to be read."""


class _Header(tarfile.TarInfo):
    """A header judged before what belongs to it is read, and that tells the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _NAME_TYPES and header.size > MAX_NAME_BYTES:
            raise _HeaderError(
                f"the archive holds a name of {counted(header.size, 'byte')}; it is not "
                "unpacked, is it the "
                "right one?"
            )
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            # the zeros that end an archive; it is over without a word where anything else stands,
            # or nothing
            setattr(tarfile_, "has_end", True)  # noqa: B010 - an attribute of ours
            raise


_NAME_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
"""Members that hold the name and other facts of the next one, and are read whole."""


def _checked_name(member: tarfile.TarInfo, where: str) -> str:
    """The member's path in one spelling, if it may be unpacked."""
    name = member.name
    path = PurePosixPath(name)
    reason = ""
    if not (member.isfile() or member.isdir()):
        reason = (
            "is a link" if member.issym() or member.islnk() else "is neither a file nor a folder"
        )
    elif (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or "\0" in name
        or (len(name) > 1 and name[1] == ":")
    ):
        reason = "leads out of its folder"
    elif not path.parts and member.isfile():
        reason = "has no name"
    elif path.parts and path.parts[0] == MANIFEST:
        reason = "has a name that is reserved"
    if reason:
        raise DataError(
            f"the archive's member {_quoted(name)} {reason}; it is not unpacked", where=where
        )
    return os.path.normcase(str(path))


def _quoted(name: str) -> str:
    return ascii(name if len(name) <= 120 else name[:117] + "...")
