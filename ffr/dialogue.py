"""What all else speaks of.

Images, utterances, dialogues, fragments, and examples (dialogue + query + answer).

Everything here is immutable. Utterance ids are positions in the dialogue, from 0; image ids count
over the whole dialogue in order of appearance, from 0.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ffr.notebook import table
from ffr.text import counted, described, is_url, spaced


@dataclass(frozen=True, slots=True)
class Image:
    """A picture as the data names it.

    Args:
        source: A path, relative to the data's image root or absolute, or a URL; never opened here.
        caption: The words that came with it, as in the raw form; not shown to a model.
        digest: SHA-256 of the file's bytes as 64 hex digits, where the file has been looked at;
            None where it has not.
    """

    source: str
    caption: str = ""
    digest: str | None = field(default=None, compare=False, repr=False)

    @property
    def content(self) -> list[str]:
        """What the picture is for fingerprints.

        Its bytes wherever they lie, or its name where they are not known.

        >>> Image("a.png").content, Image("a.png", digest="ab12").content
        (['a.png'], ['sha256', 'ab12'])
        """
        return [self.source] if self.digest is None else ["sha256", self.digest]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a dialogue: who says it, and the texts and images it is made of, in order.

    >>> line = Utterance("User1", ("look: ", Image("cat.png")))
    >>> line.text, line.images
    ('look: ', (Image(source='cat.png', caption=''),))
    """

    speaker: str
    segments: tuple[str | Image, ...] = ()

    @property
    def text(self) -> str:
        """The words alone, without the images."""
        return "".join(segment for segment in self.segments if isinstance(segment, str))

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(segment for segment in self.segments if isinstance(segment, Image))

    @classmethod
    def of(cls, line: Any, where: str = "the line") -> Utterance:
        """The utterance that a pair of a speaker and what is said stands for.

        What is said is a text, a picture (`Path` or `Image`), or a list of them.

        Raises:
            ValueError: where it is anything else; the sentence names the line.

        >>> Utterance.of(("Ann", ["look: ", Path("cat.png")])).images
        (Image(source='cat.png', caption=''),)
        """
        if isinstance(line, Utterance):
            return line
        if not isinstance(line, (tuple, list)) or len(line) != 2 or not isinstance(line[0], str):
            raise ValueError(f"{where} is {described(line)}; write a pair (speaker, text)")
        speaker, said = line
        parts = said if isinstance(said, (tuple, list)) else [said]
        segments: list[str | Image] = []
        for part in parts:
            if isinstance(part, Path):
                segments.append(Image(str(part)))
            elif isinstance(part, (str, Image)):
                segments += [part] if part else []
            else:
                raise ValueError(f"{where} says {described(part)}; write texts, Paths or Images")
        return cls(speaker, tuple(segments))


