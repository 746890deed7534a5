"""Files and folders.

Whole or not at all, readable as the umask says, and nothing of the dead left behind.
"""

from __future__ import annotations

import ast
import gzip
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ffr import files
from ffr.errors import DataError
from ffr.files import (
    cached_path,
    remove,
    replace_text,
    replaced,
    replaced_file,
    replaced_folder,
    replaced_path,
)
from ffr.files import scratch as hand

REPOSITORY = Path(__file__).resolve().parent.parent


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def rights(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    replace_text(path, "first")
    with suppress(ZeroDivisionError), replaced_file(path) as write:
        write(b"half of the sec")
        raise ZeroDivisionError
    assert path.read_text() == "first"
    replace_text(path, "zweité")
    assert path.read_bytes() == "zweité".encode()
    assert [found.name for found in path.parent.iterdir()] == ["a.txt"]


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(
        DataError, match=r"a/b.txt: cannot be written \(.*\); check the folder and its room"
    ):
        replace_text(tmp_path / "a" / "b.txt", "text")


def test_packed_files_hold_no_time_and_no_name(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with replaced_file(tmp_path / name) as write:
            write(b"same")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"same"


@pytest.mark.parametrize(
    ("mask", "file", "folder"),
    [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o077, 0o600, 0o700)],
)
def test_rights_are_as_the_umask_gives_them(
    tmp_path: Path, mask: int, file: int, folder: int
) -> None:
    with umask(mask):
        replace_text(tmp_path / "text", "a")
        with replaced_path(tmp_path / "path") as scratch:
            os.close(os.open(scratch, os.O_CREAT | os.O_WRONLY, 0o600))
        with cached_path(tmp_path / "ab" / "cached", tmp_path) as scratch:
            os.close(os.open(scratch, os.O_CREAT | os.O_WRONLY, 0o600))
        with replaced_folder(tmp_path / "run") as made:
            (made / "inner").mkdir(mode=0o700)
            os.close(os.open(made / "inner" / "weights", os.O_CREAT | os.O_WRONLY, 0o600))
        with replaced_file(tmp_path / "secret", is_private=True) as write:
            write(b"key")
    assert {
        rights(tmp_path / name) for name in ("text", "path", "ab/cached", "run/inner/weights")
    } == {oct(file)}
    assert {rights(tmp_path / name) for name in ("run", "run/inner", "ab")} == {oct(folder)}
    assert rights(tmp_path / "secret") == "0o600"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    for content in ("first", "second"):
        with replaced_folder(folder) as made:
            (made / content).write_text(content)
        assert [path.name for path in folder.iterdir()] == [content]
    with suppress(ZeroDivisionError), replaced_folder(folder) as made:
        (made / "third").write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in folder.iterdir()] == ["second"]
    with replaced_folder(folder, keep_existing=True) as made:
        (made / "fourth").write_text("late")
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "merged"
    with replaced_folder(folder) as made:
        (made / "old").touch()
    renamed: list[str] = []
    replace = os.replace

    def fail_second(source: Path, target: Path) -> None:
        renamed.append(Path(target).name)
        if len(renamed) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    # as on a disk that cannot let two names change places
    monkeypatch.setattr(replaced, "_swap_names", lambda one, other: False)
    monkeypatch.setattr(os, "replace", fail_second)
    with pytest.raises(OSError, match="No space left"), replaced_folder(folder) as made:
        (made / "new").touch()
    assert renamed == ["merged.old", "merged", "merged"]
    assert [path.name for path in folder.iterdir()] == ["old"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems rename twice")
def test_a_folder_is_never_missing_while_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two change places in one call: no rename of the one that is there."""
    renamed: list[str] = []
    replace = os.replace

    def noted(source: Path, target: Path) -> None:
        renamed.append(Path(source).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    for content in ("first", "second"):
        with replaced_folder(tmp_path / "merged") as made:
            (made / content).touch()
    assert renamed == ["merged"]
    assert [path.name for path in tmp_path.rglob("*")] == ["merged", "second"]
    with pytest.raises(FileNotFoundError, match="missing"):
        replaced._swap_names(tmp_path / "merged", tmp_path / "missing")


def test_a_full_disk_is_the_same_error_whoever_wrote(tmp_path: Path) -> None:
    def write() -> None:
        with replaced_folder(tmp_path / "merged"):
            raise RuntimeError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )

    with pytest.raises(OSError, match=r"No space left on device.*merged") as caught:
        write()
    assert caught.value.errno == 28
    assert list(tmp_path.iterdir()) == []


_WRITER = """
import sys, time
from pathlib import Path
from ffr.files import replaced_file, replaced_folder
with replaced_folder(Path(sys.argv[1])) as made, replaced_file(Path(sys.argv[1] + ".json")) as write:
    (made / "part").write_text("half")
    write(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def writer(target: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the midst of writing a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def litter(folder: Path) -> list[str]:
    return sorted(
        path.name.split(".")[1] for path in folder.iterdir() if path.name.endswith(".part")
    )


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had looked into no folder yet."""
    monkeypatch.setattr(hand, "_looked_at", set())


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    with writer(tmp_path / "set") as process:
        replace_text(tmp_path / "other.txt", "a")
        assert litter(tmp_path) == ["set", "set"]  # their owner lives
        process.send_signal(signal.SIGKILL)
        process.wait()
    hand._looked_at.clear()
    replace_text(tmp_path / "other.txt", "b")
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_a_folder_that_nobody_works_on_is_cleared_of_what_a_killed_process_left(
    tmp_path: Path,
) -> None:
    (tmp_path / files.OWNER_FILE).write_text("process 1 on a machine")
    (tmp_path / f".set.ffr-{hand._host()}-1-1.part").mkdir()
    (tmp_path / "run.json").touch()
    files.clear_litter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("content", [[], ["set"]])
def test_a_folder_without_a_lock_is_litter(tmp_path: Path, content: list[str]) -> None:
    """Of one killed before it took its lock, or as it put it away."""
    name = f".set.ffr-{hand._host()}-1-1.part"
    (tmp_path / name).mkdir()
    for inner in content:
        (tmp_path / name / inner).touch()
    replace_text(tmp_path / "a", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_another_machine_writes_is_left_alone_for_a_day(tmp_path: Path) -> None:
    folder, file = tmp_path / ".set.ffr-000000-1-1.part", tmp_path / ".set.json.ffr-000000-1-2.part"
    folder.mkdir()
    for path in (folder / ".lock", file):
        path.touch()
    replace_text(tmp_path / "a", "")
    assert folder.is_dir()
    assert file.is_file()
    for path in (folder / ".lock", folder, file):
        os.utime(path, (time.time() - 90_000,) * 2)
    hand._looked_at.clear()
    replace_text(tmp_path / "a", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", [".notes.part", "set.ffr-000000-1-1.part", ".mldr.tar.part"])
def test_what_is_not_ours_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    os.utime(tmp_path / name, (1, 1))
    replace_text(tmp_path / "a", "")
    assert (tmp_path / name).is_dir()


def test_an_exchange_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    scratch = tmp_path / f".merged.ffr-{hand._host()}-1-1.part"
    for name in ("merged", "merged.old"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / name).touch()
    (scratch / ".lock").touch()
    replace_text(tmp_path / "a", "")
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["merged"]
    assert not scratch.exists()


def test_remove_takes_files_folders_and_links_and_nothing_behind_them(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for name in ("link", "folder", "missing"):
        remove(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]


def test_a_part_is_gone_on_with_from_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "part"
    for offset, data in ((0, b"abcdef"), (2, b"X"), (0, b"new")):
        with files.open_from(path, offset) as file:
            file.write(data)
        if offset:
            assert path.read_bytes() == b"abX"
    assert path.read_bytes() == b"new"


# -- nobody else writes ----------------------------------------------------------------------------

_WRITING = {
    "write_text", "write_bytes", "rename", "renames", "unlink", "mkdir", "makedirs", "rmdir", "removedirs", "touch", "chmod",
    "rmtree", "move", "copyfile", "copytree", "copy2", "symlink_to", "hardlink_to", "symlink", "link", "truncate", "fsync",
    "mkstemp", "mkdtemp", "TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile", "ftruncate",
}  # fmt: skip


def writing_calls(source: str) -> list[str]:
    """Calls that change a disk, as far as their names tell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil", "tempfile"):
            found += [f"{node.lineno}: {item.name}" for item in node.names if item.name in _WRITING]
        if not isinstance(node, ast.Call):
            continue
        is_method = isinstance(node.func, ast.Attribute)
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        owner = getattr(getattr(node.func, "value", None), "id", "")
        texts = [
            part.value
            for value in [
                *node.args,
                *(keyword.value for keyword in node.keywords if keyword.arg == "mode"),
            ]
            for part in ast.walk(value)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        is_written = (
            (is_method and name in _WRITING)
            # a text's replace takes two arguments, that of dataclasses takes keywords
            or (is_method and name == "replace" and len(node.args) == 1 and not node.keywords)
            or (owner == "os" and name in ("replace", "remove"))
            or (
                name in ("open", "fdopen")
                and any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts)
            )
        )
        if is_written:
            found.append(f"{node.lineno}: {ast.unparse(node.func)}")
    return found


def test_the_guard_sees_what_writes() -> None:
    lines = [
        'path.write_text("a")', 'open(p, "w")', 'p.open("a", encoding="utf-8")', 'p.open(mode="r+b")', "a.replace(b)", "os.replace(a, b)",
        "shutil.rmtree(p)", "from shutil import rmtree", "tempfile.mkdtemp()", 'p.open("wb" if x else "ab")',
    ]  # fmt: skip
    assert len(writing_calls("\n".join(lines))) == len(lines)
    assert (
        writing_calls(
            'a.replace("x", "y"); dataclasses.replace(a, b=1); open(p); p.open("rb"); gzip.open(p)'
        )
        == []
    )


ELSEWHERE = {
    "exports/benchmark.py": "os.fdopen",  # a pipe to another process
}


def test_only_one_module_writes() -> None:
    found = []
    for folder in ("ffr", "cli", "metrics", "exports"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if path.parent != REPOSITORY / "ffr" / "files":
                calls = writing_calls(path.read_text(encoding="utf-8"))
                place = path.relative_to(REPOSITORY).as_posix()
                found += [
                    f"{place}:{call}"
                    for call in calls
                    if not call.endswith(ELSEWHERE.get(place, "nothing"))
                ]
    assert found == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_a_document_that_is_no_json_is_not_written(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.json"
    files.replace_json(path, {"x": 1})
    with pytest.raises(DataError, match=r"a\.json: cannot be written as JSON"):
        files.replace_json(path, {"x": [value]})
    assert path.read_text() == '{\n  "x": 1\n}\n'


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    for name in ("a b", "c"):
        (tmp_path / name).write_text(name)
    assert files.read_checksums(tmp_path) is None
    assert files.differing_files(tmp_path) == []
    files.write_checksums(tmp_path, ["c", "a b"])
    subprocess.run(
        ["sha256sum", "-c", "--quiet", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True
    )
    assert files.differing_files(tmp_path) == []
    (tmp_path / "c").write_text("d")
    (tmp_path / "a b").unlink()
    assert sorted(files.differing_files(tmp_path)) == ["a b", "c"]


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with files.owned_folder(folder):
        said = subprocess.run(
            [sys.executable, "-c", f"from pathlib import Path\nfrom ffr.files import owned_folder\nwith owned_folder(Path({str(folder)!r})): pass"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (
            f"{folder} is in use by process {os.getpid()} on {socket.gethostname()}; wait until"
            in said.stderr
        )
    assert list(folder.iterdir()) == []
    with files.owned_folder(folder):
        pass


def test_the_lock_of_a_dead_owner_is_nobodys(tmp_path: Path) -> None:
    program = f"import os\nfrom pathlib import Path\nfrom ffr.files import owned_folder\nwith owned_folder(Path({str(tmp_path)!r})): os.kill(os.getpid(), 9)"
    assert (
        subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    )
    assert [path.name for path in tmp_path.iterdir()] == [".owner"]
    with files.owned_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
