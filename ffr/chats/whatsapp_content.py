"""What a WhatsApp message is: words, media, a poll, a call, or a line of the app.

Structure decides first (marks, brackets, the names of files and whether they are there), words of
`whatsapp_words` second.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from ffr.chats.chat import Kind, Media, MediaKind
from ffr.chats.dates import MARKS
from ffr.chats.whatsapp_words import (
    ATTACHED,
    DELETED,
    EDITED,
    LIVE_PLACES,
    MAX_PHRASE_CHARS,
    OMITTED,
    is_call,
    is_notice,
    is_once,
    may_be_of_app,
    phrase,
    stem_kind,
)

_MARK = "\u200e"
_M = f"[{MARKS}]{{0,6}}"
# as phones name files: 00000019-PHOTO-2024-03-15-21-15-48.jpg, IMG-20231231-WA0012.jpg
_OWN_NAME = re.compile(
    r"(?:\d{6,10}-[^/\\\n]{1,200}|[A-Z]{3,4}-\d{8}-WA\d{3,8}[^/\\\n]{0,20})\.\w{1,8}$",
    re.IGNORECASE,
)
# <attached: NAME>
_BRACKETED = re.compile(
    rf"{_M}<{_M}(?P<word>[^<>:：\n]{{1,40}})[:：]{_M}[ \u00a0\u202f]?{_M}(?P<name>[^<>\n]{{1,255}}?){_M}>"
)
# NAME (file attached)
_PARENTHESISED = re.compile(
    rf"{_M}(?P<name>[^/\\\n:*?\"<>|]{{1,255}}\.\w{{1,8}}){_M} ?"
    rf"[(（]{_M}(?P<word>[^()（）\n]{{1,40}}){_M}[)）]{_M}$"
)
_BARE_NAME = re.compile(rf"{_M}(?P<name>[A-Z]{{3,4}}-\d{{8}}-WA\d{{3,8}}\.\w{{1,8}}){_M}$")
_IN_ANGLES = re.compile(rf"{_M}<(?P<said>[^<>\n]{{2,{MAX_PHRASE_CHARS}}})>{_M}$")
_EDITED = re.compile(rf"[ \u00a0\u202f]?{_M}<{_M}(?P<said>[^<>\n]{{2,{MAX_PHRASE_CHARS}}})>{_M}$")
_PLACE = re.compile(
    rf"{_M}(?:[^\n:]{{1,30}}: )?https?://(?:maps\.google\.com/(?:maps)?\?q=|goo\.gl/maps/|"
    r"maps\.app\.goo\.gl/|(?:www\.)?google\.[a-z.]{2,6}/maps[/?@]|maps\.apple\.com/|"
    r"(?:www\.)?foursquare\.com/v/)\S+$"
)
_LINK = re.compile(r"(?:https?://|www\.)\S+$")
_POLL_HEAD = re.compile(rf"{_M}[^\W\d_][^\n:：]{{1,30}}[:：]{_M}$")
_POLL_OPTION = re.compile(rf"{_M}[^\n:：]{{2,30}}[:：] ?.+ [(（]{_M}\d+ ?[^()]{{0,30}}[)）]{_M}$")
_SUFFIXES: dict[str, MediaKind] = {
    **dict.fromkeys(
        ("jpg", "jpeg", "png", "heic", "heif", "gif", "bmp", "tiff", "avif"), "picture"
    ),
    **dict.fromkeys(("mp4", "mov", "3gp", "mkv", "avi", "webm", "m4v"), "video"),
    **dict.fromkeys(("opus", "ogg", "oga", "m4a", "mp3", "aac", "amr", "wav", "caf"), "voice"),
}
_MEDIA_KINDS = get_args(MediaKind)
# without one of these nothing below finds anything but words
_SPECIAL = re.compile(r"[<(（•\u200e]|://|-wa\d|^www\.", re.IGNORECASE)
_MAX_APP_CHARS = 400

Find = Callable[[str], str | None]
"""A file's name as a message says it → the file of the export; None where it is not there."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a message is; see `Message`."""

    text: str
    kind: Kind = "text"
    media: tuple[Media, ...] = ()
    is_edited: bool = False
    is_deleted: bool = False


