"""The background of a reader or an encoder that is trained: lines and queries of its own data.

Shapes: G groups (languages), M lines and K queries of each, D width of the encoder's vectors.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import torch

from ffr.dialogue import Example
from ffr.embedding.prefixes import Prefixes
from ffr.errors import DataError
from ffr.reader.likeness import Background
from ffr.reader.query import plain_words
from ffr.reader.units import TextEncoder

MAX_LINES, MAX_QUERIES = 3_000, 500
_LEAST = 200
"""A language with fewer lines or queries has no group of its own."""
_HAN = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"\w")


def is_han(text: str) -> bool:
    """Whether a fifth of a text's letters are Chinese characters.

    >>> is_han("公交车 number 42"), is_han("the 公 bus is late")
    (True, False)
    """
    return len(_HAN.findall(text)) * 5 >= max(1, len(_LETTER.findall(text)))


def chosen_texts(examples: Sequence[Example], seed: int) -> list[tuple[list[str], list[str]]]:
    """Lines and queries of each group: of Chinese and of all else, or of all together.

    All groups have as many of either. Where one of the two languages has less than 200, there is one
    group.

    Args:
        examples: The data.
        seed: Draws which.

    Raises:
        DataError: where there are fewer than two different lines or queries.
    """
    lines = list(
        dict.fromkeys(
            line.text.strip()
            for example in examples
            for line in example.dialogue.utterances
            if line.text.strip()
        )
    )
    # as a reader takes them: without the words that only ask
    queries = list(dict.fromkeys(plain_words(example.query) for example in examples))
    groups = [
        ([text for text in lines if is_han(text) == han], [t for t in queries if is_han(t) == han])
        for han in (False, True)
    ]
    if any(min(map(len, group)) < _LEAST for group in groups):
        groups = [(lines, queries)]
    num_lines = min(MAX_LINES, *(len(group[0]) for group in groups), MAX_LINES)
    num_queries = min(MAX_QUERIES, *(len(group[1]) for group in groups), MAX_QUERIES)
    if min(num_lines, num_queries) < 2:
        raise DataError(
            "holds fewer than two different lines or queries, of which nothing can be learned of "
            "what is usual; name more data"
        )
    draw = random.Random(f"{seed} background")
    return [
        (draw.sample(group[0], num_lines), draw.sample(group[1], num_queries)) for group in groups
    ]


def background_of(
    texts: Sequence[tuple[Sequence[str], Sequence[str]]],
    encoder: TextEncoder,
    prefixes: Prefixes = Prefixes(),  # noqa: B008 - it cannot be changed
) -> Background:
    """Their vectors.

    Args:
        texts: For each of G groups its M lines and K queries, as `chosen_texts` gives them.
        encoder: Makes the vectors.
        prefixes: What stands before lines and queries.
    """
    lines, queries = zip(
        *(
            (
                encoder.embed_texts(prefixes.of_lines(group[0])).float().cpu(),
                encoder.embed_texts(prefixes.of_queries(group[1])).float().cpu(),
            )
            for group in texts
        ),
        strict=True,
    )
    return Background(torch.stack(lines), torch.stack(queries))