@dataclass(frozen=True)
class Dialogue:
    """A long dialogue.

    In a notebook it shows itself as a table.

    >>> pictures = Utterance("user2", (Image("a.png"), Image("b.png")))
    >>> chat = Dialogue("d1", (Utterance("user1", ("hi",)), pictures))
    >>> len(chat.utterances), len(chat.images), chat.image_utterance_ids
    (2, 2, (1, 1))
    """

    id: str
    utterances: tuple[Utterance, ...]

    @classmethod
    def of(cls, lines: Iterable[Any], id: str = "dialogue") -> Dialogue:  # noqa: A002 - the field
        """A dialogue of pairs (speaker, what is said), as `Utterance.of` takes them.

        Raises:
            ValueError: where a line is something else, or there is none.

        >>> chat = Dialogue.of([("Ann", "look"), ("Ann", Path("cat.png")), ("Bob", "nice")])
        >>> len(chat.utterances), chat.image_utterance_ids
        (3, (1,))
        """
        if isinstance(lines, (str, bytes, Mapping)) or not isinstance(lines, Iterable):
            found = described(lines)
            raise ValueError(f"the dialogue is {found}; write a list of pairs (speaker, text)")
        utterances = tuple(
            Utterance.of(line, f"line {number} of the dialogue")
            for number, line in enumerate(lines)
        )
        if not utterances:
            raise ValueError("the dialogue is empty; a dialogue has utterances")
        return cls(id, utterances)

    def _repr_html_(self) -> str:
        return self.html()

    def html(self, marked: Fragment | None = None) -> str:
        """The dialogue as an HTML table, the lines of a fragment set off.

        Args:
            marked: Its utterances, and those that its images hang on, are set off.
        """
        chosen = set() if marked is None else set(marked.utterance_ids)
        hosts = self.image_utterance_ids
        for image_id in () if marked is None else marked.image_ids:
            chosen |= {*hosts[image_id : image_id + 1]}
        num = f"{counted(len(self.utterances), 'utterance')}, {counted(len(self.images), 'image')}"
        return table(
            ["", "speaker", "utterance"],
            [
                [str(number), utterance.speaker, said]
                for number, (utterance, said) in enumerate(
                    zip(self.utterances, self.said(), strict=True)
                )
            ],
            caption=f"{self.id}: {num}",
            marked=chosen,
        )

    def said(self) -> list[str]:
        """What each utterance says, in words: `[image 0: cat.png]` stands for a picture.

        >>> Dialogue("d", (Utterance("a", ("look", Image("cat.png"))),)).said()
        ['look [image 0: cat.png]']
        """
        numbers = iter(range(len(self.images)))
        return [
            spaced(
                part if isinstance(part, str) else f"[image {next(numbers)}: {part.source}]"
                for part in line.segments
            )
            for line in self.utterances
        ]

    @cached_property
    def images(self) -> tuple[Image, ...]:
        """All images; entry i is image id i."""
        return tuple(
            part for line in self.utterances for part in line.segments if isinstance(part, Image)
        )

    @cached_property
    def image_utterance_ids(self) -> tuple[int, ...]:
        """For each image id, the id of the utterance it hangs on."""
        return tuple(
            index
            for index, line in enumerate(self.utterances)
            for part in line.segments
            if isinstance(part, Image)
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what is said and shown (speakers lower-cased, as prompts show them).

        The id has no part in it.

        A picture counts by its file's bytes, whatever its path, where they are known
        (`Image.digest`), else by its name.
        """
        return self._digest(lambda image: image.content)

    @cached_property
    def text_fingerprint(self) -> str:
        """SHA-256 of what is said and of where pictures stand, whatever they show."""
        return self._digest(lambda _: []) if self.images else self.fingerprint

    @cached_property
    def num_unread_images(self) -> int:
        """Pictures whose bytes are not known: the fingerprint has their sources instead."""
        return sum(image.digest is None for image in self.images)

    def _digest(self, shown: Callable[[Image], list[str]]) -> str:
        content = [
            [
                line.speaker.lower(),
                [part if isinstance(part, str) else shown(part) for part in line.segments],
            ]
            for line in self.utterances
        ]
        return hashlib.sha256(
            json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
        ).hexdigest()

    def with_digests(self, digests: Mapping[str, str]) -> Dialogue:
        """The dialogue with its pictures' digests, by their sources.

        Those that are not named stay as they are.
        """
        if not any(image.source in digests for image in self.images):
            return self
        return self._with_images(
            lambda image: replace(image, digest=digests.get(image.source, image.digest))
        )

    def with_sources(self, sources: Mapping[str, str]) -> Dialogue:
        """The dialogue with its pictures named anew, by the sources that they had.

        Those that are not named stay as they are.

        >>> line = Utterance("a", (Image("cat.png"),))
        >>> Dialogue("d", (line,)).with_sources({"cat.png": "../cat.png"}).images
        (Image(source='../cat.png', caption=''),)
        """
        return self._with_images(
            lambda image: replace(image, source=sources.get(image.source, image.source))
        )

    def _with_images(self, changed: Callable[[Image], Image]) -> Dialogue:
        utterances = list(self.utterances)
        for index in set(self.image_utterance_ids):
            line = utterances[index]
            segments = tuple(
                part if isinstance(part, str) else changed(part) for part in line.segments
            )
            utterances[index] = Utterance(line.speaker, segments)
        return Dialogue(self.id, tuple(utterances))


def whole_numbers(values: Iterable[int], what: str = "ids") -> tuple[int, ...]:
    """Ids or counts as a tuple of int, out of whatever holds whole numbers.

    Tensors and arrays of whole numbers count by their values, on whatever device they lie. Floats,
    truth values and masks are refused: which ids they mean would be a guess.

    Args:
        values: Numbers from 0 upwards: a list, a tuple, a set, a range, a tensor, an array, …
        what: What they are, for the error.

    Raises:
        ValueError: where they are anything else; the sentence says what was found and what to do.

    >>> import numpy
    >>> whole_numbers(numpy.array([3, 0]))
    (3, 0)
    >>> whole_numbers([0.5], "utterance ids")
    Traceback (most recent call last):
        ...
    ValueError: utterance ids hold 0.5 (float); write whole numbers that count from 0
    """
    if type(values) is tuple and all(type(item) is int and item >= 0 for item in values):
        return values  # what the project itself makes, many thousands of times
    remedy = "write whole numbers that count from 0"
    listed: Any = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(listed, (str, bytes, Mapping)) or not isinstance(listed, Iterable):
        found = described(values)
        raise ValueError(f"{what} are {found} ({type(values).__name__}); write a list of numbers")
    numbers: list[int] = []
    for item in listed:
        plain = item.tolist() if hasattr(item, "tolist") else item
        if isinstance(plain, bool):
            raise ValueError(
                f"{what} hold {plain}, as a mask does; write the places where it is true "
                "(`mask.nonzero()`)"
            )
        try:
            number = operator.index(plain)
        except TypeError:
            found = described(plain)
            raise ValueError(f"{what} hold {found} ({type(plain).__name__}); {remedy}") from None
        if number < 0:
            raise ValueError(f"{what} hold {number}; {remedy}")
        numbers.append(number)
    return tuple(numbers)


@dataclass(frozen=True, slots=True)
class Fragment:
    """The ids of the utterances and of the images that an answer names, in the order it names them.

    Tensors, arrays and lists of ids become tuples.

    Raises:
        ValueError: where ids are no whole numbers from 0 upwards; see `whole_numbers`.

    >>> Fragment((0, 3), ()).is_empty
    False
    """

    utterance_ids: tuple[int, ...] = ()
    image_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, what in (("utterance_ids", "utterance ids"), ("image_ids", "image ids")):
            object.__setattr__(self, name, whole_numbers(getattr(self, name), what))

    @classmethod
    def of(cls, utterance_ids: Iterable[int], image_ids: Iterable[int]) -> Fragment:
        """The fragment of these ids, ascending and without repeats."""
        named = cls(utterance_ids, image_ids)  # type: ignore[arg-type]
        return cls(tuple(sorted(set(named.utterance_ids))), tuple(sorted(set(named.image_ids))))

    @property
    def is_empty(self) -> bool:
        return not self.utterance_ids and not self.image_ids


@dataclass(frozen=True, slots=True)
class FilePrompt:
    """The prompt as a file has it: a released checkpoint must see its training prompt to the byte.

    `user` holds one `<image>` where each image goes. `system` is None where the file has no system
    message.
    """

    user: str
    system: str | None = None


def _no_meta() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Example:
    """One question to a dialogue, with the true answer where it is known.

    Args:
        dialogue: The dialogue.
        query: What is looked for.
        fragment: The true answer; None where the data has none (test files).
        prompt: The file's own prompt text; None where the data has no prompt (raw form, built
            dialogues).
        image_root: Folder that relative image sources are resolved against.
        meta: Whatever else the record says, kept as it is.
    """

    dialogue: Dialogue
    query: str
    fragment: Fragment | None = None
    prompt: FilePrompt | None = None
    image_root: Path | None = field(default=None, compare=False)
    meta: Mapping[str, Any] = field(default_factory=_no_meta, compare=False)

    @cached_property
    def key(self) -> str:
        """Names the (dialogue, query) pair.

        16 hex digits of SHA-256 over the dialogue's content and the query.
        """
        content = f"{self.dialogue.fingerprint}\n{self.query}"
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def __getstate__(self) -> dict[str, Any]:
        # a read-only view cannot be pickled, and examples go to worker processes
        return {**self.__dict__, "meta": dict(self.meta)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, meta=MappingProxyType(state["meta"]))

    def image_locations(self) -> Iterator[str | Path]:
        """Where each image lies.

        An address as it stands, or a path with the image root put in front.
        """
        for image in self.dialogue.images:
            if is_url(image.source):
                yield image.source
            else:
                yield (self.image_root or Path()) / image.source

    def parts(self, fragment: Fragment) -> list[str | Path]:
        """Texts (`str`) and pictures' files (`Path`) of a fragment in order, as encoders take it.

        A picture stands behind the words of its utterance. Utterances without words give no text,
        and ids that the dialogue does not have give nothing.

        >>> look = Utterance("a", ("look", Image("cat.png")))
        >>> chat = Dialogue("d", (look, Utterance("b", ("nice",))))
        >>> [str(part) for part in Example(chat, "cat").parts(Fragment((1, 0), (0,)))]
        ['look', 'cat.png', 'nice']
        """
        locations = list(self.image_locations())
        hosts = self.dialogue.image_utterance_ids
        utterance_ids, image_ids = set(fragment.utterance_ids), set(fragment.image_ids)
        found: list[str | Path] = []
        for utterance_id, utterance in enumerate(self.dialogue.utterances):
            if utterance_id in utterance_ids and utterance.text.strip():
                found.append(utterance.text)
            found += [
                Path(location)
                for image_id, location in enumerate(locations)
                if image_id in image_ids and hosts[image_id] == utterance_id
            ]
        return found
