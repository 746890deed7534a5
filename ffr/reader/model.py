"""The reader whole: what it says of a query on a dialogue.

Shapes: N units of a dialogue, n of a stretch, Q queries, D width of the encoder's vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffr.dialogue import Dialogue
from ffr.errors import ModelError
from ffr.files import replaced_folder
from ffr.reader.decision import best_set
from ffr.reader.files import parts_digest, read_parts, write_parts
from ffr.reader.frozen import FrozenNetworks
from ffr.reader.gate import Gate, evidence
from ffr.reader.likeness import (
    IS_SHOWN,
    RARE_LINES,
    RARITY_SCALE,
    Background,
    Surroundings,
    check_queries,
    likenesses,
    surroundings,
)
from ffr.reader.network import NetworkInputs, ReaderNetwork
from ffr.reader.query import QueryMap, plain_words
from ffr.reader.settings import ReaderSettings
from ffr.reader.units import TextEncoder, Units, units_of
from ffr.text import one_line
from ffr.threads import one_thread

_BATCH = 64
# up to so many units, each query's counted, one thread does as well as several
_SMALL = 512


@dataclass(frozen=True, slots=True, eq=False)
class ReaderPrediction:
    """What the reader says of a query on a dialogue.

    Args:
        probabilities: (N,) float32, that each unit belongs to the fragment, if there is one.
        nothing: Probability that the query means nothing in the dialogue.
        utterance_ids: Of the answer, ascending.
        image_ids: Likewise.
        score: How sure the answer is, from 0 to 1: the expected F1 of its utterances under the
            calibrated probabilities, times that of there being any; of an empty answer, the
            probability of nothing.
    """

    probabilities: Tensor
    nothing: float
    utterance_ids: tuple[int, ...]
    image_ids: tuple[int, ...]
    score: float


class Reader:
    """Networks over one frozen encoder's vectors.

    Args:
        networks: All of one shape; their logits are averaged.
        background: Lines and queries of other dialogues, of the same encoder.
        settings: The rest.
        query_map: What query vectors go through; None leaves them as they are.
        gate: Weighs what tells that a query means nothing; None goes by the networks alone.

    Raises:
        ValueError: where the networks are not those that the settings say.
    """

    def __init__(
        self,
        networks: Sequence[ReaderNetwork],
        background: Background,
        settings: ReaderSettings,
        query_map: QueryMap | None = None,
        gate: Gate | None = None,
    ) -> None:
        if len(networks) != settings.num_networks or any(
            network.shape != settings.shape for network in networks
        ):
            raise ValueError(
                f"the settings say {settings.num_networks} networks of {settings.shape}; "
                f"{len(networks)} are given, or they have another shape"
            )
        self.networks = list(networks)
        self.background = background
        self.settings = settings
        self.query_map = query_map
        self.gate = gate
        # one pair, as another thread may ask about another dialogue
        self._last: tuple[Units | None, Surroundings | None] = None, None
        self._frozen: FrozenNetworks | None = None

    @classmethod
    def untrained(
        cls, encoder: TextEncoder, background: Background, *, seed: int = 0, **settings: Any
    ) -> Reader:
        """A reader of random weights.

        Args:
            encoder: Whose vectors it is to read.
            background: Of that encoder.
            seed: Of the weights.
            settings: Fields of `ReaderSettings`.

        Raises:
            ValueError: as `ReaderSettings` does.
        """
        chosen = ReaderSettings(encoder.name, encoder.weights_digest, **settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [ReaderNetwork(chosen.shape).eval() for _ in range(chosen.num_networks)]
        return cls(networks, background, chosen)

    def freeze(self) -> None:
        """From now on its networks are those of now: answers come sooner, and have no gradient."""
        self._frozen = FrozenNetworks(self.networks)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights, background and settings: all that decides what it says."""
        return parts_digest(*_parts(self))

    def units(
        self,
        dialogue: Dialogue,
        encoder: TextEncoder,
        picture_words: Sequence[str] | None = None,
    ) -> Units:
        """The units of a dialogue; see `units_of`.

        Args:
            dialogue: The dialogue.
            encoder: The one that the reader was made with.
            picture_words: For each image id, what it shows, in words; "" where that is not known.

        Raises:
            ModelError: where the encoder is another one.
            ValueError: where there are not as many words as pictures.
        """
        _check_encoder(self.settings, encoder.weights_digest, encoder.name)
        prefix = self.settings.line_prefix
        return units_of(dialogue, encoder, picture_words=picture_words, prefix=prefix)

    def query_vectors(self, queries: Sequence[str], encoder: TextEncoder) -> Tensor:
        """(Q, D) float32 vectors of queries, less what only asks.

        Raises:
            ModelError: where the encoder is another one.
        """
        _check_encoder(self.settings, encoder.weights_digest, encoder.name)
        settings = self.settings
        asked = [plain_words(query) if settings.has_plain_queries else query for query in queries]
        vectors = encoder.embed_texts([settings.query_prefix + text for text in asked])
        vectors = vectors.float().cpu()
        return vectors if self.query_map is None else self.query_map(vectors)

    def recall_vectors(self, queries: Sequence[str], encoder: TextEncoder) -> Tensor:
        """(Q, D) float32 vectors of queries, held against lines of many dialogues in any language.

        Raises:
            ModelError: where the encoder is another one.
        """
        return self.background.across_dialogues(self.query_vectors(queries, encoder))

    def inputs(self, units: Units, queries: Tensor) -> NetworkInputs:
        """What a network takes of each query on a stretch, (Q, …), as one batch.

        Args:
            units: The stretch.
            queries: (Q, D) float32, L2-normalised, Q at least 1.

        Raises:
            ValueError: as `likenesses`.
        """
        if (last := self._last)[0] is not units:
            last = self._last = units, surroundings(units, self.background)
        seen = likenesses(units, queries, self.background, last[1])
        num_queries = len(queries)
        return NetworkInputs(
            seen.features,
            seen.summaries,
            seen.between.expand(num_queries, -1, -1),
            units.speakers.expand(num_queries, -1),
            torch.ones(num_queries, len(units), dtype=torch.bool),
        )

    def mean_logits(self, inputs: NetworkInputs) -> tuple[Tensor, Tensor]:
        """The networks' mean logits of units (B, N) and of nothing (B,), as they are."""
        units, nothing = zip(*_asked(self)(inputs), strict=True)
        return torch.stack(units).mean(0), torch.stack(nothing).mean(0)

    def logits(self, inputs: NetworkInputs) -> tuple[Tensor, Tensor]:
        """Calibrated logits of units (B, N), on the condition that there is anything, and of nothing (B,).

        The networks' mean, through the gate where there is one, with what pictures show (`_shown`), with
        gradient; of no meaning where `inputs.mask` is False.

        Args:
            inputs: A batch of B queries.
        """
        (units, nothing), settings = self.mean_logits(inputs), self.settings
        if self.gate is not None:
            nothing = self.gate(evidence(inputs, units, nothing))
        return (
            (units + _shown(inputs, settings)) * settings.scale + settings.shift,
            nothing * settings.nothing_scale + settings.nothing_shift,
        )

    @torch.no_grad()
    def predict(self, units: Units, queries: Tensor) -> list[ReaderPrediction]:
        """What each query means in a dialogue, in order.

        A dialogue longer than `settings.stretch` is read in stretches that overlap, so that time
        grows with its length: a unit has the logit of the stretch in which it stands furthest from
        an end, and counts the less, the less likely its stretch holds anything at all.

        Args:
            units: The dialogue.
            queries: (Q, D) float32, L2-normalised.

        Raises:
            ModelError: where the units are of another encoder.
            ValueError: where query vectors have another width, or are not finite.
        """
        _check_encoder(self.settings, units.encoder, "the vectors")
        check_queries(queries, width=self.background.lines.shape[2])
        if not len(units):
            return [ReaderPrediction(torch.zeros(0), 1.0, (), (), 1.0) for _ in queries]
        for network in (item for item in self.networks if item.training):
            network.eval()  # which costs as much as to look at a few lines
        with _threads(len(units) * len(queries)):
            probabilities, nothing = _read(self, units, queries)
        return [
            _answer(units, row, float(absent), self.settings.nothing_from)
            for row, absent in zip(probabilities, nothing, strict=True)
        ]

    def save(self, folder: str | Path) -> None:
        """Writes the reader into a folder, whole or not at all.

        Raises:
            OSError: where it cannot be written.
        """
        with replaced_folder(Path(folder)) as scratch:
            write_parts(scratch, *_parts(self))

    @classmethod
    def load(cls, folder: str | Path) -> Reader:
        """A reader from its folder; nothing in it can run code.

        Raises:
            ModelError: where files are missing, damaged, or hold anything else.
        """
        return cls(*read_parts(Path(folder)))


