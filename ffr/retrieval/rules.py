"""What the model that is asked cannot take of the data, for the door that the data comes in by."""

from __future__ import annotations

from collections.abc import Mapping

import PIL.Image

from ffr.data.judgement import ModelRules
from ffr.data.pictures import is_inside
from ffr.dialogue import Example
from ffr.embedding import Encoder
from ffr.errors import DataError
from ffr.files import temporary_folder
from ffr.images import MAX_IMAGE_PIXELS, scaled_size
from ffr.models.loading import load_skeleton
from ffr.models.prompts import PromptBuilder
from ffr.models.rules import PLAIN_RATIO, VlmRules


def vlm_rules(location: str, *, trust_remote_code: bool = False) -> ModelRules:
    """What a vision-language model cannot take to answer.

    How long its prompts are is seen when they are planned.

    Args:
        location: Its folder, or a hub id; its weights are not loaded.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ModelError: where its files cannot be used.
    """
    builder = PromptBuilder(load_skeleton(location, trust_remote_code=trust_remote_code))
    return VlmRules(builder, checks_length=False)


class EncoderRules:
    """What an encoder cannot take: it is asked for the vector of an empty picture of that shape.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def picture(self, width: int, height: int) -> str:
        """What keeps the encoder from taking a picture of this size; empty for nothing.

        In the words that follow the picture's name in an error.
        """
        if max(width, height) <= PLAIN_RATIO * min(width, height):
            return ""
        with temporary_folder() as folder:
            path = folder / "strip.png"
            PIL.Image.new("RGB", scaled_size(width, height, MAX_IMAGE_PIXELS)).save(path)
            try:
                self._encoder.embed_images([path])
            except DataError:
                return f"is a strip of {width}×{height} pixels, which {self._encoder.name} cannot take; cut it to a wider one"
        return ""

    def example(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        """Nothing: an encoder cuts what is too long, and says so."""
        return ""


class ServerRules:
    """What is not sent to a server: pictures from outside the data's folder.

    Data of a stranger can name any picture of this machine.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], bool] = {}

    def picture(self, width: int, height: int) -> str:
        """Nothing: every picture is scaled down to what is sent."""
        return ""

    def example(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        """That a picture lies outside, links followed; empty where all lie inside."""
        for location in example.image_locations():
            key = str(location), str(example.image_root)
            if key not in self._known:
                self._known[key] = is_inside(location, example.image_root)
            if not self._known[key]:
                return (
                    f'image "{location}" lies outside the data\'s folder, so it is not sent to a '
                    "server; pass --outside-pictures if you trust the data"
                )
        return ""


class JoinedRules:
    """What any of several models cannot take.

    Args:
        rules: Their rules.
    """

    def __init__(self, *rules: ModelRules) -> None:
        self._rules = rules

    def picture(self, width: int, height: int) -> str:
        """The first that keeps one of them from taking a picture; empty for nothing."""
        return next(filter(None, (rules.picture(width, height) for rules in self._rules)), "")

    def example(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        """The first that keeps one of them from taking an example; empty for nothing."""
        return next(filter(None, (rules.example(example, sizes) for rules in self._rules)), "")
