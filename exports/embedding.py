"""Exported encoders at work without torch and transformers: texts and pictures in, arrays out.

What it takes beside ffr is `onnxruntime`, `numpy`, `tokenizers` for texts and `pillow` for
pictures.
Shapes: n texts, pictures or fragments; H the width of the encoder's space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffr.errors import ModelError, UsageError
from ffr.exports.plain import open_tokenizer, pictures_as_pixels, texts_as_ids
from ffr.exports.runtime import Arrays, OnnxModel, empty_rows, open_parts
from ffr.images import LoadedPicture, open_image
from ffr.parts import FragmentParts, Pictures, Texts, as_fragments, as_pictures, as_texts
from ffr.text import one_line

Vectors = NDArray[np.float32]
_BATCH_SIZE = 8
"""Items of one call; smaller pieces stay in the processor's caches."""


def load(
    folder: str | Path, *, device: str = "auto", num_threads: int | None = None
) -> ExportedEncoder:
    """Opens an exported encoder, without torch and transformers: `ffr.exports.load`.

    Args:
        folder: What `ffr export onnx` wrote: one part, or a folder with several (`--part all`).
        device: cpu, cuda, or auto.
        num_threads: Threads inside an operator; None for ONNX Runtime's own choice.

    Raises:
        ModelError: where no part of an encoder lies there, the parts are of different models,
            damaged, or not right on this processor, or their texts or pictures are prepared by
            rules that need transformers.
        UsageError: where the device does not run.
    """
    models = open_parts(Path(folder), device=device, num_threads=num_threads)
    for model in models.values():
        if model.info.content.get("is_prepared_plainly") is not True:
            raise ModelError(
                "prepares its inputs by rules that need transformers; open it with "
                "ffr.exports.encoder.load_onnx_encoder, or name it as onnx:DIR",
                str(model.folder),
            )
    return ExportedEncoder(models)


class ExportedEncoder:
    """Exported parts of one encoder. Made by `load`.

    Args:
        parts: The opened parts by name: text, image, fragment, or some of them.
    """

    def __init__(self, parts: Mapping[str, OnnxModel]) -> None:
        self.parts = dict(parts)
        self._tokenizer: Any = None

    @property
    def takes_texts(self) -> bool:
        """Whether it embeds texts."""
        return bool({"text", "fragment"} & self.parts.keys())

    @property
    def takes_images(self) -> bool:
        """Whether it embeds pictures."""
        return bool({"image", "fragment"} & self.parts.keys())

    def embed(self, *, texts: Texts | None = None, images: Pictures | None = None) -> Vectors:
        """One vector for each text, then one for each picture: (n, H) float32, L2-normalised.

        Args:
            texts: Texts, or one; too long ones are cut at their end, as the model does it.
            images: Paths, pictures of Pillow's or arrays of pixels, or one of them.

        Raises:
            ValueError: where nothing is given, or something that is no text or picture.
            UsageError: where the part for them was not exported.
            DataError: where a picture cannot be opened.
        """
        if texts is None and images is None:
            raise ValueError("nothing to embed; give texts=…, images=…, or both")
        rows = [] if texts is None else [self._embedded("text", as_texts(texts), self._texts)]
        if images is not None:
            rows.append(self._embedded("image", as_pictures(images), self._pictures))
        return np.concatenate(rows)

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Vectors:
        """One vector a fragment, (n, H) float32: the mean of its parts' vectors, L2-normalised.

        Args:
            fragments: Each a list of texts (`str`) and pictures (paths as `Path`).

        Raises:
            ValueError: where something else is given, or a fragment has no parts.
            UsageError: where a part of the encoder that they need was not exported.
            DataError: where a picture cannot be opened.
        """
        found = []
        for number, parts in enumerate(as_fragments(fragments)):
            if not parts:
                raise ValueError(f"fragment {number} has no parts; leave it out")
            texts = [part for part in parts if isinstance(part, str)]
            pictures = [part for part in parts if not isinstance(part, str)]
            if "fragment" in self.parts:
                found.append(self._fragment(texts, pictures))
                continue
            rows = [self.embed(texts=texts)] if texts else []
            rows += [self.embed(images=pictures)] if pictures else []
            mean = np.concatenate(rows).mean(axis=0, keepdims=True)
            found.append(mean / np.maximum(np.linalg.norm(mean), 1e-12))
        return np.concatenate(found) if found else self._no_rows()

    def _embedded(
        self, part: str, items: Sequence[Any], prepare: Callable[[OnnxModel, Sequence[Any]], Arrays]
    ) -> Vectors:
        model = self.parts.get(part)
        if model is None and "fragment" not in self.parts:
            raise UsageError(
                f"the {part} part was not exported; run `ffr export onnx --part {part}`, or "
                "--part all"
            )
        if not items:
            return self._no_rows()
        if model is None:  # each is a fragment of one part
            rows = [
                self._fragment([item], []) if part == "text" else self._fragment([], [item])
                for item in items
            ]
        else:
            rows = [model.run(prepare(model, some))["embeddings"] for some in _batches(items)]
        return np.concatenate(rows)

    def _fragment(self, texts: Sequence[str], pictures: Sequence[Path | LoadedPicture]) -> Vectors:
        model = self.parts["fragment"]
        given = self._texts(model, texts) if texts else {}
        given |= self._pictures(model, pictures) if pictures else {}
        inputs = {
            name: given[name] if name in given else empty_rows(entry)
            for name, entry in model.info.inputs.items()
        }
        found: Vectors = model.run(inputs)["embeddings"]
        return found

    def _texts(self, model: OnnxModel, texts: Sequence[str]) -> Arrays:
        with _files_explained(model):
            if self._tokenizer is None:
                self._tokenizer = open_tokenizer(str(model.folder))
            given = texts_as_ids(str(model.folder), list(texts), self._tokenizer)
        return _as_graph_takes(model, given)

    @staticmethod
    def _pictures(model: OnnxModel, pictures: Iterable[Path | LoadedPicture]) -> Arrays:
        opened = [open_image(picture) for picture in pictures]
        with _files_explained(model):
            given = pictures_as_pixels(str(model.folder), opened)
        return _as_graph_takes(model, given)

    def _no_rows(self) -> Vectors:
        """No vectors, of the right width."""
        found: Vectors = next(iter(self.parts.values())).warm_up()["embeddings"][:0]
        return found


@contextmanager
def _files_explained(model: OnnxModel) -> Iterator[None]:
    """What is raised of files that say nonsense, in one sentence."""
    try:
        yield
    except ImportError as error:
        raise UsageError(f"texts need the package {error.name}; pip install {error.name}") from None
    except Exception as error:  # tokenizers raise what has no base of its own
        raise ModelError(
            f"its files do not say how to prepare an input ({one_line(error)}); export the model "
            "again",
            str(model.folder),
        ) from error


def _as_graph_takes(model: OnnxModel, given: Mapping[str, NDArray[Any]]) -> Arrays:
    inputs = model.info.inputs
    return {
        name: value.astype(inputs[name]["dtype"]) for name, value in given.items() if name in inputs
    }


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(items), _BATCH_SIZE):
        yield items[begin : begin + _BATCH_SIZE]