def content_of(text: str, find: Find, *, is_by_app: bool = False) -> Content:
    r"""What a person's message is.

    Args:
        text: All that stands behind the name, with its marks.
        find: Looks a file up in the export.
        is_by_app: Whether the text bears the mark of what the app wrote in a person's name.

    >>> content_of("<Media omitted>", lambda name: None).media
    (Media(kind='file', name='', file=None),)
    >>> shown = content_of("IMG-20231231-WA0012.jpg (file attached)\nus!", lambda name: name)
    >>> shown.kind, shown.text, shown.media[0].file
    ('picture', 'us!', 'IMG-20231231-WA0012.jpg')
    """
    # most messages are words alone
    if not is_by_app and _SPECIAL.search(text) is None and not may_be_of_app(text):
        return Content(text)
    is_edited = False
    if text.endswith((">", ">" + _MARK)) and (match := _edit_mark(text)) is not None:
        text, is_edited = text[: match.start()], True
    first, _, more = text.partition("\n")
    found = _attached(text, first, more, find)
    if found is None and len(first) <= _MAX_APP_CHARS:
        found = _said_by_app(first, more, is_by_app)
    if found is None:
        found = _plain(text, more)
    if is_edited:
        return Content(found.text, found.kind, found.media, True, found.is_deleted)
    return found


def _edit_mark(text: str) -> re.Match[str] | None:
    """What says at the end of a message that it was edited."""
    match = _EDITED.search(text, max(0, len(text) - 2 * MAX_PHRASE_CHARS))
    if match is None:
        return None
    said = match["said"]
    if phrase(said) in EDITED:
        return match
    # in a language that is not known, the mark shows that the app wrote it behind the words
    is_marked = _MARK in match[0] and match.start() > 0 and "." not in said and ":" not in said
    return match if is_marked and phrase(said) not in OMITTED else None


def _attached(text: str, first: str, more: str, find: Find) -> Content | None:
    """A message with files that have names."""
    if "<" in text:
        media: list[Media] = []
        rest, end = [], 0
        for match in _BRACKETED.finditer(text):
            name = match["name"]
            file = find(name)
            is_own = _OWN_NAME.match(name) is not None
            if file or is_own or (phrase(match["word"]) in ATTACHED and "." in name):
                media.append(Media(media_kind(name), name, file))
                rest.append(text[end : match.start()])
                end = match.end()
        if media:
            return _with_media("".join([*rest, text[end:]]).replace(_MARK, ""), media)
    if first.endswith((")", "）", ")" + _MARK)):
        named = _PARENTHESISED.match(first)
        if named is not None:
            name, file = named["name"].strip(), find(named["name"])
            is_own = _OWN_NAME.match(name) is not None
            if file or is_own or phrase(named["word"]) in ATTACHED:
                return _with_media(more, [Media(media_kind(name), name, file)])
    if "-WA" in first:
        bare = _BARE_NAME.match(first)
        if bare is not None:
            name = bare["name"]
            return _with_media(more, [Media(media_kind(name), name, find(name))])
    return None


def _with_media(text: str, media: list[Media]) -> Content:
    kind: Kind = media[0].kind
    if media[0].name.lower().endswith(".vcf"):
        kind = "contact"
    return Content(text.strip(), kind, tuple(media))


def media_kind(name: str) -> MediaKind:
    """What a file is by its name.

    >>> media_kind("STK-20240101-WA0001.webp"), media_kind("00000004-GIF-2024-01-01.mp4")
    ('sticker', 'video')
    """
    lower = name.lower()
    suffix = lower.rpartition(".")[2]
    if suffix == "webp":
        return "picture" if lower.startswith("img-") or "-photo-" in lower else "sticker"
    return _SUFFIXES.get(suffix, "file")


