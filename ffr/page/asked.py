"""What may be asked of the page's server: the parameters of each question, with their bounds.

What is declared here is what is checked, and what the description of the API says.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import QueryParams

from ffr.corpus.filters import HAS
from ffr.errors import UsageError
from ffr.text import one_line

_LARGEST = 2**53 - 1
"""The largest whole number that a script in a browser has exactly."""

_DAY = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$"

MAX_LINES = 200
"""Messages of a chat that are handed out at once."""

MAX_FRAGMENT = 4000
"""Messages that can be taken along at once."""

Number = Annotated[int, Field(ge=0, le=_LARGEST)]


class Asked(BaseModel):
    """A question: no parameter that is not named here, and none twice but lists."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NothingAsked(Asked):
    """A question without parameters."""


class ChatAsked(Asked):
    """About one chat."""

    chat: Number = Field(description="The number of a chat")


class LinesAsked(ChatAsked):
    """Some messages of a chat."""

    start: Number = Field(0, description="The place of the first, from 0")
    count: int = Field(50, ge=1, le=MAX_LINES, description="How many at most")


class NextAsked(ChatAsked):
    """The next message of a person."""

    place: Number = Field(description="The place in the chat from which is looked")
    person: str = Field(max_length=1000, description="The key of a person of the chat")
    back: bool = Field(False, description="Look for the one before")


class LineAsked(Asked):
    """About one message."""

    line: Number = Field(description="The number of a message")


class PictureAsked(LineAsked):
    """About one picture of a message."""

    number: Number = Field(description="Its place among the message's files, from 0")


class SearchAsked(Asked):
    """What is looked for, and what narrows it down."""

    q: str = Field(min_length=1, max_length=2000, pattern=r"\S", description="What is looked for")
    chat: list[Number] = Field(
        [], max_length=1000, description="Numbers of chats; none for all of them"
    )
    by: list[str] = Field(
        [], max_length=100, description="Names of people, one of whom speaks in it"
    )
    since: str = Field("", pattern=_DAY, description="Its first day, as 2023-03-31")
    until: str = Field("", pattern=_DAY, description="Its last day, which counts")
    has: str = Field(
        "",
        pattern=f"^({'|'.join(HAS)})?$",
        description="What it carries",
        json_schema_extra={"enum": ["", *HAS]},
    )
    top: int = Field(10, ge=1, le=50, description="How many hits at most")


class FragmentAsked(Asked):
    """Messages to take along as a file."""

    line: list[Number] = Field(
        min_length=1, max_length=MAX_FRAGMENT, description="Numbers of messages, of one chat"
    )
    form: Literal["txt", "json", "zip"] = Field(
        "txt", description="Words; what the API says of them; both, with their pictures"
    )


def raw_values(query: QueryParams, asked: type[Asked]) -> dict[str, object]:
    """The parameters of an address, those that may stand there often as lists."""
    values: dict[str, object] = {}
    for name in query:
        given = query.getlist(name)
        field = asked.model_fields.get(name)
        is_list = field is not None and get_origin(field.annotation) is list
        values[name] = given if is_list or len(given) > 1 else given[0]
    return values


def day_of(written: str, what: str) -> date | None:
    """A day of the calendar; None where none is written.

    Raises:
        UsageError: where there is no such day.

    >>> day_of("2023-03-31", "since"), day_of("", "since")
    (datetime.date(2023, 3, 31), None)
    """
    if not written:
        return None
    try:
        found = date.fromisoformat(written)
    except ValueError:
        raise UsageError(f"{what} {one_line(written, 20)} is no day of the calendar") from None
    # the day after the last one that there is cannot be said
    if found == date.max:
        raise UsageError(f"{what} {written} is too late; give a day before it")
    return found
