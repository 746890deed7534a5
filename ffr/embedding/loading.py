"""Which encoder a folder or hub id holds, by its configuration, and those that come with ffr."""

from __future__ import annotations

from pathlib import Path

from ffr.embedding.dual import KINDS, DualEncoder, load_dual_encoder
from ffr.embedding.files import check_device
from ffr.embedding.packaged import PACKAGED, packaged_folder
from ffr.embedding.sentence import SENTENCE_KINDS, SentenceEncoder, load_sentence_encoder
from ffr.errors import ModelError
from ffr.model_files import check_model_folder, loading_explained
from ffr.shipped.tiny_clip import TINY_CLIP_FOLDER

SHIPPED: dict[str, Path] = {"tiny-clip": TINY_CLIP_FOLDER}
"""Encoders that come with ffr: name → folder; it goes before a folder or hub id of that name."""

_OF_A_RUN = "encoder"


def load_encoder(spec: str | Path, *, device: str = "cpu") -> DualEncoder | SentenceEncoder:
    """Loads a dual encoder or a sentence encoder, whichever the configuration says.

    Args:
        spec: A name of `SHIPPED` or `PACKAGED`, a folder, a run of `ffr train embedding`, or a
            hub id.
        device: Where the weights go.

    Raises:
        ModelError: where files are missing, damaged, of another kind, or not safetensors.
        UsageError: where the device is not here.
    """
    name = str(spec)
    check_device(device)
    kind, location = encoder_kind(spec), _location(name)
    encoder: DualEncoder | SentenceEncoder
    if kind in KINDS:
        encoder = load_dual_encoder(location, device=device)
    elif kind in SENTENCE_KINDS:
        encoder = load_sentence_encoder(location, device=device)
    else:
        known = ", ".join((*KINDS, *SENTENCE_KINDS))
        raise ModelError(
            f"is a {kind} model; name one of the kinds {known}, or vlm:MODEL for pooled states",
            name,
        )
    encoder.name = name
    return encoder


def encoder_kind(spec: str | Path) -> str:
    """The architecture that the configuration of an encoder, or of another model, names.

    Args:
        spec: As `load_encoder` takes it.

    Raises:
        ModelError: where the configuration is missing or damaged.

    >>> encoder_kind("tiny-clip")
    'clip'
    """
    from transformers import AutoConfig

    location = _location(str(spec))
    with loading_explained(str(spec), kind="an encoder"):
        check_model_folder(location)
        return str(AutoConfig.from_pretrained(location, trust_remote_code=False).model_type)


def encoder_folder(spec: str | Path) -> Path | None:
    """Where the files of an encoder lie that `load_encoder` takes; None of a hub id."""
    found = Path(_location(str(spec)))
    return found if found.is_dir() else None


def _location(name: str) -> str:
    made = Path(name) / _OF_A_RUN
    if name not in PACKAGED and (made / "modules.json").is_file():
        return str(made)
    return str(packaged_folder(name) if name in PACKAGED else SHIPPED.get(name, name))
