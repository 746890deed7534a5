"""Whether a chat that went through an app's export is answered as the data set itself is.

    python benchmarks/chat_answers.py DATA.json --out benchmarks/results/chat_answers.json

Each dialogue of the data is written out as WhatsApp, Telegram and WeFlow export chats, with times of
one message a minute, read back through `ffr.Index` uncut, and asked the data's own queries. The
answers are set beside those of the same model on the data: equal ids, and mean utterance F1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2024, 3, 13, 9, 0, tzinfo=UTC)

Said = list[tuple[str, str, Path | None]]
"""Speaker, words, and the picture of each line: in these data a line is one or the other."""


def as_whatsapp(lines: Said, folder: Path) -> Path:
    """A folder as WhatsApp for Android writes it."""
    written = []
    for number, (speaker, text, picture) in enumerate(lines):
        time = START + timedelta(minutes=number)
        if picture is not None:
            name = f"IMG-{time:%Y%m%d}-WA{number:04d}{picture.suffix}"
            shutil.copy(picture, folder / name)
            text = f"{name} (file attached)"
        written.append(f"{time.day}/{time.month}/{time:%y}, {time:%H:%M} - {speaker}: {text}\n")
    (folder / "WhatsApp Chat with Somebody.txt").write_text("".join(written), encoding="utf-8")
    return folder


def as_telegram(lines: Said, folder: Path) -> Path:
    """A folder as Telegram Desktop writes it."""
    messages = []
    (folder / "photos").mkdir()
    for number, (speaker, text, picture) in enumerate(lines):
        time = START + timedelta(minutes=number)
        message = {
            "id": number + 1,
            "type": "message",
            "date": f"{time:%Y-%m-%dT%H:%M:%S}",
            "date_unixtime": str(int(time.timestamp())),
            "from": speaker,
            "from_id": f"user{speaker}",
            "text": text,
            "text_entities": [{"type": "plain", "text": text}] if text else [],
        }
        if picture is not None:
            message["photo"] = f"photos/photo_{number}{picture.suffix}"
            shutil.copy(picture, folder / f"photos/photo_{number}{picture.suffix}")
        messages.append(message)
    chat = {"name": "Somebody", "type": "personal_chat", "id": 7, "messages": messages}
    (folder / "result.json").write_text(json.dumps(chat, ensure_ascii=False), encoding="utf-8")
    return folder


def as_weflow(lines: Said, folder: Path) -> Path:
    """A folder as WeFlow writes it."""
    (folder / "media" / "images").mkdir(parents=True)
    messages = []
    for number, (speaker, text, picture) in enumerate(lines):
        time = START + timedelta(minutes=number)
        if picture is not None:
            text = f"media/images/{number}{picture.suffix}"
            shutil.copy(picture, folder / text)
        messages.append(
            {
                "localId": number + 1,
                "createTime": int(time.timestamp()),
                "formattedTime": f"{time:%Y-%m-%d %H:%M:%S}",
                "type": "文本消息" if picture is None else "图片消息",
                "localType": 1 if picture is None else 3,
                "content": text,
                "isSend": 0,
                "senderUsername": speaker,
                "senderDisplayName": speaker,
                "platformMessageId": str(9000 + number),
            }
        )
    chat = {
        "session": {"wxid": "wxid_x", "nickname": "Somebody", "type": "私聊"},
        "messages": messages,
    }
    (folder / "Somebody.json").write_text(json.dumps(chat, ensure_ascii=False), encoding="utf-8")
    return folder


FORMS: dict[str, Callable[[Said, Path], Path]] = {
    "whatsapp": as_whatsapp,
    "telegram": as_telegram,
    "weflow": as_weflow,
}


def f1(found: set[int], true: set[int]) -> float:
    """F1 of two sets; 1 where both are empty."""
    if not found and not true:
        return 1.0
    return 2 * len(found & true) / (len(found) + len(true))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="reader")
    parser.add_argument("--limit", type=int, help="dialogues; all if nothing is said")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    import ffr
    from ffr.provenance import versions

    data = ffr.load_dataset(options.data)
    of_dialogue: dict[str, list] = {}
    for example in data:
        of_dialogue.setdefault(example.dialogue.fingerprint, []).append(example)
    groups = list(of_dialogue.values())[: options.limit]
    model = ffr.load_model(options.model)
    plain = [
        model.retrieve(examples[0], [example.query for example in examples]) for examples in groups
    ]
    rows = {}
    for form, write in FORMS.items():
        same_lines = same_images = 0
        scores, plain_scores = [], []
        with tempfile.TemporaryDirectory() as scratch:
            for number, (examples, expected) in enumerate(zip(groups, plain, strict=True)):
                dialogue = examples[0].dialogue
                places = iter([Path(place) for place in examples[0].image_locations()])
                lines = [
                    (line.speaker, line.text, next(places) if line.images else None)
                    for line in dialogue.utterances
                ]
                assert all(len(line.images) <= 1 for line in dialogue.utterances)
                folder = Path(scratch, f"{form}-{number}")
                folder.mkdir()
                export = write(lines, folder)
                with ffr.Index(Path(scratch, f"kept-{number}"), model=options.model) as index:
                    (chat,) = index.add(export, pause_hours=0, max_messages=0)
                    assert chat.num_messages == len(lines), (form, number, chat.num_messages)
                    for example, wanted in zip(examples, expected, strict=True):
                        found = index.retrieve(example.query, top=1)
                        hits = [hit for hit in found.hits if "meaning" in hit.found_by]
                        ids = {line.place for hit in hits for line in hit.lines}
                        of_line = {line.id: line.place for hit in hits for line in hit.lines}
                        images = {of_line[line] for hit in hits for line, _ in hit.pictures}
                        hosts = dialogue.image_utterance_ids
                        # a line of a picture alone is found with its picture, and the other way
                        plain_ids = {*wanted.utterance_ids, *(hosts[i] for i in wanted.image_ids)}
                        same_lines += ids == plain_ids
                        same_images += images == {hosts[i] for i in wanted.image_ids}
                        if example.fragment is not None:
                            true = set(example.fragment.utterance_ids)
                            scores.append(f1(ids, true))
                            plain_scores.append(f1(plain_ids, true))
        num = sum(map(len, groups))
        rows[form] = {
            "num_queries": num,
            "same_lines": same_lines,
            "same_images": same_images,
            "mean_utterance_f1": statistics.mean(scores),
            "mean_utterance_f1_of_the_data": statistics.mean(plain_scores),
        }
        print(form, json.dumps(rows[form]), flush=True)
    result = {
        "data": options.data.name,
        "data_fingerprint": data.fingerprint,
        "model": model.identity,
        "num_dialogues": len(groups),
        "forms": rows,
        "versions": versions(),
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        print(f"{options.out}: written")


if __name__ == "__main__":
    sys.exit(main())
