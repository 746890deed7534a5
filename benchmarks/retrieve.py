"""How long a question on a long chat takes: `ffr retrieve` in a fresh process, and one process that goes on.

    python benchmarks/retrieve.py --messages 10000 100000 --rounds 5 --out benchmarks/results/retrieve.json

The chats are made: lines of the chats that come with ffr, each with a number of its own, a minute
apart with nights between. Their vectors are drawn at random, since how long a search takes does not
depend on what they are; questions go through the encoder itself. Beside it, in the same process and in
turn, the peer: SQLite's own full text over the same messages, asked the same words, which
finds messages and no fragment. And the same question with the reader's networks on all threads, as
others would run them, instead of one. Times by the clock depend on what else runs (`load_average`);
those of the processor hardly do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from unittest import mock

QUESTIONS = (
    "the plan for the trip to the lake", "妈妈的生日怎么过", "what was wrong with the cat", "修洗衣机",
    "the second round of the interview", "找房子", "watching football together", "订蛋糕",
)  # fmt: skip
START = datetime(2015, 1, 1, 8, 0)
A_DAY = 60


def messages(number: int) -> Iterator:
    """So many messages, sixty a day, all different."""
    from ffr.chats.chat import Message
    from ffr.data.catalog import load_dataset
    from ffr.shipped.chats import CHATS_FILE

    dialogues = {
        example.dialogue.id: example.dialogue
        for example in load_dataset(CHATS_FILE, require_images=False)
    }
    lines = [
        (line.speaker, line.text) for dialogue in dialogues.values() for line in dialogue.utterances
    ]
    for place, (speaker, text) in zip(range(number), itertools.cycle(lines), strict=False):
        time_ = START + timedelta(days=place // A_DAY, minutes=place % A_DAY)
        yield Message(speaker, f"{text} ({place})", time_)


def fill(folder: Path, number: int) -> float:
    """A store of one chat with vectors of every line; seconds of adding it."""
    import torch
    from torch.nn import functional

    from ffr.chats.cutting import Cutting
    from ffr.chats.stream import ChatStream
    from ffr.corpus.adding import add_chat, text_key
    from ffr.corpus.opening import reader_encoder
    from ffr.corpus.segmenting import make_segments, waiting_segments
    from ffr.corpus.store import Store
    from ffr.settings import AnswerConfig

    stream = ChatStream("whatsapp", "long")

    def come() -> Iterator:
        for message in messages(number):
            stream.person(message.sender, message.sender)
            yield message

    stream.messages = come()
    with Store(folder, is_new_allowed=True) as store:
        begun = time.perf_counter()
        add_chat(store, stream, folder / "export.txt", Cutting(), state="made")
        seconds = time.perf_counter() - begun
        encoder = reader_encoder(store, AnswerConfig())
        assert encoder.encoder.name  # loaded whole once, as indexing does
        keys = [
            row["text_key"]
            for row in store.rows(
                "SELECT DISTINCT text_key FROM messages WHERE text_key != ?", [text_key("")]
            )
        ]

        def draw(keys: list[bytes]) -> None:
            for start in range(0, len(keys), 10_000):
                part = keys[start : start + 10_000]
                drawn = torch.randn(len(part), encoder.vectors.width)
                encoder.vectors.add(part, functional.normalize(drawn, dim=-1))

        draw(keys)
        make_segments(store, store.numbers(), encoder, lambda done, total: None)
        draw(list(waiting_segments(store, store.numbers(), encoder)))
        encoder.remember_weights()
    return seconds


def children_seconds() -> float:
    """Processor time of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _no_bar:  # noqa: N801 - stands for a function
    def __init__(self, what: str, total: int) -> None: ...

    def __enter__(self):
        return lambda done, total: None

    def __exit__(self, *_: object) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    from ffr.corpus.opening import open_archive
    from ffr.corpus.store import Store
    from ffr.corpus.terms import query_terms
    from ffr.provenance import versions
    from ffr.reader import model
    from ffr.settings import AnswerConfig

    torch.set_num_threads(options.threads)
    rows = []
    for number in options.messages:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "kept")
            adding = fill(folder, number)
            fresh, fresh_cpu = [], []
            for question in QUESTIONS[: options.rounds]:
                begun, begun_cpu = time.perf_counter(), children_seconds()
                subprocess.run(
                    [sys.executable, "-m", "ffr.cli.main", "retrieve", question, "--index", folder],
                    check=True, capture_output=True, env=os.environ,
                )  # fmt: skip
                fresh.append(time.perf_counter() - begun)
                fresh_cpu.append(children_seconds() - begun_cpu)
            with Store(folder) as store:
                archive = open_archive(store, "reader", AnswerConfig(), say=print, bar=_no_bar)
                archive.ask("the first question pays for what is done once")
                ours, ours_cpu, all_threads, peer = [], [], [], []
                for _ in range(options.rounds):
                    for question in QUESTIONS:
                        archive.forget_questions()
                        begun, begun_cpu = time.perf_counter(), time.process_time()
                        archive.ask(question)
                        ours.append(time.perf_counter() - begun)
                        ours_cpu.append(time.process_time() - begun_cpu)
                        archive.forget_questions()
                        begun = time.perf_counter()
                        with mock.patch.object(model, "_SMALL", 0):
                            archive.ask(question)
                        all_threads.append(time.perf_counter() - begun)
                        begun = time.perf_counter()
                        words = " OR ".join(f'"{term}"' for term in query_terms(question))
                        store.rows(
                            "SELECT text FROM words JOIN messages ON id = words.rowid WHERE words "
                            "MATCH ? ORDER BY bm25(words) LIMIT 3",
                            [words],
                        )
                        peer.append(time.perf_counter() - begun)
        row = {
            "num_messages": number,
            "adding_seconds": adding,
            "fresh_process_seconds": statistics.median(fresh),
            "fresh_process_cpu_seconds": statistics.median(fresh_cpu),
            "going_on_seconds": statistics.median(ours),
            "going_on_seconds_slowest": max(ours),
            "going_on_cpu_seconds": statistics.median(ours_cpu),
            "going_on_all_threads_seconds": statistics.median(all_threads),
            "all_threads_over_one": statistics.median(all_threads) / statistics.median(ours),
            "full_text_alone_seconds": statistics.median(peer),
            "ratio_to_full_text": statistics.median(ours) / statistics.median(peer),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    result = {
        "rows": rows,
        "threads": options.threads,
        "rounds": options.rounds,
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "versions": versions(),
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
        print(f"{options.out}: written")


if __name__ == "__main__":
    sys.exit(main())
