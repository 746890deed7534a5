"""Text in pictures, read by an engine that comes whole in a package (extra `ocr`): screenshots, signs.

`rapidocr` (Apache-2.0) brings its models in its wheel and needs no network.
"""

from __future__ import annotations

import logging
from functools import cached_property
from importlib import metadata, util
from typing import Any

import numpy as np

from ffr.images import Location, open_image
from ffr.text import one_line

_log = logging.getLogger(__name__)

PACKAGE = "rapidocr"
LEAST_CONFIDENCE = 0.6
"""Lines below this are what an engine sees in leaves and bricks."""

_MAX_CHARS = 2000


def installed_ocr() -> str | None:
    """Names the engine and its version, without loading it; None where it is not installed."""
    if util.find_spec(PACKAGE) is None:
        return None
    try:
        return f"{PACKAGE}-{metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError:
        return None


class OcrIfInstalled:
    """The text in pictures where the engine is installed; else none."""

    @property
    def digest(self) -> str | None:
        """Names the engine; None where it is not installed."""
        return installed_ocr()

    @cached_property
    def _engine(self) -> Any:
        from rapidocr import RapidOCR

        return RapidOCR(params={"Global.log_level": "critical"})

    def text(self, picture: Location) -> str:
        """The lines of text in a picture, from its top to its bottom; "" where there are none.

        Args:
            picture: A file, or a picture in memory.

        Raises:
            DataError: where it cannot be opened.
        """
        if self.digest is None:
            return ""
        pixels = np.asarray(open_image(picture))[:, :, ::-1]  # the engine takes BGR
        try:
            found = self._engine(np.ascontiguousarray(pixels))
        except Exception as error:  # of a stranger's engine on a stranger's picture
            _log.warning("%s: no text could be read in it (%s)", picture, one_line(error))
            return ""
        texts, scores = found.txts or (), found.scores or ()
        lines = [
            str(text).strip()
            for text, score in zip(texts, scores, strict=True)
            if score >= LEAST_CONFIDENCE
        ]
        return "\n".join(line for line in lines if line)[:_MAX_CHARS]