def _parts(
    reader: Reader,
) -> tuple[list[ReaderNetwork], Background, ReaderSettings, QueryMap | None, Gate | None]:
    """What a reader's folder holds."""
    return reader.networks, reader.background, reader.settings, reader.query_map, reader.gate


def _asked(reader: Reader) -> Callable[[NetworkInputs], list[tuple[Tensor, Tensor]]]:
    """What gives each network's logits."""
    return reader._frozen or (lambda inputs: [network(inputs) for network in reader.networks])


def _shown(inputs: NetworkInputs, settings: ReaderSettings) -> Tensor:
    """(B, N) how far the words of a picture speak for it; 0 of all else.

        w (r − u),  r = −ln of the share of strangers' lines that lie as close to the query

    with w and u of the settings, for the networks go by where a picture stands above all.
    """
    rarity = inputs.features[..., RARE_LINES] / RARITY_SCALE
    worth: Tensor = settings.picture_weight * (rarity - settings.picture_usual)
    return worth * inputs.features[..., IS_SHOWN]


def _read(reader: Reader, units: Units, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of a dialogue's units (Q, N) and of nothing in it (Q,), stretch by stretch."""
    probabilities = torch.zeros(len(queries), len(units))
    nothing = torch.ones(len(queries))
    stretches = _stretches(len(units), reader.settings.stretch, reader.settings.overlap)
    parts = []
    for start, stop, first, last in stretches:
        # the dialogue itself is known again at its next query
        part = units if stop - start == len(units) else units.part(start, stop)
        found, absent = _calibrated(reader, part, queries)
        probabilities[:, first:last] = found[:, first - start : last - start]
        parts.append((first, last, absent))
        nothing = torch.minimum(nothing, absent)
    if len(stretches) > 1:
        most = (1 - nothing).clamp(min=1e-6)
        for first, last, absent in parts:
            probabilities[:, first:last] *= ((1 - absent) / most)[:, None]
    return probabilities, nothing


def _calibrated(reader: Reader, units: Units, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of a stretch's units (Q, n) and of nothing in it (Q,)."""
    starts = range(0, len(queries), _BATCH)
    batches = [reader.inputs(units, queries[start : start + _BATCH]) for start in starts]
    if not batches:
        return torch.zeros(0, len(units)), torch.zeros(0)
    found, absent = zip(*(reader.logits(inputs) for inputs in batches), strict=True)
    return torch.sigmoid(torch.cat(found)), torch.sigmoid(torch.cat(absent))


def _check_encoder(settings: ReaderSettings, digest: str, name: str) -> None:
    if digest != settings.encoder:
        raise ModelError(
            f"is another encoder than {one_line(settings.encoder_name)}, which this "
            "reader was trained with, and their vectors do not compare; use that one",
            one_line(name),
        )


def _threads(size: int) -> AbstractContextManager[None]:
    """How so many units are read, each query's counted: few of them on one thread."""
    return one_thread() if size <= _SMALL else nullcontext()


def _stretches(length: int, size: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Start and stop of each stretch, and from where to where its logits count."""
    if length <= size:
        return [(0, length, 0, length)]
    starts = list(range(0, length - overlap, size - overlap))
    # the last one reaches the end and is as long as the others
    starts[-1] = length - size
    middles = [(before + size + after) // 2 for before, after in itertools.pairwise(starts)]
    counted = itertools.pairwise([0, *middles, length])
    return [
        (start, start + size, first, last)
        for start, (first, last) in zip(starts, counted, strict=True)
    ]


def _answer(
    units: Units, probabilities: Tensor, nothing: float, nothing_from: float
) -> ReaderPrediction:
    utterance_ids: list[int] = []
    image_ids: list[int] = []
    score = nothing
    if nothing < nothing_from:
        is_utterance, is_image = units.utterance_ids >= 0, units.image_ids >= 0
        chosen, expected = best_set(probabilities[is_utterance])
        utterance_ids = units.utterance_ids[is_utterance][chosen].tolist()
        shown, _ = best_set(probabilities[is_image])
        image_ids = units.image_ids[is_image][shown].tolist()
        if utterance_ids or image_ids:
            score = expected * (1 - nothing)
    return ReaderPrediction(
        probabilities, nothing, tuple(utterance_ids), tuple(image_ids), min(1.0, score)
    )
