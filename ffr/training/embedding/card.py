"""The card of an encoder that a run made: what it is, how it is used, how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ffr.embedding.prefixes import Prefixes
from ffr.markup import markdown_text
from ffr.runs import ModelSource, RunRecord
from ffr.settings import EmbeddingConfig


def encoder_card(
    name: str,
    config: EmbeddingConfig,
    source: ModelSource,
    record: RunRecord,
    prefixes: Prefixes,
    num_rows: int,
    figures: Mapping[str, float],
) -> str:
    """The README of a run's `encoder/`, in Markdown; it names no place on this machine."""
    before = (
        "nothing stands before queries or lines"
        if prefixes == Prefixes()
        else f"`{prefixes.query}` stands before queries and `{prefixes.line}` before lines"
    )
    is_file = Path(config.dataset).exists()
    data = Path(config.dataset).name if is_file else f"{config.dataset} ({config.split})"
    rows = {
        "started from": Path(source.label).name,
        "data": f"{data}, {num_rows} queries with their fragments, fingerprint "
        f"{record.data_fingerprint[:16]}",
        "loss": f"InfoNCE at temperature {config.temperature:g}, batches of {config.batch_size}, "
        f"{config.hard_negatives} hard negatives out of the same dialogue",
        "steps": f"{figures.get('step', 0):.0f} at a learning rate of {config.learning_rate:g}",
        "recipe": Path(record.recipe).name or "settings of its own",
        "seed": str(config.seed),
        "validation loss": f"{figures['val_loss']:.4g}" if "val_loss" in figures else "none",
        "made with": ", ".join(
            f"{package} {record.versions[package]}"
            for package in ("ffr-vlm", "sentence-transformers", "transformers", "torch")
            if package in record.versions
        ),
    }
    table = "\n".join(f"| {key} | {markdown_text(text)} |" for key, text in rows.items())
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [fragment-retrieval, ffr, sentence-transformers]
---
# {markdown_text(name)}: encoder

A sentence encoder whose vector of a query lies close to those of the parts of a dialogue that it
means. It was trained by `ffr train embedding`; {before}.

    ffr eval --model embedding:FOLDER --dataset FILE
    ffr index add CHAT --encoder FOLDER

```python
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("FOLDER")
cosines = encoder.similarity(
    encoder.encode_query(["where do we eat?"]), encoder.encode_document(["at the noodle bar"])
)
```

## How it was made

| | |
|---|---|
{table}

The licence is that of the encoder it was made of.
"""
