"""Joint text–image encoders: what they must offer, the dual encoders of transformers, and a cache of their vectors.

Shapes: n texts or images of a call, H width of the joint space.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ffr.errors import DataError, ModelError, UsageError
from ffr.images import image_digest, open_image
from ffr.model_files import check_model_folder, loading_explained, short_reason

_log = logging.getLogger(__name__)


class Encoder(Protocol):
    """Encodes texts and images into one space, such as `ffr.models.vlm.Vlm` or what `load_encoder` gives."""

    @property
    def name(self) -> str:
        """What the user called it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names all that decides its vectors; caches keep encoders apart by it."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, H) float32, L2-normalised."""
        ...

    def embed_images(self, images: Sequence[str | Path]) -> Tensor:
        """(n, H) float32, L2-normalised, of the pictures at these paths."""
        ...


# -- dual encoders ----------------------------------------------------------------------------------------------------------

KINDS = ("clip", "siglip", "siglip2", "chinese_clip")
"""The architectures that `load_encoder` takes, by transformers' name; fixed-resolution SigLIP 2 folders call themselves siglip."""

BATCH_SIZE = 32
"""Texts or images that go through an encoder at once."""

MAX_SIDE_RATIO = 100
"""Longer strips are refused: an image processor that scales the short side up would make gigabytes of them."""

_NAMES_NOTHING = ("_name_or_path", "transformers_version")


class DualEncoder:
    """A text tower and an image tower with one space. Made by `load_encoder`.

    A vector may differ in its last bits with what else is in its batch, as matrix products do.

    Args:
        model: The transformers model.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        name: What the user called it.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, *, name: str) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._is_siglip = model.config.model_type.startswith("siglip")
        text = model.config.text_config
        self._vocabulary_size = int(text.vocab_size)
        self.max_text_tokens = min(int(text.max_position_embeddings), int(tokenizer.model_max_length))

    @property
    def device(self) -> torch.device:
        found: torch.device = self._model.device
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, tokenizer, image processor, kind of model and kind of device."""
        digest = hashlib.sha256()
        for name, weight in sorted(self._model.state_dict().items()):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(weight.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy())
        settings = self._image_processor.to_dict()
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update(self._tokenizer.backend_tokenizer.to_str().encode("utf-8", "surrogatepass"))
        config = {key: value for key, value in self._model.config.to_dict().items() if key not in _NAMES_NOTHING}
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        digest.update(self.device.type.encode())
        return digest.hexdigest()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """One vector a text, (n, H) float32 on the CPU, L2-normalised; a text longer than the model's context is cut at its end.

        Raises:
            ModelError: where the tokenizer does not fit the model, or a vector is not finite.
        """
        rows = []
        for start in range(0, len(texts), BATCH_SIZE):
            # a lone surrogate, which some chat exports hold, is no text to a tokenizer
            batch = [text.encode("utf-8", "replace").decode() for text in texts[start : start + BATCH_SIZE]]
            inputs = self._tokenizer(
                batch,
                # SigLIP was trained on full rows of padding, without a mask
                padding="max_length" if self._is_siglip else True,
                truncation=True,
                max_length=self.max_text_tokens,
                return_tensors="pt",
            )
            if self._is_siglip:
                inputs = {"input_ids": inputs["input_ids"]}
            if int(inputs["input_ids"].max()) >= self._vocabulary_size:
                raise ModelError("its tokenizer has ids that the model does not know; fetch both again", self.name)
            rows.append(self._features(self._model.get_text_features, dict(inputs)))
        return self._joined(rows)

    @torch.no_grad()
    def embed_images(self, images: Sequence[str | Path]) -> Tensor:
        """One vector an image, (n, H) float32 on the CPU, L2-normalised.

        Raises:
            DataError: where an image cannot be opened or the image processor cannot take it.
            ModelError: where a vector is not finite.
        """
        rows = []
        for start in range(0, len(images), BATCH_SIZE):
            # decoded one at a time: a batch of large photographs would fill the memory
            inputs = [self._pixels(location) for location in images[start : start + BATCH_SIZE]]
            joined = {key: torch.cat([item[key] for item in inputs]) for key in inputs[0]}
            joined["pixel_values"] = joined["pixel_values"].to(self._model.dtype)
            rows.append(self._features(self._model.get_image_features, joined))
        return self._joined(rows)

    def _pixels(self, location: str | Path) -> dict[str, Tensor]:
        picture = open_image(location, max_image_pixels=None)
        if max(picture.size) > MAX_SIDE_RATIO * min(picture.size):
            raise DataError(
                f"image {location} is a strip of {picture.width}×{picture.height} pixels, which {self.name} cannot take; "
                f"cut it to at most {MAX_SIDE_RATIO}:1"
            )
        try:
            return dict(self._image_processor(images=[picture], return_tensors="pt"))
        except ValueError as error:
            raise DataError(
                f"image {location}: {self.name} cannot take it ({short_reason(error)}); replace it"
            ) from error

    def _features(self, of: Callable[..., Any], inputs: dict[str, Tensor]) -> Tensor:
        output = of(**{name: value.to(self.device) for name, value in inputs.items()})
        pooled = output.pooler_output.float()
        if not bool(pooled.isfinite().all()):
            raise ModelError("gives vectors that are not finite; fetch its weights again", self.name)
        return torch.nn.functional.normalize(pooled, dim=-1).cpu()

    def _joined(self, rows: list[Tensor]) -> Tensor:
        if rows:
            return torch.cat(rows)
        return torch.zeros((0, self._width))

    @cached_property
    def _width(self) -> int:
        return int(self.embed_texts([""]).shape[-1])


