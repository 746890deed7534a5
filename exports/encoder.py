"""Exported parts of an encoder at work, with the preparation that transformers' model gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ffr.embedding import (
    KINDS,
    SENTENCE_KINDS,
    DualEncoder,
    FragmentParts,
    SentenceEncoder,
    load_encoder,
)
from ffr.embedding.interface import check_parts
from ffr.embedding.loading import encoder_kind
from ffr.embedding.prefixes import Prefixes
from ffr.embedding.sentence import Pooling
from ffr.errors import ModelError, UsageError
from ffr.exports.runtime import ENCODER_PARTS, Arrays, OnnxModel, empty_rows, open_parts
from ffr.parts import Parts, as_fragments


def load_dual(model: str | Path, *, part: str) -> DualEncoder:
    """The dual encoder of a name, for a part that others lack.

    Raises:
        ModelError: where it is an encoder of texts alone, or as `ffr.embedding.load_encoder`.
    """
    encoder = load_encoder(model)
    if not isinstance(encoder, DualEncoder):
        raise ModelError(
            f"encodes texts only and has no {part} part; export its text part (--part text), or "
            "name an encoder of texts and images",
            str(model),
        )
    return encoder


def encoder_parts(model: str | Path) -> tuple[str, ...]:
    """The parts that an encoder has; none for what is no encoder.

    Raises:
        ModelError: where its configuration cannot be read.

    >>> encoder_parts("tiny-clip")
    ('text', 'image', 'fragment')
    """
    kind = encoder_kind(model)
    if kind in KINDS:
        return ENCODER_PARTS
    return ("text",) if kind in SENTENCE_KINDS else ()


class OnnxTowers:
    """Stands where `ffr.embedding.DualEncoder` holds transformers' model.

    So texts and pictures are prepared by the very same code.

    Args:
        parts: The exported parts, by name; one may be missing.
        config: The configuration of the model that was exported.
        batch_size: Texts or images of one call; smaller pieces stay in the processor's caches.
    """

    def __init__(self, parts: Mapping[str, OnnxModel], config: Any, *, batch_size: int = 8) -> None:
        self.config = config
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.batch_size = batch_size
        self.parts = dict(parts)

    def state_dict(self) -> dict[str, Any]:
        """Names the graphs: their checksums, where a model has its weights."""
        return {
            f"{part}.{name}": torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
            for part, model in self.parts.items()
            for name, digest in sorted(model.info.files.items())
        }

    def get_text_features(self, **inputs: Any) -> Any:
        return self._run("text", inputs)

    def get_image_features(self, **inputs: Any) -> Any:
        return self._run("image", inputs)

    def _run(self, part: str, inputs: Mapping[str, Any]) -> Any:
        if part not in self.parts:
            raise UsageError(
                f"the {part} part was not exported; run `ffr export onnx --part {part}` beside the "
                "other"
            )
        arrays = {name: value.numpy() for name, value in inputs.items()}
        # all inputs have a row for each text or image
        size = len(next(iter(arrays.values())))
        rows = [
            self.parts[part].run(
                {name: value[start : start + self.batch_size] for name, value in arrays.items()}
            )
            for start in range(0, size, self.batch_size)
        ]
        # the last piece may be smaller: the graph takes any number of rows
        joined = np.concatenate([row["embeddings"] for row in rows])
        return BaseModelOutputWithPooling(pooler_output=torch.from_numpy(joined))


class OnnxEncoder(DualEncoder):
    """A dual encoder of exported parts. Made by `ffr.exports.runtime.load_onnx_encoder`.

    Fragments go through the fragment part where there is one, else their texts and images through
    the other two.

    Args:
        towers: The exported parts.
        tokenizer: The model's tokenizer.
        image_processor: Its image processor.
        name: What the user called it.
    """

    def __init__(
        self, towers: OnnxTowers, tokenizer: Any, image_processor: Any, *, name: str
    ) -> None:
        takes_images = bool({"image", "fragment"} & set(towers.parts))
        super().__init__(towers, tokenizer, image_processor, name=name, takes_images=takes_images)
        self._fragment = towers.parts.get("fragment")

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Tensor:
        """One vector a fragment, (n, H) float32 on the CPU, L2-normalised.

        Raises:
            UsageError: where a fragment has no parts.
            DataError: as `embed_images`.
            ModelError: as `embed_texts`.
        """
        if self._fragment is None:
            return super().embed_fragments(fragments)
        read = as_fragments(fragments)
        check_parts(read)
        rows = [
            self._fragment.run(self._inputs(self._fragment, parts))["embeddings"] for parts in read
        ]
        if not rows:
            rows = [self._fragment.warm_up()["embeddings"][:0]]  # of no row, but of the right width
        return torch.from_numpy(np.concatenate(rows))

    def _inputs(self, model: OnnxModel, parts: Parts) -> Arrays:
        """A fragment's inputs, without rows for a kind that it lacks."""
        # a sum knows no order, so the kinds may be taken apart
        texts = [part for part in parts if isinstance(part, str)]
        images = [part for part in parts if not isinstance(part, str)]
        given: dict[str, Tensor] = {}
        if texts:
            given |= self.text_inputs(texts)
        if images:
            given |= self.image_inputs(images)
        return {
            name: given[name].numpy() if name in given else empty_rows(entry)
            for name, entry in model.info.inputs.items()
        }


