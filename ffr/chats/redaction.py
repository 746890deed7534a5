"""Chats without the names of people: what may be shown to others, or handed on.

People become `Person 1`, `Person 2`, … in the order in which they first speak, telephone numbers
`Phone 1`, addresses `Email 1`, accounts `user1`. The numbers follow from the chats alone, so that
the same chats give the same words in every run, and nothing that leads back is kept anywhere.

What this does not do: names of people who never speak stay, unless they are given; so do nicknames
that are no part of a name, inflected names ("Anns"), places, and what a picture shows or a file
holds. A Chinese name of one character, and a word that is a name too (`may`, `will`), are replaced
where they are written as names: behind an @, or with a capital.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import unquote

from ffr.chats.account import Account
from ffr.chats.chat import Chat, Media, Message, Person, Reaction
from ffr.chats.dates import unmarked
from ffr.chats.redaction_names import NAME_BEGINS, NameForm, name_forms, pattern_of, untitled

_LINK = r"(?P<link>(?:https?://|www\.)[^\s<>\"）】」]+)"
_EMAIL = rf"(?P<email>{NAME_BEGINS}[A-Za-z0-9._%+-]{{1,64}}@[A-Za-z0-9-]{{1,63}}(?:\.[A-Za-z0-9-]{{1,63}}){{1,5}})"
_PHONE = r"(?P<phone>(?<![\w.,/-])(?:\+|00)?\(?\d(?:[\s().\u00a0\u2011/-]{0,2}\d){6,16}(?![\w]))"
_HANDLE = r"(?P<handle>(?<![\w.])@[\u2066-\u2069]?[\w.]{2,40})"
_DATE = re.compile(
    r"(?:\d{4}[./ -]\d{1,2}[./ -]\d{1,2}|\d{1,2}[./ -]\d{1,2}[./ -]\d{2,4})(?:\D.*)?$"
)
_MIN_PHONE_DIGITS = 7
_MIN_PLAIN_DIGITS = 10
_MIN_KEY_CHARS = 5
_SAME_DIGITS = 9
"""Numbers that end alike in so many digits are one, with and without the country's."""

_HOSTS = re.compile(
    r"(?:^|\.)(?:facebook|fb|instagram|twitter|x|t|wa|linkedin|tiktok|youtube|github|gitlab|weibo|zhihu|vk|"
    r"threads|line|m|snapchat|reddit|medium|pinterest|bsky|telegram|xing|twitch|soundcloud|flickr|"
    r"douyin|xiaohongshu|bilibili|paypal|venmo|signal|skype)\.(?:com|net|org|me|app|cn|ru|de|tv)$",
    re.IGNORECASE,
)
_BEFORE_USER_SAID = """
    in user users u people profile profiles add channel c space author authors member members ti id
"""
_BEFORE_USER = frozenset(_BEFORE_USER_SAID.split())
# first parts of addresses on such hosts that name no account
_NO_USER_SAID = """
    p reel reels watch groups events share sharer status stories explore search hashtag login joinchat
    feed shorts playlist pub jobs company school posts post photo photos video videos s r e about help
"""
_NO_USER = frozenset(_NO_USER_SAID.split())
_USER_KEYS = re.compile(
    r"(?<=[?&])(?P<key>user(?:name|id)?|uid|u|email|e?mail|phone|tel|name|account|from|to|sender|"
    r"recipient|profile|id|token|invite|ref)=(?P<value>[^&#]+)",
    re.IGNORECASE,
)


