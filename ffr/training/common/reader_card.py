"""The card of a reader that a run made: what it is, how it is used, how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ffr.markup import markdown_text
from ffr.reader.settings import ReaderSettings
from ffr.training.common.stage import Ended

_STAGES = {
    "reader": "true answers (`ffr train reader`)",
    "grpo": "the rewards of its own answers (`ffr train grpo`)",
}


def reader_card(ended: Ended[Any], settings: ReaderSettings) -> str:
    """The README of a run's `reader/`, in Markdown; it names no place on this machine.

    Args:
        ended: The training.
        settings: What the reader is besides its weights.
    """
    config, record = ended.start.config, ended.record
    source = ended.start.source
    is_file = Path(config.dataset).exists()
    data = Path(config.dataset).name if is_file else f"{config.dataset} ({config.split})"
    encoder = Path(settings.encoder_name).name
    shape = settings.shape
    rows = {
        "encoder": f"{encoder}, weights {settings.encoder[:16]}; it is not in this folder",
        "network": f"{settings.num_networks} × {shape.num_layers} layers of width {shape.width}",
        "started from": Path(source.label).name if source.run is None else source.run.name,
        "data": f"{data}, {len(ended.start.train_data)} examples, fingerprint "
        f"{record.data_fingerprint[:16]}",
        "recipe": Path(record.recipe).name or "settings of its own",
        "seed": str(config.seed),
        "learning rate": f"{config.learning_rate:g}",
        "validation": _validation(dict(ended.figures)),
        "calibrated": f"logits × {settings.scale:.3g} {settings.shift:+.3g}; of nothing "
        f"× {settings.nothing_scale:.3g} {settings.nothing_shift:+.3g}; empty from "
        f"{settings.nothing_from:.3g}",
        "made with": ", ".join(
            f"{name} {record.versions[name]}"
            for name in ("ffr-vlm", "torch")
            if name in record.versions
        ),
    }
    table = "\n".join(f"| {name} | {markdown_text(text)} |" for name, text in rows.items())
    return f"""---
tags: [fragment-retrieval, ffr]
---
# {markdown_text(ended.run.name)}: reader

A small network over the vectors of a frozen sentence encoder, for a CPU. Given a long dialogue with
pictures and a query, it says which utterances and pictures the query means. It was made by
{_STAGES[config.stage]}.

    ffr eval --model FOLDER --dataset FILE

```python
import ffr

found = ffr.load_model("FOLDER").retrieve([("Ann", "the bus is late"), ("Bob", "tea?")], "the bus")
print(found.text, found.score)
```

## How it was made

| | |
|---|---|
{table}
"""


def _validation(figures: dict[str, float]) -> str:
    if "val_utterance_f1" not in figures:
        return "none"
    return (
        f"F1 {figures['val_utterance_f1']:.3f} (utterances), {figures['val_image_f1']:.3f} "
        "(pictures)"
    )
