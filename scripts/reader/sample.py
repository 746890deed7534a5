"""Draws chats of a file in ms-swift form: `python scripts/reader/sample.py --data FILE --chats N --out FILE`.

By `meta.base_dialogue_id`, all records of a chat or none, seeded; those that quote a line are left out, since
they say word for word what is looked for. For `measure.py`, on chats beside the development set.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from ffr.files import replace_json


def drawn(rows: list[dict[str, Any]], num_chats: int, seed: int) -> list[dict[str, Any]]:
    """The records of so many chats.

    Raises:
        ValueError: where there are fewer.

    >>> rows = [{"meta": {"base_dialogue_id": str(n // 2), "query_kind": "topic"}} for n in range(8)]
    >>> [row["meta"]["base_dialogue_id"] for row in drawn(rows, 2, 0)]
    ['3', '3', '1', '1']
    """
    of_chat = defaultdict(list)
    for row in rows:
        of_chat[row["meta"]["base_dialogue_id"]].append(row)
    if num_chats > len(of_chat):
        raise ValueError(f"{num_chats} chats of {len(of_chat)} are asked for; ask for fewer")
    chosen = random.Random(seed).sample(sorted(of_chat), num_chats)
    return [
        row
        for chat in chosen
        for row in of_chat[chat]
        if not row["meta"]["query_kind"].startswith("quote")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a .jsonl.gz")
    parser.add_argument("--chats", type=int, default=90)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with gzip.open(arguments.data, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = drawn(rows, arguments.chats, arguments.seed)
    replace_json(arguments.out, found)
    print(f"{arguments.out}: {len(found)} records")


if __name__ == "__main__":
    main()
