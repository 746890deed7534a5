"""The XML in messages of WeChat: pictures, cards, quotes, places, lines of the app.

It comes from strangers. What declares a document type is refused, so that no entity is ever
expanded; size, depth and number of its parts are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from ffr.chats.chat import Kind

MAX_CHARS = 1 << 20
_MAX_DEPTH = 40
_MAX_PARTS = 20_000
_MAX_LINKS = 20
_APP_WORDS = (
    "revokemsg/replacemsg",
    "revokemsg/content",
    "pat/template",
    "sysmsgtemplate/content_template/template",
    "sysmsgtemplate/content_template/plain",
)
_UNMARKED = re.compile(r"<!\[CDATA\[([^\]]*)\]\]>")
_TAGS = re.compile(r"<[^<>]{0,2000}>")


class _RefusedError(Exception):
    """What is no XML of a message."""


@dataclass
class Part:
    """An element: its attributes, the text that stands in it, the elements inside.

    Args:
        name: The tag.
        attributes: By name.
        text: Without that of the elements inside.
        parts: The elements inside, in order.
    """

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""
    parts: list[Part] = field(default_factory=list)

    def first(self, path: str) -> Part:
        """The first element on a path of tags below this one; an empty one where there is none.

        >>> parsed("<msg><img md5='ab'/></msg>").first("img").attributes
        {'md5': 'ab'}
        """
        here = self
        for name in path.split("/"):
            found = next((part for part in here.parts if part.name == name), None)
            if found is None:
                return Part(name)
            here = found
        return here

    def said(self, path: str) -> str:
        """The text of the first element on a path, without blanks around it."""
        return self.first(path).text.strip()


def parsed(text: str) -> Part | None:
    """The root of the XML in a text; None where there is none that can be trusted.

    Args:
        text: What a message holds; the name of a sender may stand in front of the XML.

    >>> parsed('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>') is None, parsed("<a>1<b/></a>").text
    (True, '1')
    """
    begin = text.find("<")
    if begin < 0 or len(text) > MAX_CHARS:
        return None
    top = Part("")
    open_parts = [top]
    num_parts = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal num_parts
        num_parts += 1
        if num_parts > _MAX_PARTS or len(open_parts) > _MAX_DEPTH:
            raise _RefusedError
        part = Part(name, attributes)
        open_parts[-1].parts.append(part)
        open_parts.append(part)

    def end(_: str) -> None:
        part = open_parts.pop()
        part.text = "".join(texts.pop(id(part), ()))

    def said(data: str) -> None:
        texts.setdefault(id(open_parts[-1]), []).append(data)

    def refuse(*_: object) -> None:
        raise _RefusedError

    texts: dict[int, list[str]] = {}
    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = said
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text[begin:].strip().encode("utf-8", "replace"), True)
    except (expat.ExpatError, _RefusedError, ValueError):
        return None
    return top.parts[0] if top.parts else None


@dataclass(frozen=True)
class Card:
    """What a message of type 49 shows.

    Args:
        kind: What it is.
        text: Its words.
        reply_to: The server's id of the message that it quotes.
        reply_from: The account that sent that one.
        reply_time: When it did, in Unix seconds as written.
        is_forward: Whether it hands on others' messages.
        file: The name of a file that it carries.
    """

    kind: Kind
    text: str
    reply_to: str = ""
    reply_from: str = ""
    reply_time: str = ""
    is_forward: bool = False
    file: str = ""


# types of an `appmsg`
_REPLY, _TRANSFER, _PAT = "57", "2000", "62"
_FILES, _FORWARDS, _PACKETS = ("6", "74"), ("19", "40"), ("2001", "2003")
_STICKERS, _TEXTS, _PLACES = ("8", "15"), ("1", "53", "87"), ("17",)


def card_of(root: Part) -> Card:
    r"""The card in the XML of a message.

    >>> card_of(parsed("<msg><appmsg><title>Cake</title><type>5</type>"
    ...                "<url>http://x.org</url></appmsg></msg>")).text
    'Cake\nhttp://x.org'
    """
    card = root if root.name == "appmsg" else root.first("appmsg")
    type_of = card.said("type")
    title, about, url = card.said("title"), card.said("des"), card.said("url")
    if type_of == _REPLY:
        quote = card.first("refermsg")
        sender = quote.said("chatusr") or quote.said("fromusr")
        return Card("text", title, quote.said("svrid"), sender, quote.said("createtime"))
    if type_of in _FILES:
        return Card("file", "", file=title)
    if type_of in _FORWARDS:
        return Card("text", _lines(title, about), is_forward=True)
    if type_of == _TRANSFER:
        pay = card.first("wcpayinfo")
        return Card("text", _lines(title, pay.said("feedesc"), pay.said("pay_memo")))
    if type_of in _PACKETS:
        pay = card.first("wcpayinfo")
        return Card("text", _lines(pay.said("scenetext") or title, pay.said("sendertitle")))
    if type_of == _PAT:
        return Card("system", title or card.said("patMsg/records/record/templete"))
    if type_of in _STICKERS:
        return Card("sticker", title)
    if type_of in _TEXTS:
        return Card("text", title or about)
    if type_of in _PLACES:
        return Card("place", title or about)
    feed = [card.said(f"finderFeed/{name}") for name in ("nickname", "desc")]
    return Card("link", _lines(title, about, *feed, url))


def _lines(*parts: str) -> str:
    return "\n".join(dict.fromkeys(part for part in parts if part))


def app_words(text: str) -> str:
    """The words of a line of the app: plain, with markup that is not always whole, or XML.

    >>> app_words('"Ann" recalled <a href="x">a message</a>')
    '"Ann" recalled a message'
    >>> app_words("<sysmsg><revokemsg><msgid>7</msgid><replacemsg><![CDATA[Ann recalled]]>"
    ...           "</replacemsg></revokemsg></sysmsg>")
    'Ann recalled'
    """
    root = parsed(text) if "<" in text else None
    if root is not None:
        for path in _APP_WORDS:
            said = root.said(path)
            if said:
                return _filled(said, root.first("sysmsgtemplate/content_template/link_list"))
    text = _UNMARKED.sub(lambda match: match[1], text)
    return " ".join(_TAGS.sub("", text).split())


def _filled(template: str, links: Part) -> str:
    """A line in which `$name$` stands for people that are listed beside it."""
    for link in links.parts[:_MAX_LINKS]:
        names = [part.said("nickname") for part in link.first("memberlist").parts]
        said = "、".join(name for name in names if name) or link.said("plain") or link.said("title")
        template = template.replace(f"${link.attributes.get('name', '')}$", said)
    return template
