"""How alike a query and the units of a dialogue are, as the numbers that the network sees.

Vectors of another encoder, language or kind of chat look different; how they lie to each other,
set against what is usual, looks much the same. So the network sees likenesses, not vectors.

Shapes: N units of a stretch, Q queries, D width of vectors, G groups of the background, M lines and
K queries of a group, F = `NUM_FEATURES` numbers a unit, H = `NUM_SUMMARIES` numbers a query.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ffr.reader.units import Units

NUM_FEATURES = 30
NUM_SUMMARIES = 14

SEEN_SUMMARIES = 11
"""So many of the summaries, the first, go into the networks."""

GATE_SUMMARIES = (0, 2, 6, 7, 11, 12, 13)
"""Those that the gate weighs."""

Z_RAW, OWN, BESIDE_QUERIES, RARE_LINES, HAS_WORDS, IS_SHOWN = 0, 10, 14, 16, 27, 28
"""Where these stand among a unit's numbers; the last is 1 of a picture with words."""

RARITY_SCALE = 0.25
"""What a rarity, −ln of a share, is multiplied with among the numbers."""

_LEAST = 1e-4
# the share of the dialogue's own mean that is taken out of its vectors, beside the language's
_OWN_SHARE = 0.7
_TAIL = 0.99
# the share of its language's mean query that is taken out of a query held against many dialogues
_OWN_QUERIES = 0.5
# so many queries of a group tell how close things lie to any query: more tell no more
_USUAL_QUERIES = 250
# up to so many values a row, comparing all costs less than sorting first
_FEW = 8


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Lines and queries of other dialogues: what a cosine is usual between strangers.

    Cosines of different queries, and of different lines, are not comparable as they stand: some lie
    close to everything.

    Args:
        lines: (G, M, D) float32, L2-normalised, one group a language.
        queries: (G, K, D) float32, likewise.

    Raises:
        ValueError: where shapes do not fit, or a group has fewer than two of either.
    """

    lines: Tensor
    queries: Tensor
    _centres: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shapes = tuple(self.lines.shape), tuple(self.queries.shape)
        if (
            any(len(shape) != 3 or min(shape) < 1 or shape[1] < 2 for shape in shapes)
            or shapes[0][0] != shapes[1][0]
            or shapes[0][2] != shapes[1][2]
        ):
            raise ValueError(
                f"a background of lines {shapes[0]} and queries {shapes[1]} does not fit together; "
                "give (groups, 2 or more, width) of both"
            )
        # (G, D), asked for with every dialogue
        centres = functional.normalize(self.lines.mean(1), dim=-1)
        object.__setattr__(self, "_centres", centres)

    def group_of(self, vectors: Tensor) -> int:
        """The group whose lines lie closest to these on average: that of their language.

        Args:
            vectors: (N, D); rows of zeros count for nothing.

        >>> lines = torch.eye(2)[:, None].expand(2, 3, 2)
        >>> Background(lines, lines).group_of(torch.tensor([[0.1, 0.9], [0.0, 0.0]]))
        1
        """
        return int((self._centres @ vectors.sum(0)).argmax())

    def across_dialogues(self, queries: Tensor) -> Tensor:
        """Queries as they are held against lines of many dialogues: (n, D) float32, L2-normalised.

        Whatever they say, lines in a query's own language lie closer to it, and to any query some
        lie closer than others. So half of the mean query of its language is taken out of each, and
        all that it has along the directions from one language to another, of lines and of queries:
        a cosine with vectors as they stand then counts neither.

        Args:
            queries: (n, D) float32.

        Raises:
            ValueError: where widths differ, or a query is not finite.

        >>> zh, en, soup = torch.eye(3)
        >>> lines = functional.normalize(torch.stack([zh + soup, en + soup]), dim=-1)
        >>> strangers = Background(lines[:, None].expand(2, 2, 3), lines[:, None].expand(2, 2, 3))
        >>> both = torch.cat([lines[:1], strangers.across_dialogues(lines[:1])])
        >>> [(lines @ row * 100).round().int().tolist() for row in both]
        [[100, 50], [87, 87]]
        """
        check_queries(queries, width=self.lines.shape[2])
        means = self.queries.mean(1)
        left = queries - _OWN_QUERIES * means[(queries @ self._centres.T).argmax(-1)]
        between = torch.cat([group[1:] - group[:1] for group in (self.lines.mean(1), means)])
        # an orthonormal basis of those directions; with one language there is none
        directions = torch.linalg.svd(between, full_matrices=False)
        basis = directions.Vh[directions.S > _LEAST]
        return functional.normalize(left - left @ basis.T @ basis, dim=-1)

    @property
    def usual_queries(self) -> Tensor:
        """(n, D) float32: queries of strangers, of each group as many, held against many dialogues.

        What lies close to these lies close to any query, and says little of one.
        """
        width = self.queries.shape[2]
        return self.across_dialogues(self.queries[:, :_USUAL_QUERIES].reshape(-1, width))


@dataclass(frozen=True, slots=True, eq=False)
class Likenesses:
    """What the network sees of Q queries on one stretch.

    Args:
        features: (Q, N, F) float32.
        summaries: (Q, H) float32: of the best units against the background and its queries.
        between: (N, N) float32: cosines between centred units; 0 without words.
    """

    features: Tensor
    summaries: Tensor
    between: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What of likenesses hangs on the stretch alone, N units, so that the next query finds it made.

    Args:
        vectors: (N, D) of the units.
        words: (N,) float32, 1 where a unit has any.
        lines: (M, D) of the background, of the units' language.
        language: (D,) their mean.
        centred: (N, D) the units less what all of them and their language share.
        between: (N, N) cosines of these.
        asked: (N, K) cosines with the background's queries.
        asked_mean: (N,) of each unit.
        asked_deviation: (N,) likewise.
        strange_leads: (4,) how far the best unit stands out for the background's queries: mean and
            deviation of single units, mean and deviation of three in a row.
        of_units: (N, 6) numbers of the units that are the same for every query.
    """

    vectors: Tensor
    words: Tensor
    lines: Tensor
    language: Tensor
    centred: Tensor
    between: Tensor
    asked: Tensor
    asked_mean: Tensor
    asked_deviation: Tensor
    strange_leads: Tensor
    of_units: Tensor


