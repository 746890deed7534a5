"""Fine-grained fragment retrieval.

Find the part of a long multi-modal dialogue that a query means. The names below are loaded when
they are first asked for, so that `import ffr` costs nothing; docs/python.md shows each.

>>> import ffr
>>> chat = [("Ann", "the bus is late"), ("Bob", "too bad")]
>>> ffr.load_model("baseline:overlap").retrieve(chat, "bus").text
'Ann: the bus is late'
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffr.answer import parse
    from ffr.chats.reading import read_chat
    from ffr.collator import Collator
    from ffr.corpus.index import Index
    from ffr.data.catalog import load_dataset
    from ffr.report.measured import evaluate
    from ffr.retrieval.asking import load_model

__version__ = "0.1.0"

_HOMES = {
    "Collator": "collator",
    "Index": "corpus.index",
    "evaluate": "report.measured",
    "load_dataset": "data.catalog",
    "load_model": "retrieval.asking",
    "parse": "answer",
    "read_chat": "chats.reading",
}

__all__ = [
    "Collator",
    "Index",
    "__version__",
    "evaluate",
    "load_dataset",
    "load_model",
    "parse",
    "read_chat",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
