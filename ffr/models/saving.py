"""A model's weights on disk: the adapter alone, or a plain Hugging Face folder with it merged in."""

from __future__ import annotations

import copy
import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

from ffr.models.vlm import Vlm

SETTINGS_FILE = "ffr.json"
"""What a model folder says of the prompts that its model was trained with."""


def save_adapter(vlm: Vlm, folder: Path) -> None:
    """Writes the adapter as peft does."""
    vlm.model.save_pretrained(str(folder))


def save_merged(vlm: Vlm, folder: Path, *, prompt_settings: dict[str, Any] | None = None) -> None:
    """Writes a plain Hugging Face folder with the adapter merged in; the model stays as it is.

    Args:
        vlm: The model.
        folder: The folder; it appears whole or not at all.
        prompt_settings: Template and query position to note in `ffr.json`; None keeps the model's.
    """
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    _with_merged_weights(vlm).save_pretrained(str(scratch))
    vlm.tokenizer.save_pretrained(str(scratch))
    vlm.processor.image_processor.save_pretrained(str(scratch))
    settings = prompt_settings if prompt_settings is not None else vlm.prompt_settings
    _write_json(scratch / SETTINGS_FILE, {"prompt": settings})
    _write_json(scratch / "processor_config.json", _processor_settings(vlm.processor), in_order=True)
    template = getattr(vlm.processor, "chat_template", None)
    if template and not (scratch / "chat_template.jinja").exists():
        (scratch / "chat_template.jinja").write_text(template, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    scratch.replace(folder)


def _with_merged_weights(vlm: Vlm) -> Any:
    """A plain model with the adapter's update added to the weights."""
    if not hasattr(vlm.model, "merge_and_unload"):
        return vlm.base
    # a copy, so that training could go on bit for bit
    return copy.deepcopy(vlm.model).merge_and_unload()


def _processor_settings(processor: Any) -> dict[str, Any]:
    """What `processor_config.json` holds: the class, and the plain values that it was made with."""
    names = set(inspect.signature(type(processor).__init__).parameters) - {"self", "chat_template"}
    values = {name: getattr(processor, name, None) for name in names}
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    return {"processor_class": type(processor).__name__, **plain}


def _write_json(path: Path, content: dict[str, Any], *, in_order: bool = False) -> None:
    text = json.dumps(content, indent=2, sort_keys=in_order)
    path.write_text(text + "\n", encoding="utf-8")
