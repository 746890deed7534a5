"""How long a million messages of each form take to stream, and how much memory: each in a process of its own.

    python benchmarks/chats.py [--messages 1000000] [--forms telegram weflow] [--out benchmarks/results/chats.json]

Beside each stands what the standard library takes to read the same file whole: `json.load` of an object,
`json.loads` of every line with all kept, `csv.reader` with all rows kept, the lines of a text. The bounds (60 s of CPU,
since the clock of a shared machine runs for others too; 1 GB) are for a million messages; it fails over one.
Forms that are not named keep what the result file has of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

BOUND_SECONDS = 60.0
BOUND_MEGABYTES = 1000.0
_WORDS = [
    "今天",
    "天气",
    "很好",
    "我们",
    "去",
    "公园",
    "照片",
    "猫",
    "the",
    "train",
    "leaves",
    "at",
    "nine",
    "and",
    "we",
    "will",
    "have",
    "dinner",
    "später",
    "Straße",
]
_PEOPLE = ("Ann", "Bo", "小陈", "Zoë", "Dee")
_BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
_ZONE = timedelta(hours=8)


def messages(count: int) -> Iterator[tuple[int, int, str, bool]]:
    """Of each message: its number, who speaks, what is said, whether it is a picture."""
    chance = random.Random(0)
    for number in range(count):
        text = " ".join(chance.choices(_WORDS, k=chance.randint(2, 16)))
        yield number, chance.randrange(len(_PEOPLE)), text, chance.random() < 0.05


def _clock(number: int) -> tuple[int, datetime]:
    moment = _BEGIN + timedelta(seconds=37 * number)
    return int(moment.timestamp()), moment


def _write_list(file: TextIO, head: str, entries: Iterator[dict[str, Any]], tail: str) -> None:
    """An object whose last member is a list, one entry a line."""
    file.write(head)
    for number, entry in enumerate(entries):
        file.write((",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False))
    file.write(tail)


def write_telegram(file: TextIO, count: int) -> None:
    def entries() -> Iterator[dict[str, Any]]:
        for number, person, text, is_picture in messages(count):
            seconds, moment = _clock(number)
            entry: dict[str, Any] = {
                "id": number + 1,
                "type": "message",
                "date": (moment + _ZONE).strftime("%Y-%m-%dT%H:%M:%S"),
                "date_unixtime": str(seconds),
                "from": _PEOPLE[person],
                "from_id": f"user{person}",
            }
            if number % 9 == 8:
                entry["reply_to_message_id"] = number - 3
            if is_picture:
                entry |= {"photo": f"photos/photo_{number}.jpg", "width": 1280, "height": 960}
            entry["text"] = text
            entry["text_entities"] = [{"type": "plain", "text": text}]
            yield entry

    _write_list(
        file, '{"name": "Trip", "type": "private_group", "id": 7, "messages": [', entries(), "]}"
    )


def write_weflow(file: TextIO, count: int) -> None:
    def entries() -> Iterator[dict[str, Any]]:
        for number, person, text, is_picture in messages(count):
            seconds, moment = _clock(number)
            yield {
                "localId": number,
                "createTime": seconds,
                "formattedTime": (moment + _ZONE).strftime("%Y-%m-%d %H:%M:%S"),
                "type": "图片消息" if is_picture else "文本消息",
                "localType": 3 if is_picture else 1,
                "content": f"media/images/{number}.jpg" if is_picture else text,
                "isSend": int(person == 0),
                "senderUsername": f"wxid_{person}",
                "senderDisplayName": _PEOPLE[person],
                "platformMessageId": str(10**18 + number),
            }

    head = '{"session": {"wxid": "1@chatroom", "nickname": "x", "type": "群聊"}, "messages": ['
    _write_list(file, head, entries(), "]}")


def write_chatlab(file: TextIO, count: int) -> None:
    head = {"_type": "header", "chatlab": {"version": "0.0.2"}, "meta": {"name": "Trip"}}
    file.write(json.dumps(head) + "\n")
    for person, name in enumerate(_PEOPLE):
        member = {"_type": "member", "platformId": str(person), "accountName": name}
        file.write(json.dumps(member, ensure_ascii=False) + "\n")
    for number, person, text, is_picture in messages(count):
        entry = {
            "_type": "message",
            "sender": str(person),
            "accountName": _PEOPLE[person],
            "timestamp": _clock(number)[0],
            "type": int(is_picture),
            "content": "[图片]" if is_picture else text,
        }
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def write_discord(file: TextIO, count: int) -> None:
    def entries() -> Iterator[dict[str, Any]]:
        for number, person, text, is_picture in messages(count):
            name = _PEOPLE[person]
            picture = {"id": "1", "url": f"x.json_Files/{number}.jpg", "fileName": f"{number}.jpg"}
            yield {
                "id": str(10**17 + number),
                "type": "Default",
                "timestamp": _clock(number)[1].isoformat(),
                "timestampEdited": None,
                "isPinned": False,
                "content": text,
                "author": {"id": str(person), "name": name, "nickname": name, "isBot": False},
                "attachments": [picture] if is_picture else [],
                "embeds": [],
                "stickers": [],
                "reactions": [],
                "mentions": [],
            }

    head = '{"guild": {"id": "1", "name": "g"}, "channel": {"id": "2", "name": "c"}, "messages": ['
    _write_list(file, head, entries(), "]}")


def write_messenger(file: TextIO, count: int) -> None:
    def broken(text: str) -> str:
        return text.encode().decode("latin-1")

    def entries() -> Iterator[dict[str, Any]]:
        for number, person, text, is_picture in messages(count):
            entry: dict[str, Any] = {
                "sender_name": broken(_PEOPLE[person]),
                "timestamp_ms": _clock(count - number)[0] * 1000,
            }
            if is_picture:
                entry["photos"] = [{"uri": f"messages/inbox/x_1/photos/{number}.jpg"}]
            else:
                entry["content"] = broken(text)
            yield entry

    head = '{"participants": [{"name": "Ann"}], "messages": ['
    _write_list(file, head, entries(), '], "title": "Trip", "thread_path": "inbox/x_1"}')


def write_memotrace(file: TextIO, count: int) -> None:
    writer = csv.writer(file)
    writer.writerow(
        [
            "localId",
            "TalkerId",
            "Type",
            "SubType",
            "IsSender",
            "CreateTime",
            "Status",
            "StrContent",
            "StrTime",
            "Remark",
            "NickName",
            "Sender",
        ]
    )
    for number, person, text, is_picture in messages(count):
        seconds, moment = _clock(number)
        content = f'<msg><img aeskey="k" md5="{number:032x}" length="9"/></msg>'
        writer.writerow(
            [
                number,
                1,
                3 if is_picture else 1,
                0,
                int(person == 0),
                seconds,
                2,
                content if is_picture else text,
                (moment + _ZONE).strftime("%Y-%m-%d %H:%M:%S"),
                "",
                _PEOPLE[person],
                f"wxid_{person}",
            ]
        )


def write_whatsapp(file: TextIO, count: int) -> None:
    for number, person, text, is_picture in messages(count):
        moment = _clock(number)[1]
        said = (
            f"IMG-{moment:%Y%m%d}-WA{number % 10000:04}.jpg (file attached)" if is_picture else text
        )
        # one message in ten goes on in a second line
        more = "\nand more" if number % 10 == 9 else ""
        file.write(f"{moment:%m/%d/%y, %I:%M %p} - {_PEOPLE[person]}: {said}{more}\n")


def write_line(file: TextIO, count: int) -> None:
    file.write("[LINE] Chat history in Trip\nSaved on: 2024/01/15 10:30\n")
    day = None
    for number, person, text, is_picture in messages(count):
        moment = _clock(number)[1]
        if moment.date() != day:
            day = moment.date()
            file.write(f"\n{moment:%Y/%m/%d}\n")
        said = "[Photo]" if is_picture else f'"{text}\nand more"' if number % 10 == 9 else text
        file.write(f"{moment:%H:%M}\t{_PEOPLE[person]}\t{said}\n")


def _load(path: Path) -> object:
    with path.open(encoding="utf-8") as file:
        return json.load(file)


def _load_lines(path: Path) -> object:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _load_text(path: Path) -> object:
    with path.open(encoding="utf-8") as file:
        return list(file)


def _load_rows(path: Path) -> object:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


Writer = Callable[[TextIO, int], None]
Peer = Callable[[Path], object]
FORMS: dict[str, tuple[str, Writer, str, Peer]] = {
    "telegram": ("result.json", write_telegram, "json.load", _load),
    "weflow": ("chat.json", write_weflow, "json.load", _load),
    "chatlab": ("chat.jsonl", write_chatlab, "json.loads of every line", _load_lines),
    "discord": ("channel.json", write_discord, "json.load", _load),
    "messenger": ("message_1.json", write_messenger, "json.load", _load),
    "memotrace": ("chat.csv", write_memotrace, "csv.reader", _load_rows),
    "whatsapp": ("chat.txt", write_whatsapp, "list of the lines", _load_text),
    "line": ("line.txt", write_line, "list of the lines", _load_text),
}
"""Of each form: the name of its file, what writes one, the peer's name and the peer."""