class Redaction:
    """Other names for the people of some chats.

    Args:
        chats: All that is to be shown, in a steady order; who speaks in two under one name is one.
        others: Further names to be replaced, of people who do not speak.

    >>> ann, bob = Person("1", "Ann Smith"), Person("2", "王小明")
    >>> said = (Message("1", "小明, mail me: ann@example.org"), Message("2", "ok ann"))
    >>> shown = Redaction([Chat("line", "Trip", {"1": ann, "2": bob}, said)]).chats[0]
    >>> [(message.sender, message.text) for message in shown.messages]
    [('Person 1', 'Person 2, mail me: Email 1'), ('Person 2', 'ok Person 1')]
    """

    def __init__(self, chats: Iterable[Chat], others: Iterable[str] = ()) -> None:
        self._labels: dict[str, str] = {}
        self._num_people = 0
        self._numbers: dict[str, dict[str, str]] = {"Phone": {}, "Email": {}, "user": {}}
        self._chats = tuple(chats)
        self._keys = [
            {key: self._label(person) for key, person in chat.people.items()}
            for chat in self._chats
        ]
        origins = (said.forwarded_from for chat in self._chats for said in chat.messages)
        for name in (*others, *dict.fromkeys(filter(None, origins))):
            if _folded(name) not in self._labels:
                self._labels[_folded(name)] = self._next()
        self._words: dict[str, tuple[str, ...]] = {}
        self._phones: dict[str, str] = {}
        self._pattern = re.compile(f"{_LINK}|{_EMAIL}|{_PHONE}|{_HANDLE}")
        self._compile()
        self.chats: tuple[Chat, ...] = tuple(
            _redacted_chat(chat, labels, self)
            for chat, labels in zip(self._chats, self._keys, strict=True)
        )

    def name(self, name: str) -> str:
        """The other name of a person; whoever is unknown gets the next.

        >>> Redaction([]).name("Ann")
        'Person 1'
        """
        known = self._labels.get(_folded(name))
        if known is None:
            known = self._labels[_folded(name)] = self._next()
            self._compile()
        return known

    def text(self, text: str) -> str:
        """A text with other names, numbers, addresses and accounts.

        Numbers, addresses and accounts are counted as they come: where only a part is shown, they
        are the same each time if all texts were given in their order before.

        >>> Redaction([], ["Ann"]).text("Ann: +49 170 1234567, https://t.me/ann")
        'Person 1: Phone 1, https://t.me/user1'
        """
        return self._pattern.sub(self._replaced, text) if text else text

    def _label(self, person: Person) -> str:
        """The label of a person, under all names they were seen with."""
        names = [name for name in (person.name, *person.other_names) if _folded(name)]
        label = self._labels.get(_folded(person.name)) or self._next()
        # a short key, such as a number in a list, stands in texts for other things
        for name in [*names, *([person.key] if len(person.key) >= _MIN_KEY_CHARS else [])]:
            self._labels.setdefault(_folded(name), label)
        return label

    def _next(self) -> str:
        self._num_people += 1
        return f"Person {self._num_people}"

    def _compile(self) -> None:
        """Puts all names, and the parts of them, into one pattern, the longest first."""
        owners: dict[str, dict[str, None]] = {}
        forms: set[NameForm] = set()
        for folded, label in self._labels.items():
            digits = _digits(folded)
            if len(digits) >= _MIN_PHONE_DIGITS and not any(char.isalpha() for char in folded):
                self._phones[digits[-_SAME_DIGITS:]] = label
                continue
            for form in name_forms(folded):
                owners.setdefault(form.word, {})[label] = None
                forms.add(form)
        # a whole name is its owner's, whoever else has it as a part
        owners |= {folded: {label: None} for folded, label in self._labels.items()}
        self._words = {word: tuple(labels) for word, labels in owners.items()}
        parts = [_LINK, _EMAIL, _PHONE]
        if forms:
            parts.append(f"(?P<name>@?\u2068?(?:{pattern_of(forms)})\u2069?)")
        self._pattern = re.compile("|".join([*parts, _HANDLE]))

    def _replaced(self, match: re.Match[str]) -> str:
        said = match[0]
        if match.lastgroup == "link":
            return self._link(said)
        if match.lastgroup == "email":
            return self._labels.get(said.lower()) or self._numbered("Email", said.lower())
        if match.lastgroup == "phone":
            return self._phone(said)
        sign = "@" if said.startswith("@") else ""
        name = unmarked(said.removeprefix("@"))
        if match.lastgroup == "handle":
            digits = _digits(name)
            is_number = digits == name and len(digits) >= _MIN_PHONE_DIGITS
            return sign + (self._phone(name) if is_number else self._numbered("user", name.lower()))
        return sign + (self._owner(name) or name)

    def _owner(self, said: str) -> str | None:
        """Whose name it is; both, where two people share a part of it."""
        labels = self._words.get(_folded(said)) or self._words.get(untitled(_folded(said)))
        if labels is None:
            return None
        first, *more = labels
        return "/".join([first, *(label.removeprefix("Person ") for label in more)])

    def _phone(self, said: str) -> str:
        digits = _digits(said)
        tail = digits[-_SAME_DIGITS:]
        if tail in self._phones:
            return self._phones[tail]
        # seven digits in a row may be any number
        is_plain = len(digits) == len(said) and len(digits) < _MIN_PLAIN_DIGITS
        if is_plain or _DATE.match(said) is not None:
            return said
        return self._numbered("Phone", tail)

    def _numbered(self, kind: str, said: str) -> str:
        known = self._numbers[kind]
        blank = "" if kind == "user" else " "
        return known.setdefault(said, f"{kind}{blank}{len(known) + 1}")

    def _link(self, link: str) -> str:
        """A link whose account, and whatever else in it names a person, is another."""
        trail = link[len(link.rstrip(".,;:!?)'")) :]
        link = link[: len(link) - len(trail)]
        scheme, _, rest = link.rpartition("//")
        rest, mark, query = _split_query(rest)
        host, *path = rest.split("/")
        if "@" in host:
            host = self._numbered("user", host.rpartition("@")[0]) + "@" + host.rpartition("@")[2]
        is_host = _HOSTS.search(host.rpartition("@")[2].partition(":")[0]) is not None
        for place, part in enumerate(path):
            before = path[place - 1].lower() if place else ""
            is_user = part.startswith(("@", "~")) or (
                is_host and ((not place and part.lower() not in _NO_USER) or before in _BEFORE_USER)
            )
            if part and is_user and not (is_host and not place and part.lower() in _BEFORE_USER):
                path[place] = self._account_name(unquote(part))
            else:
                path[place] = self._joined(part)
        query = _USER_KEYS.sub(
            lambda match: f"{match['key']}={self._numbered('user', match['value'].lower())}",
            mark + query,
        )
        return (
            f"{scheme}{'//' if scheme else ''}{'/'.join([host, *path])}{self._joined(query)}{trail}"
        )

    def _account_name(self, said: str) -> str:
        """Another name for an account in a link, with its sign."""
        name = said.lstrip("@~+")
        owner = self._phones.get(_digits(name)[-_SAME_DIGITS:]) if name.isdigit() else None
        other = owner.replace(" ", "-").lower() if owner else self._numbered("user", name.lower())
        return said[: len(said) - len(name)] + other

    def _joined(self, part: str) -> str:
        """A part of a link with other names, which have no blanks there."""
        plain = re.sub(r"[-_.+]", " ", unquote(part))
        found = self._pattern.sub(self._replaced, plain)
        return part if found == plain else found.replace(" ", "-").lower()


