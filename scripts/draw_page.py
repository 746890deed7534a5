"""Draws the picture of the page that opens the README: the two chats that come with ffr, searched.

    python scripts/draw_page.py --out docs/page.png

The chats are written out as an export of Telegram with invented times, served by `ffr serve`, and
looked at in a headless Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

QUESTION = "the plan for the trip to the lake, with the photos"
TITLES = ("Weekend", "家")


def export(folder: Path) -> Path:
    """The chats that come with ffr, as Telegram Desktop writes an account's chats."""
    from ffr.shipped.chats import CHATS_FILE

    (folder / "photos").mkdir(parents=True)
    chats = []
    for number, line in enumerate(CHATS_FILE.read_text(encoding="utf-8").splitlines()):
        time = datetime(2024, 4, 26 + number, 9, 12)
        messages: list[dict[str, object]] = []
        for said in json.loads(line)["dialogue"]:
            parts = said["utterance"]
            parts = parts if isinstance(parts, list) else [parts]
            time += timedelta(minutes=3)
            message: dict[str, object] = {
                "id": len(messages) + 1,
                "type": "message",
                "date": f"{time:%Y-%m-%dT%H:%M:%S}",
                "from": said["speaker"],
                "from_id": f"user{said['speaker']}",
                "text": "".join(part for part in parts if isinstance(part, str)),
            }
            for picture in [part["image_url"] for part in parts if isinstance(part, dict)]:
                name = f"photos/{Path(picture).name}"
                shutil.copy(CHATS_FILE.parent / picture, folder / name)
                message["photo"] = name
            messages.append(message)
        chats.append(
            {
                "name": TITLES[number],
                "type": "private_group",
                "id": number + 1,
                "messages": messages,
            }
        )
    owner = {"user_id": "Mia", "first_name": "Mia", "last_name": ""}
    written = {"personal_information": owner, "chats": {"list": chats}}
    path = folder / "result.json"
    path.write_text(json.dumps(written, ensure_ascii=False), encoding="utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "page.png")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()

    from browser import Page

    with tempfile.TemporaryDirectory() as scratch:
        chat = export(Path(scratch, "Telegram"))
        server = subprocess.Popen(
            [sys.executable, "-m", "ffr.cli.main", "serve", chat, "--no-open", "--index",
             Path(scratch, "kept")],
            stdout=subprocess.PIPE, text=True, env=os.environ,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            printed = server.stdout.readline()
            found = re.search(r"http://\S+", printed)
            assert found is not None, printed
            with Page(
                Path(scratch, "profile"),
                width=options.width,
                height=options.height,
                is_dark=options.dark,
            ) as page:
                page.open_address(found[0])
                page.choose("#query", QUESTION)
                page("document.querySelector('#ask').requestSubmit()")
                page.wait_for("document.querySelector('#hits .actions .main') !== null")
                page("document.querySelector('#hits .actions .main').click()")
                page("new Promise((done) => setTimeout(done, 1500))")
                page.screenshot(options.out)
        finally:
            server.terminate()
            server.wait()
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