class OnnxSentenceEncoder(SentenceEncoder):
    """A sentence encoder whose model and pooling are a graph.

    Made by `ffr.exports.runtime.load_onnx_encoder`.

    Args:
        model: The exported text part.
        config: The configuration of the model that was exported.
        tokenizer: Its tokenizer.
        name: What the user called it.

    Raises:
        ModelError: where the export's settings are not those of a sentence encoder.
    """

    def __init__(self, model: OnnxModel, config: Any, tokenizer: Any, *, name: str) -> None:
        settings = model.info.settings
        pooling: Any = settings.get("pooling")
        limit: Any = settings.get("max_text_tokens")
        is_lowered: Any = settings.get("is_lowered")
        prefixes: list[Any] = [settings.get(f"{what}_prefix", "") for what in ("line", "query")]
        is_limit = isinstance(limit, int) and limit > tokenizer.num_special_tokens_to_add()
        if (
            pooling not in get_args(Pooling)
            or not is_limit
            or not isinstance(is_lowered, bool)
            or not all(isinstance(prefix, str) for prefix in prefixes)
        ):
            raise ModelError(
                "its settings are not those of a sentence encoder; export the model again", name
            )
        self._graph_inputs = set(model.info.inputs)
        super().__init__(
            OnnxTowers({"text": model}, config),
            tokenizer,
            name=name,
            pooling=pooling,
            max_text_tokens=limit,
            is_lowered=is_lowered,
            prefixes=Prefixes(*prefixes),
        )

    @cached_property
    def _arguments(self) -> set[str]:
        return self._graph_inputs

    def vectors(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The vectors of one batch of `text_inputs`, (n, H) float32 on the CPU, L2-normalised."""
        found: Tensor = self.model.get_text_features(**inputs).pooler_output
        return found


def load_onnx_encoder(
    folder: str | Path, *, device: str = "auto", num_threads: int | None = None
) -> Any:
    """An encoder of exported parts.

    A folder that holds one part, or one that holds folders `text`, `image` and `fragment`, or some
    of them.

    Raises:
        ModelError: where no part of an encoder lies there, or the parts are of different models.
        UsageError: where the device does not run.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

    from ffr.model_files import loading_explained

    folder = Path(folder)
    parts = open_parts(folder, device=device, num_threads=num_threads)
    place, name = str(next(iter(parts.values())).folder), f"onnx:{folder}"
    with loading_explained(place, kind="an exported encoder"):
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        if config.model_type in SENTENCE_KINDS:
            if set(parts) != {"text"}:
                raise ModelError(
                    "encodes texts only, but holds other parts than text; export the model again",
                    place,
                )
            return OnnxSentenceEncoder(parts["text"], config, tokenizer, name=name)
        image_processor = AutoImageProcessor.from_pretrained(
            place, trust_remote_code=False, backend="pil"
        )
    return OnnxEncoder(OnnxTowers(parts, config), tokenizer, image_processor, name=name)