def redacted(chat: Chat) -> Chat:
    """A chat with other names for people, numbers, addresses and accounts; see `Redaction`.

    A media's `file` still leads to the file of the export: who shows a chat shows `name`.

    >>> redacted(Chat("line", "Ann", {"a": Person("a", "Ann")}, (Message("a", "I'm Ann"),))).title
    'Person 1'
    """
    return Redaction([chat]).chats[0]


def _redacted_chat(chat: Chat, labels: dict[str, str], by: Redaction) -> Chat:
    people: dict[str, Person] = {}
    for key, person in chat.people.items():
        is_me = person.is_me or (labels[key] in people and people[labels[key]].is_me)
        people[labels[key]] = Person(labels[key], labels[key], is_me=is_me)
    ids: dict[str, str] = {}
    for message in chat.messages:
        if message.id:
            ids.setdefault(message.id, f"m{len(ids) + 1}")
    messages = tuple(_redacted_message(message, labels, ids, by) for message in chat.messages)
    return replace(
        chat,
        title=by.text(chat.title),
        people=people,
        messages=messages,
        account=_redacted_account(chat.account, by),
        id="",
    )


def _redacted_message(
    message: Message, labels: dict[str, str], ids: dict[str, str], by: Redaction
) -> Message:
    origin = message.forwarded_from
    return replace(
        message,
        sender=None if message.sender is None else labels[message.sender],
        text=by.text(message.text),
        media=tuple(Media(item.kind, by.text(item.name), item.file) for item in message.media),
        id=ids.get(message.id, ""),
        reply_to=ids.get(message.reply_to, ""),
        reactions=tuple(
            Reaction(
                item.sign,
                tuple(labels.get(key) or by.name(key) for key in item.people),
                item.count,
            )
            for item in message.reactions
        ),
        forwarded_from=by.name(origin) if origin else "",
    )


def _redacted_account(account: Account, by: Redaction) -> Account:
    return replace(
        account,
        examples=[by.text(said) for said in account.examples],
        decisions=list(account.decisions),
        faults=[by.text(said) for said in account.faults],
    )


def _folded(name: str) -> str:
    return " ".join(unmarked(name).lower().lstrip("~@").split())


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def _split_query(rest: str) -> tuple[str, str, str]:
    for mark in "?#":
        head, found, tail = rest.partition(mark)
        if found:
            return head, found, tail
    return rest, "", ""