def _said_by_app(first: str, more: str, is_by_app: bool) -> Content | None:
    """Words of the app instead of a message: left-out media, a deleted message, a call."""
    if not (is_by_app or "<" in first or "•" in first or may_be_of_app(first)):
        return None
    key = phrase(first) if len(first) <= 2 * MAX_PHRASE_CHARS else ""
    # "… nicht einmal WhatsApp": a notice may have the words for what can be opened once
    if not key or is_notice(first):
        return None
    is_alone = not more.strip()
    if is_alone and is_call(first, is_marked=is_by_app):
        return Content(_unmarked(first), "call")
    if is_alone and key in LIVE_PLACES:
        return Content(_unmarked(first), "place")
    if key in OMITTED or (is_by_app and (_is_left_out(key) or is_once(key))):
        return _omitted(key, more.strip())
    # documents are named before they are left out: "plan.pdf • 2 pages document omitted"
    if "•" in first and _MARK in first:
        said = first.rpartition(_MARK)[2]
        if phrase(said) in OMITTED or _is_left_out(phrase(said)):
            named = first[: -len(said)].replace(_MARK, "").strip()
            name = named.partition("•")[0].strip()
            return Content(more.strip(), "file", (Media("file", name),))
    if is_alone and (key in DELETED or key.startswith(_BY_ADMIN)):
        return Content("", is_deleted=True)
    if _IN_ANGLES.match(first) is not None and phrase(first) not in EDITED and _is_several(key):
        return _omitted(key, more.strip())
    if is_by_app and more and _is_poll(first, more):
        return None  # the lines behind are its options
    return None


_BY_ADMIN = tuple(
    f"{said} " for said, language in DELETED.items() if language in ("en", "de", "es", "pt")
)


def _is_left_out(key: str) -> bool:
    """Whether words of the app name a kind of media and say little more."""
    words = key.split()
    return len(key) <= 40 and len(words) <= 4 and stem_kind(key) is not None


def _is_several(key: str) -> bool:
    """Whether words in angle brackets are more than one, as no one writes by hand."""
    has_digits = any(char.isdigit() for char in key)
    is_without_blanks = any(ord(char) > 0x0E00 for char in key)
    is_said = not any(char in key for char in "=/\\@{}[]|*#;_\"'") or "'" in key
    return not has_digits and is_said and (" " in key or (is_without_blanks and len(key) >= 4))


def _omitted(key: str, caption: str) -> Content:
    kind = stem_kind(key)
    if kind == "contact":
        return Content(caption, "contact", (Media("file"),))
    if kind in _MEDIA_KINDS:
        return Content(caption, kind, (Media(kind),))  # type: ignore[arg-type]
    return Content(caption, "file", (Media("file"),))


def _is_poll(first: str, more: str) -> bool:
    lines = [line for line in more.split("\n") if line]
    return (
        _POLL_HEAD.match(first) is not None
        and len(lines) >= 2
        and _POLL_OPTION.match(lines[-1]) is not None
    )


def _plain(text: str, more: str) -> Content:
    """A message of words."""
    if more and len(text) <= 1 << 16 and _is_poll(text.partition("\n")[0], more):
        return Content(_unmarked(text), "poll")
    if text.startswith(_MARK):
        text = text.lstrip(_MARK)
    if len(text) <= 2000 and not more and ("://" in text or text.startswith("www.")):
        if _PLACE.match(text) is not None:
            return Content(_unmarked(text), "place")
        if _LINK.match(text) is not None:
            return Content(text, "link")
    return Content(text)


def _unmarked(text: str) -> str:
    return text.replace(_MARK, "").strip()


def is_app_speaking(text: str, content: Content) -> bool:
    """Whether words that bear the app's mark are no message of the person they stand under.

    Args:
        text: The words.
        content: What they were read as.

    >>> is_app_speaking("Ann left", Content("Ann left"))
    True
    """
    if content.kind != "text" or content.is_deleted or content.is_edited:
        return False
    return bool(content.text) and len(text) <= _MAX_APP_CHARS
