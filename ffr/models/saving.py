"""A model's weights on disk: the adapter alone, or a plain folder with it merged in."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

from ffr.files import remove, replaced_folder, write_checksums, write_json, write_text
from ffr.models.vlm import Vlm

SETTINGS_FILE = "ffr.json"
"""What a model folder says of the prompts that its model was trained with."""


CARD_FILE = "README.md"


def save_adapter(vlm: Vlm, folder: Path, *, card: str | None = None) -> None:
    """Writes the adapter as peft does.

    Args:
        vlm: The model.
        folder: The folder; it appears whole or not at all.
        card: Its model card; None leaves it without one.
    """
    with replaced_folder(folder) as scratch:
        vlm.model.save_pretrained(str(scratch))
        # peft's own is an empty form that names a folder of this machine
        remove(scratch / CARD_FILE)
        if card is not None:
            write_text(scratch / CARD_FILE, card)
        _note_weights(scratch)


def save_merged(
    vlm: Vlm,
    folder: Path,
    *,
    prompt_settings: dict[str, Any] | None = None,
    card: str | None = None,
) -> None:
    """Writes a plain Hugging Face folder with the adapter merged in; the model stays as it is.

    Args:
        vlm: The model.
        folder: The folder; it appears whole or not at all.
        prompt_settings: Template and query position to note in `ffr.json`; None keeps the model's.
        card: Its model card; None leaves it without one.
    """
    processor = vlm.processor
    settings = prompt_settings if prompt_settings is not None else vlm.prompt_settings
    with replaced_folder(folder) as scratch:
        _with_merged_weights(vlm).save_pretrained(str(scratch))
        _note_weights(scratch)
        vlm.tokenizer.save_pretrained(str(scratch))
        processor.image_processor.save_pretrained(str(scratch))
        write_json(scratch / SETTINGS_FILE, {"prompt": settings})
        content = dict(sorted(_processor_settings(processor).items()))
        write_json(scratch / "processor_config.json", content)
        template = getattr(processor, "chat_template", None)
        if card is not None:
            write_text(scratch / CARD_FILE, card)
        if template and not (scratch / "chat_template.jinja").exists():
            write_text(scratch / "chat_template.jinja", template)


def _note_weights(folder: Path) -> None:
    write_checksums(folder, [path.name for path in folder.glob("*.safetensors")])


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