def likenesses(
    units: Units, queries: Tensor, background: Background, around: Surroundings | None = None
) -> Likenesses:
    """How alike each query and each unit are, raw, centred, ranked, smoothed, and beside strangers.

    Args:
        units: The stretch, N units.
        queries: (Q, D) float32, L2-normalised.
        background: Of the same encoder.
        around: `surroundings` of the same stretch and background; None makes them.

    Raises:
        ValueError: where widths differ, or queries are not finite.

    >>> vectors = functional.normalize(torch.randn(5, 8, generator=torch.manual_seed(0)), dim=-1)
    >>> flags, numbers = torch.zeros(3, dtype=torch.bool), torch.arange(3)
    >>> units = Units(vectors[:3], flags, numbers, numbers + 9, numbers, numbers - numbers - 1, "e")
    >>> seen = likenesses(units, vectors[3:], Background(vectors[None], vectors[None]))
    >>> tuple(seen.features.shape), tuple(seen.summaries.shape), tuple(seen.between.shape)
    ((2, 3, 30), (2, 14), (3, 3))
    """
    check_queries(queries, width=units.vectors.shape[1])
    around = around or surroundings(units, background)
    return Likenesses(*_seen_in(around, queries), around.between)


def surroundings(units: Units, background: Background) -> Surroundings:
    """What is the same for every query on a stretch.

    Args:
        units: The stretch.
        background: Of the same encoder.

    Raises:
        ValueError: where widths differ.
    """
    if background.lines.shape[2] != units.vectors.shape[1]:
        raise ValueError(
            f"the background is {background.lines.shape[2]} wide and the units are "
            f"{units.vectors.shape[1]}; give both from one encoder"
        )
    group = background.group_of(units.vectors)
    return _surroundings_of(
        units.vectors,
        units.is_picture,
        units.num_chars,
        background.lines[group],
        background.queries[group],
    )


