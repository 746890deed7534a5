"""The one hand that writes.

A file or folder appears whole or not at all, and what the dead leave is removed.

All that ffr makes, writes, renames or deletes on a disk goes through this package
(tests/test_files.py holds the house to it), through `os`, `shutil` and `open` as they stand in
`disk`, `scratch` and `replaced`: a test can fail any such call there.

What is being written lies in a scratch file or folder beside its place, named
`.NAME.ffr-HOST-PID-NUMBER.part`, under a lock that its process holds. A lock that nobody holds
tells that the process is dead: the next one to write beside it removes what it left.
"""

from __future__ import annotations

from ffr.files.checksums import (
    CHECKSUMS_FILE,
    check_as_written,
    differing_files,
    is_as_written,
    read_checksums,
    write_checksums,
)
from ffr.files.disk import (
    append,
    cut_off,
    make_folder,
    make_new_folder,
    make_private_file,
    make_private_folder,
    open_from,
    open_to_append,
    remove,
    remove_if_empty,
    write_bytes,
    write_text,
    write_through,
)
from ffr.files.documents import (
    dump_json,
    dump_record,
    replace_json,
    write_json,
    write_records,
)
from ffr.files.owners import (
    OWNER_FILE,
    clear_litter,
    is_in_use,
    is_passing,
    owned_folder,
)
from ffr.files.replaced import (
    cached_path,
    replace_text,
    replaced_file,
    replaced_folder,
    replaced_path,
    temporary_folder,
)
from ffr.files.scratch import (
    Scratch,
)

__all__ = [
    "CHECKSUMS_FILE",
    "OWNER_FILE",
    "Scratch",
    "append",
    "cached_path",
    "check_as_written",
    "clear_litter",
    "cut_off",
    "differing_files",
    "dump_json",
    "dump_record",
    "is_as_written",
    "is_in_use",
    "is_passing",
    "make_folder",
    "make_new_folder",
    "make_private_file",
    "make_private_folder",
    "open_from",
    "open_to_append",
    "owned_folder",
    "read_checksums",
    "remove",
    "remove_if_empty",
    "replace_json",
    "replace_text",
    "replaced_file",
    "replaced_folder",
    "replaced_path",
    "temporary_folder",
    "write_bytes",
    "write_checksums",
    "write_json",
    "write_records",
    "write_text",
    "write_through",
]