def stream(path: Path) -> dict[str, object]:
    """Streams a chat and keeps nothing of it: what was read."""
    from ffr.chats.reading import chat_streams

    num_messages = num_pictures = 0
    for chat in chat_streams(path):
        for message in chat.messages:
            num_messages += 1
            num_pictures += message.kind == "picture"
        if chat.account.lines():
            raise SystemExit(f"{path}: {chat.account.lines()}")
    return {"messages": num_messages, "pictures": num_pictures}


def measure(form: str, path: Path, is_peer: bool) -> None:
    """Reads a file in this process; prints seconds and the peak of memory."""
    begun, cpu = time.perf_counter(), time.process_time()
    if is_peer:
        kept: object = FORMS[form][3](path)
        read: dict[str, object] = {"kept": kept is not None}
    else:
        read = stream(path)
    print(
        json.dumps(
            {
                "seconds": round(time.perf_counter() - begun, 2),
                "cpu_seconds": round(time.process_time() - cpu, 2),
                "peak_megabytes": round(
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1
                ),
                **read,
            }
        )
    )


def _measured(form: str, path: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", form, str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{form}: {done.stderr[-2000:]}{done.stdout[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--forms", nargs="+", choices=sorted(FORMS), default=list(FORMS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("FORM", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]), options.peer)
        return

    results: dict[str, Any] = {}
    if options.out is not None and options.out.is_file():
        before = json.loads(options.out.read_text(encoding="utf-8"))
        if before["messages"] == options.messages:
            results = before["forms"]
    is_kept = True
    share = options.messages / 1_000_000
    for form in options.forms:
        name, write, peer_name, _ = FORMS[form]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            with path.open("w", encoding="utf-8", newline="") as file:
                write(file, options.messages)
            size = path.stat().st_size
            ours = _measured(form, path)
            peer = _measured(form, path, "--peer")
        if ours["messages"] != options.messages:
            raise SystemExit(f"{form}: {ours['messages']} messages of {options.messages}")
        in_bounds = (
            ours["cpu_seconds"] <= BOUND_SECONDS * share
            and ours["peak_megabytes"] <= BOUND_MEGABYTES
        )
        is_kept &= in_bounds
        results[form] = {
            "megabytes": round(size / 1e6, 1),
            "stream": ours,
            "in_bounds": in_bounds,
            "peer": {"what": peer_name, **peer},
            "cpu_over_peer": round(ours["cpu_seconds"] / max(peer["cpu_seconds"], 0.01), 2),
            "memory_over_peer": round(ours["peak_megabytes"] / peer["peak_megabytes"], 3),
        }
        print(form, json.dumps(results[form]), flush=True)
    content = {
        "messages": options.messages,
        "bounds": {"cpu_seconds": BOUND_SECONDS, "megabytes": BOUND_MEGABYTES},
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "load_average_at_end": round(os.getloadavg()[0], 2),
        "forms": results,
    }
    if options.out is not None:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        options.out.write_text(text, encoding="utf-8")
    if not is_kept:
        raise SystemExit("over a bound")


if __name__ == "__main__":
    main()