def load_encoder(spec: str | Path, *, device: str = "cpu") -> DualEncoder:
    """Loads a CLIP, SigLIP, SigLIP 2 or Chinese-CLIP model, from safetensors only and without running code of its own.

    Tokenizer and image processor are loaded one by one and the image processor is Pillow's, so that vectors are the same with
    and without torchvision.

    Args:
        spec: A folder, or a hub id.
        device: Where the weights go.

    Raises:
        ModelError: where files are missing, damaged, of another kind, or not safetensors.
        UsageError: where the device is not here.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    name = str(spec)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {device!r} was asked for, but torch finds no GPU; use cpu or install torch with CUDA")
    with loading_explained(name, kind="a text–image encoder"):
        check_model_folder(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type not in KINDS:
            raise ModelError(f"is a {config.model_type} model; name one of the kinds {', '.join(KINDS)}", name)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        image_processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False, backend="pil")
        model, report = AutoModel.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
        if missing := sorted(report["missing_keys"]):
            # transformers would go on with random numbers in their place
            raise ModelError(f"lacks {len(missing)} weights, such as {missing[0]}; fetch its files again", name)
        # a tokenizer whose files are missing comes up empty, without a word
        ids = tokenizer("a picture 图片", add_special_tokens=False).input_ids
        if not set(ids) - {tokenizer.unk_token_id}:
            raise ModelError("its tokenizer knows no words; restore its tokenizer files", name)
        model.eval().requires_grad_(False).to(device)
        return DualEncoder(model, tokenizer, image_processor, name=name)


# -- cache ------------------------------------------------------------------------------------------------------------------

_DIGEST_BYTES = 32
_ON_DISK = np.dtype("<f4")
_SCRATCH_NANOSECONDS = 3600 * 10**9


class CachedEncoder:
    """An encoder whose vectors are kept by content, in memory and in a folder, so that each is computed once.

    A vector is named by the encoder's fingerprint and the text's or the picture file's bytes; it comes back to the bit. Each file
    is written beside its place and moved there, and holds its checksum: a torn one is counted in `num_damaged_files`,
    logged and computed again. Several processes may share a folder, and several threads an encoder.

    Args:
        encoder: Makes the vectors.
        folder: Folder that keeps vectors between runs.
        max_bytes: Bound of what the folder's files hold; the oldest go first. Processes that write at the same time look at
            each other's files now and then, so each may exceed the bound by a tenth for a while.
        memory_bytes: Bound of the vectors in memory; the least recently used go first.
    """

    def __init__(self, encoder: Encoder, folder: Path, *, max_bytes: int, memory_bytes: int = 64 * 2**20) -> None:
        self._encoder = encoder
        self.folder = folder
        self.max_bytes = max_bytes
        self.memory_bytes = memory_bytes
        self.num_damaged_files = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._kept_bytes = 0
        self._folder_bytes: int | None = None
        self._bytes_since_look = 0
        self._digests: dict[tuple[str, int, int], str] = {}
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        return self._encoder.name

    @cached_property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    @cached_property
    def _width(self) -> int:
        return int(self._encoder.embed_texts(["a"]).shape[-1])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """As the encoder's, (n, H) float32 on the CPU.

        Raises:
            UsageError: where the folder cannot be written.
        """
        keys = [self._key("text", text.encode("utf-8", "surrogatepass")) for text in texts]
        return self._embed(keys, texts, self._encoder.embed_texts)

    def embed_images(self, images: Sequence[str | Path]) -> Tensor:
        """As the encoder's, (n, H) float32 on the CPU; a picture is known by its file's bytes, wherever it lies.

        Raises:
            DataError: where a picture's file cannot be read, or as the encoder raises it.
            UsageError: where the folder cannot be written.
        """
        keys = [self._key("image", self._digest(location).encode()) for location in images]
        return self._embed(keys, images, self._encoder.embed_images)

    def _key(self, kind: str, content: bytes) -> str:
        return hashlib.sha256(f"{self.fingerprint} {kind} ".encode() + content).hexdigest()

    def _digest(self, location: str | Path) -> str:
        try:
            status = Path(location).stat()
        except (OSError, ValueError):
            return image_digest(location)  # says what is wrong
        known = (str(location), status.st_mtime_ns, status.st_size)
        if known not in self._digests:
            self._digests[known] = image_digest(location)
        return self._digests[known]

    def _embed(self, keys: list[str], items: Sequence[Any], embed: Callable[[Sequence[Any]], Tensor]) -> Tensor:
        if not keys:
            return torch.zeros((0, self._width))
        with self._lock:
            found: dict[str, Tensor] = {}
            missing: dict[str, Any] = {}
            for key, item in zip(keys, items, strict=True):
                if key in found or key in missing:
                    continue
                vector = self._recall(key)
                if vector is None:
                    missing[key] = item
                else:
                    found[key] = vector
            if missing:
                made = embed(list(missing.values())).detach().float().cpu()
                for key, vector in zip(missing, made, strict=True):
                    # of its own memory: a row would keep its whole batch alive
                    found[key] = vector.clone()
                    self._remember(key, found[key])
                    self._write(key, found[key])
            return torch.stack([found[key] for key in keys])

    def _recall(self, key: str) -> Tensor | None:
        vector = self._kept.get(key)
        if vector is not None:
            self._kept.move_to_end(key)
            return vector
        vector = self._read(key)
        if vector is not None:
            self._remember(key, vector)
        return vector

    def _remember(self, key: str, vector: Tensor) -> None:
        self._kept[key] = vector
        self._kept_bytes += vector.nbytes
        while self._kept_bytes > self.memory_bytes:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.vector"

    def _read(self, key: str) -> Tensor | None:
        path = self._path(key)
        try:
            status = path.lstat()
            size = _DIGEST_BYTES + 4 * self._width
            # looked at before it is opened: a pipe would never end, and a huge file would fill the memory
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise ValueError(f"it is no file of {size} bytes")
            content = path.read_bytes()
            values = content[_DIGEST_BYTES:]
            if content[:_DIGEST_BYTES] != _checksum(key, values):
                raise ValueError("its checksum is wrong")
            vector = torch.from_numpy(np.frombuffer(values, _ON_DISK).astype(np.float32))
            if not bool(vector.isfinite().all()):
                raise ValueError("it holds numbers that are not finite")
            return vector
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.num_damaged_files += 1
            _log.warning("%s: cannot be read (%s); its vector is computed again", path, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None

    def _write(self, key: str, vector: Tensor) -> None:
        path = self._path(key)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        values = vector.numpy().astype(_ON_DISK).tobytes()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(_checksum(key, values) + values)
            scratch.replace(path)
        except OSError as error:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise UsageError(
                f"{self.folder}: vectors cannot be written there ({error}); free space or name another folder"
            ) from error
        self._bytes_since_look += _DIGEST_BYTES + len(values)
        if (
            self._folder_bytes is None
            or self._folder_bytes + self._bytes_since_look > self.max_bytes
            or self._bytes_since_look > self.max_bytes // 10
        ):
            self._look_at_folder()

    def _look_at_folder(self) -> None:
        """Counts the folder anew and, over nine tenths of the bound, deletes the oldest files down to eight."""
        files = []
        latest = time.time_ns() - _SCRATCH_NANOSECONDS
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                status = path.lstat()
                # another process may be writing it; one that is old was left by a process that died
                if path.suffix == ".vector" or status.st_mtime_ns < latest:
                    files.append((status.st_mtime_ns, status.st_size, path))
        used = sum(size for _, size, _ in files)
        if used > 0.9 * self.max_bytes:
            for _, size, path in sorted(files):
                if used <= 0.8 * self.max_bytes:
                    break
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    used -= size
        self._folder_bytes = used
        self._bytes_since_look = 0


def _checksum(key: str, values: bytes) -> bytes:
    return hashlib.sha256(key.encode() + values).digest()
