"""What an encoder's folder holds, each checked: tokenizer, weights, settings; and a fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ffr.errors import ModelError, UsageError
from ffr.model_files import check_weights_finite
from ffr.text import counted, one_line

_log = logging.getLogger(__name__)

MAX_SETTINGS_BYTES = 2**20
"""A file of settings is not opened beyond this."""

_NAMES_NOTHING = ("_name_or_path", "transformers_version")


def check_device(device: str) -> None:
    """Refuses a GPU that is not here.

    Raises:
        UsageError: where torch finds none.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"device {device!r} was asked for, but torch finds no GPU; use cpu or install torch "
            "with CUDA"
        )


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a folder or hub id.

    Raises:
        ModelError: where it knows no words: one whose files are missing comes up empty, without a
            word.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    ids = tokenizer("a picture 图片", add_special_tokens=False).input_ids
    if not set(ids) - {tokenizer.unk_token_id}:
        raise ModelError("its tokenizer knows no words; restore its tokenizer files", name)
    return tokenizer


def load_weights(name: str, *, device: str, unused: str | None = None, **options: Any) -> Any:
    """The model of a folder or hub id, in float32, from safetensors and without code of its own.

    Args:
        name: The folder or hub id.
        device: Where the weights go.
        unused: What the names of weights begin with that may lie there and are not wanted.
        options: What the model's class takes besides.

    Raises:
        ModelError: where weights are missing.
    """
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    has_bars = transformers_logging.is_progress_bar_enabled()
    # its table of weights that are not used, for which a line of ours stands; and its bar, which is
    # gone in a second
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, report = AutoModel.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            **options,
        )
    finally:
        transformers_logging.set_verbosity(before)
        if has_bars:
            transformers_logging.enable_progress_bar()
    if missing := sorted(report["missing_keys"]):
        # transformers would go on with random numbers in their place
        raise ModelError(
            f"lacks {counted(len(missing), 'weight')}, such as {missing[0]}; fetch its files again",
            name,
        )
    further = sorted(
        key for key in report["unexpected_keys"] if unused is None or not key.startswith(unused)
    )
    if further:
        _log.warning(
            "%s: %d weights of its files are not used, such as %s", name, len(further), further[0]
        )
    check_weights_finite(model, name)
    return model.eval().requires_grad_(False).to(device)


def read_settings(name: str, file: str) -> Any:
    """The content of a small JSON file of a folder or hub id; None where it has no such file.

    Args:
        name: The folder or hub id.
        file: The file's path in it.

    Raises:
        ModelError: where the path leads out of the folder, or the file is too large or no JSON.
    """
    from transformers.utils.hub import cached_file

    inside = PurePosixPath(file)
    if inside.is_absolute() or ".." in inside.parts or "\\" in file:
        raise ModelError(f"names {file!r}, outside its folder; do not use it", name)
    found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    if found is None:
        return None
    path = Path(found)
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise ValueError("it is too large")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read ({one_line(error)}); restore it", name) from None


def fingerprint_of(model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> str:
    """SHA-256 over weights, tokenizer, further settings, kind of model and kind of device.

    Args:
        model: Weights by `state_dict()`, `config` and `device`.
        tokenizer: A fast tokenizer.
        settings: What else decides vectors, JSON-ready but for what `str` makes so.
    """
    digest = hashlib.sha256()
    _add_weights(digest, model)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # every call sets these two anew, so that they tell only whether there was one
    content |= {"truncation": None, "padding": None}
    digest.update(json.dumps(content, sort_keys=True).encode())
    config = {
        key: value for key, value in model.config.to_dict().items() if key not in _NAMES_NOTHING
    }
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(model.device.type.encode())
    return digest.hexdigest()


def weights_digest_of(model: Any) -> str:
    """SHA-256 over names, shapes and bytes of weights alone, whatever the library's version.

    Args:
        model: Weights by `state_dict()`.
    """
    digest = hashlib.sha256()
    _add_weights(digest, model)
    return digest.hexdigest()


def _add_weights(digest: Any, model: Any) -> None:
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy())


class CutNotice:
    """Says once, in the log, that texts are cut: those after the first need no line of their own.

    Args:
        max_text_tokens: What the encoder takes.
    """

    def __init__(self, max_text_tokens: int) -> None:
        self._max_text_tokens = max_text_tokens
        self._is_said = False

    def look_at(self, encoded: Any, name: str) -> None:
        """Looks at what a fast tokenizer gave for a batch, with what it cut off.

        Args:
            encoded: What it gave.
            name: What the encoder is called by now.
        """
        if not self._is_said and any(item.overflowing for item in encoded.encodings):
            self._is_said = True
            _log.warning(
                "%s: a text makes more than the %d tokens that it takes and is cut at its end; so "
                "is every longer one",
                name,
                self._max_text_tokens,
            )


def as_text(text: str) -> str:
    """The text for a tokenizer: a lone surrogate (some chats hold one) becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