def seen_of(
    vectors: Tensor,
    is_picture: Tensor,
    num_chars: Tensor,
    queries: Tensor,
    lines: Tensor,
    strangers: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, summaries and likenesses between units, of tensors alone: it can be exported.

    Args:
        vectors: (N, D) of the units.
        is_picture: (N,) bool.
        num_chars: (N,) int64; 0 without words.
        queries: (Q, D).
        lines: (M, D) of the background, of the units' language.
        strangers: (K, D) queries of the background.

    Returns:
        (Q, N, F), (Q, H) and (N, N) float32, as `Likenesses` has them.
    """
    around = _surroundings_of(vectors, is_picture, num_chars, lines, strangers)
    return *_seen_in(around, queries), around.between


def _surroundings_of(
    vectors: Tensor, is_picture: Tensor, num_chars: Tensor, lines: Tensor, strangers: Tensor
) -> Surroundings:
    """As `surroundings`, of tensors alone; arguments as `seen_of`."""
    words = (num_chars > 0).float()
    language = lines.mean(0)
    # less what all of this dialogue and language share
    own = vectors.sum(0) / words.sum().clamp(min=1.0)
    moved = vectors - _OWN_SHARE * own - (1 - _OWN_SHARE) * language
    centred = functional.normalize(moved, dim=-1, eps=_LEAST) * words[:, None]
    between = centred @ centred.T
    asked = vectors @ strangers.T
    leads = _leads(asked.T * words, words)
    place = torch.arange(vectors.shape[0] - 1)
    next_to = between[place, place + 1]  # each unit to the one behind it
    of_units = [
        functional.pad(next_to, (0, 1)),
        functional.pad(next_to, (1, 0)),
        is_picture.float(),
        words,
        words * is_picture.float(),
        torch.log1p(num_chars.float()) / 3,
    ]
    return Surroundings(
        vectors=vectors,
        words=words,
        lines=lines,
        language=language,
        centred=centred,
        between=between,
        asked=asked,
        asked_mean=asked.mean(1),
        asked_deviation=asked.std(1) + _LEAST,
        strange_leads=torch.stack(
            [value for lead in leads for value in (lead.mean(), lead.std() + _LEAST)]
        ),
        of_units=torch.stack(of_units, dim=-1),
    )


def _seen_in(around: Surroundings, queries: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, N, F) features and (Q, H) summaries of queries (Q, D)."""
    words, lines, between = around.words, around.lines, around.between
    raw = queries @ around.vectors.T * words
    centred_queries = functional.normalize(queries - around.language, dim=-1, eps=_LEAST)
    own = centred_queries @ around.centred.T
    # how a query lies to lines that it does not mean, and a line to queries that do not mean it
    usual = queries @ lines.T
    usual_mean, usual_std = usual.mean(1, keepdim=True), usual.std(1, keepdim=True) + _LEAST
    usual = usual.sort(1).values
    usual_tail = _quantile(usual, _TAIL)
    beside_queries = (raw - around.asked_mean) / around.asked_deviation * words / 2
    beside_lines = (raw - usual_mean) / usual_std * words / 2
    mutual = beside_queries + beside_lines
    rare_lines = _rarity(raw, usual, is_sorted=True) * words
    rare_queries = _rarity(raw.T, around.asked).T * words

    # like sums together: each of its own takes longer to begin than to do
    (z_raw, z_own, z_mutual), means, deviations = _standing(torch.stack([raw, own, mutual]), words)
    mean, deviation, mutual_mean = means[0], deviations[0], means[2]
    lead = (raw - mean) * words
    near_z, *near = _smooth(torch.stack([z_mutual, raw, mutual, lead]), words, 1)
    near_z_raw, near_z_own = _smooth(torch.stack([z_raw, z_own]), words, 2)
    seen = [raw, mutual, beside_queries, rare_lines, rare_queries, lead, *near]
    best, best_mutual, best_beside, best_rare_line, best_rare_query, *best_leads = _best(
        torch.stack(seen), words
    )
    best_lead, best_near, best_near_mutual, best_near_lead = best_leads
    # what lies close to the best units, whatever the query's own words say
    weight = torch.softmax(2 * z_mutual.masked_fill(words == 0, -1e4), dim=1)
    by_best = weight @ between
    rank = _rank(mutual, words)
    count = words.sum().clamp(min=1.0)
    width = words.shape[0]

    def everywhere(value: Tensor) -> Tensor:
        return value.expand(-1, width)

    of_query = torch.stack(
        [
            z_raw,
            z_own,
            z_mutual,
            near_z_raw,
            near_z_own,
            near_z,
            _smooth(z_mutual, words, 4),
            _best_of_three(z_mutual),
            (raw - best) * 10 * words,
            (raw - 0.8) * 10 * words,
            own * 3,
            by_best * 3,
            rank,
            beside_lines,
            beside_queries,
            (raw - usual_tail) * 20 * words,
            rare_lines,
            rare_queries,
            everywhere((best - 0.85) * 10),
            everywhere(mean * 10 - 8),
            everywhere(deviation * 20),
            everywhere((best - usual_mean) / usual_std / 2),
            everywhere((best - mean) * 15),
            everywhere(torch.log1p(count).expand(queries.shape[0], 1) / 4),
        ],
        dim=-1,
    )
    of_units = around.of_units[None].expand(queries.shape[0], -1, -1)
    features = torch.cat([of_query, of_units], dim=-1)
    summaries = torch.cat(
        [
            (best - usual_mean) / usual_std / 2,
            (best - usual_tail) * 20,
            (best - mean) * 15,
            mean * 10 - 8,
            deviation * 20,
            (best_near - usual_mean) / usual_std / 2,
            best_mutual / 2,
            best_beside,
            best_rare_line,
            best_rare_query,
            (best_near_mutual - mutual_mean) / 2,
            *_beside_strangers(best_lead, best_near_lead, around.strange_leads),
            torch.log1p(count).expand(queries.shape[0], 1) / 4,
        ],
        dim=1,
    )
    return features, summaries


def _beside_strangers(
    alone: Tensor, together: Tensor, strange_leads: Tensor
) -> tuple[Tensor, Tensor]:
    """(Q, 1) each: how far the best unit stands out, set against how far it does for strangers.

    One unit of many always stands out. What counts is whether one does more than for the queries of
    other dialogues, put to this one; of single units, and of three in a row.

    Args:
        alone: (Q, 1) how far the best unit stands above the mean one.
        together: (Q, 1) the same of units with their neighbours.
        strange_leads: (4,) as `Surroundings` has them.
    """
    usual_alone, alone_deviation, usual_together, together_deviation = strange_leads
    return (
        (alone - usual_alone) / alone_deviation / 3,
        (together - usual_together) / together_deviation / 3,
    )


def _leads(values: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, 1) each: how far the best unit stands above the mean one, alone and with its neighbours."""
    lead = (values - values.sum(1, keepdim=True) / words.sum().clamp(min=1.0)) * words
    return _best(lead, words), _best(_smooth(lead, words, 1), words)


def check_queries(queries: Tensor, *, width: int) -> None:
    """Refuses query vectors that are no rows of this width.

    Raises:
        ValueError: where that is so, or they are not finite.
    """
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ValueError(
            f"query vectors have shape {tuple(queries.shape)}; give (queries, {width})"
        )
    if not bool(queries.isfinite().all()):
        raise ValueError("query vectors hold NaN or infinite numbers; embed the queries again")


def _standing(values: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(…, N) deviations from the mean over units with words, with that mean and deviation (…, 1)."""
    count = words.sum().clamp(min=1.0)
    mean = (values * words).sum(-1, keepdim=True) / count
    deviation = (((values - mean) * words) ** 2).sum(-1, keepdim=True).div(count).sqrt() + _LEAST
    return (values - mean) / deviation * words, mean, deviation


def _quantile(ordered: Tensor, share: float) -> Tensor:
    """(R, 1) the value below which this share lies, between neighbours linear, as `Tensor.quantile`.

    Args:
        ordered: (R, m) ascending.
        share: From 0 to below 1.
    """
    place = share * (ordered.shape[1] - 1)
    below = int(place)
    return torch.lerp(
        ordered[:, below : below + 1], ordered[:, below + 1 : below + 2], place - below
    )


def _rarity(values: Tensor, usual: Tensor, *, is_sorted: bool = False) -> Tensor:
    """(R, n) how seldom a stranger lies as close: −ln of the share that does, scaled.

    Args:
        values: (R, n).
        usual: (R, m) of strangers.
        is_sorted: Whether each row of those ascends.
    """
    num_usual = usual.shape[1]
    if torch.compiler.is_exporting() or (not is_sorted and values.shape[1] <= _FEW):
        # the same number, sooner for a few queries; and ONNX has no search in what is sorted
        below = (usual[:, None] < values[:, :, None]).sum(-1)
    else:
        ordered = usual if is_sorted else usual.sort(1).values
        below = torch.searchsorted(ordered, values.contiguous(), right=False)
    return -torch.log((num_usual - below + 1.0) / (num_usual + 1.0)) * RARITY_SCALE


def _best(values: Tensor, words: Tensor) -> Tensor:
    """(…, 1) the largest value of a unit with words; 0 where there is none."""
    best = values.masked_fill(words == 0, -1e4).amax(-1, keepdim=True)
    return torch.where((words > 0).any(), best, 0.0)


def _best_of_three(values: Tensor) -> Tensor:
    """(Q, N) the largest of a unit's value and its two neighbours'."""
    nothing = -torch.inf
    before = functional.pad(values[:, :-1], (1, 0), value=nothing)
    behind = functional.pad(values[:, 1:], (0, 1), value=nothing)
    return torch.maximum(values, torch.maximum(before, behind))


def _smooth(values: Tensor, words: Tensor, reach: int) -> Tensor:
    """(…, N) means over up to `reach` units on either side, of those with words."""
    size = 2 * reach + 1

    def pooled(rows: Tensor) -> Tensor:
        single = rows.reshape(-1, 1, rows.shape[-1])
        return functional.avg_pool1d(single, size, 1, reach).reshape(rows.shape)

    # a picture without words takes the mean of its neighbours
    return pooled(values * words) / pooled(words).clamp(min=0.5 / size)


def _rank(values: Tensor, words: Tensor) -> Tensor:
    """(Q, N) the share of units with words that lie below, from -½ to ½; 0 without words."""
    below = values.masked_fill(words == 0, -1e4).argsort(1).argsort(1).float()
    count = words.sum().clamp(min=2.0)
    without = words.shape[0] - words.sum()
    return ((below - without) / (count - 1) - 0.5) * words
