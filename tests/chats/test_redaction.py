"""Names, numbers, addresses and accounts are others in what is shown, steadily."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffr.chats.account import Account
from ffr.chats.chat import Chat, Media, Message, Person, Reaction
from ffr.chats.redaction import Redaction, redacted

NAMES = [
    "Ann Smith",
    "王小明",
    "김지민",
    "Bob Smith",
    "+49 170 1234567",
    "May",
    "Zoë 🎉",
    "خالد",
    "欧阳娜娜",
    "🎉",
    "สมชาย",
    "U04ABCDEF",
    "Groß",
]


def a_chat(*messages: Message, names: list[str] = NAMES, title: str = "") -> Chat:
    return Chat("whatsapp", title, {name: Person(name, name) for name in names}, messages)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("hi ANN, ann and annika", "hi Person 1, Person 1 and annika"),
        ("Ann  Smith's cat", "Person 1's cat"),
        ("the Smiths; Smith", "the Smiths; Person 1/4"),
        ("我和Ann去找小明吧，王总也去", "我和Person 1去找Person 2吧，Person 2也去"),
        ("지민이 왔어", "Person 3이 왔어"),
        ("call +49 (170) 123-4567 or 0170 1234567", "call Person 5 or Person 5"),
        ("13812345678, then 13812345678", "Phone 1, then Phone 1"),
        ("on 2023-12-31 21:15, 31/12/2023: 1000000", "on 2023-12-31 21:15, 31/12/2023: 1000000"),
        ("in may I saw May", "in may I saw Person 6"),
        ("Zoe, ZOË! 🎉", "Person 7, Person 7! 🎉"),
        ("قال خالد نعم", "قال Person 8 نعم"),
        ("娜娜 and 欧阳", "Person 9 and Person 9"),
        ("ไปกับสมชายนะ", "ไปกับPerson 11นะ"),
        ("<@U04ABCDEF>", "<@Person 12>"),
        ("groß", "Person 13"),
        ("@\u2068Ann Smith\u2069 @annika99 @491701234567", "@Person 1 @user1 @Person 5"),
        ("mail Ann.Smith@example.org!", "mail Email 1!"),
        ("https://t.me/foo, (https://x.com/FOO)", "https://t.me/user1, (https://x.com/user1)"),
        ("https://instagram.com/p/ABC", "https://instagram.com/p/ABC"),
        ("https://wa.me/491701234567", "https://wa.me/person-5"),
        ("https://me:secret@example.org/a", "https://user1@example.org/a"),
        (
            "https://example.org/ann-smith?user=foo&b=2",
            "https://example.org/person-1?user=user1&b=2",
        ),
        ("https://example.org/a_b/c.html", "https://example.org/a_b/c.html"),
    ],
)
def test_texts(said: str, shown: str) -> None:
    assert Redaction([a_chat()]).text(said) == shown


def test_everything_of_a_chat_that_names_people() -> None:
    account = Account(examples=["WhatsApp Chat with Ann.txt:3: Ann???"], faults=["Ann is cut off"])
    chat = Chat(
        "telegram",
        "Ann and Bob",
        {"id-of-ann": Person("id-of-ann", "Ann", ("Annie",)), "b": Person("b", "Bob", is_me=True)},
        (
            Message(
                "id-of-ann", "I'm Annie", id="x1", media=(Media("file", "Ann's.pdf", "f.pdf"),)
            ),
            Message(
                "b",
                "hi id-of-ann",
                id="x2",
                reply_to="x1",
                forwarded_from="Carl",
                reactions=(Reaction("+", ("id-of-ann",)),),
            ),
            Message(None, "Bob left"),
        ),
        account,
        "12345@chat",
    )
    shown = redacted(chat)

    assert (shown.title, shown.id) == ("Person 1 and Person 2", "")
    assert shown.people == {
        "Person 1": Person("Person 1", "Person 1"),
        "Person 2": Person("Person 2", "Person 2", is_me=True),
    }
    assert [(m.sender, m.text, m.id, m.reply_to) for m in shown.messages] == [
        ("Person 1", "I'm Person 1", "m1", ""),
        ("Person 2", "hi Person 1", "m2", "m1"),
        (None, "Person 2 left", "", ""),
    ]
    assert shown.messages[0].media == (Media("file", "Person 1's.pdf", "f.pdf"),)
    assert shown.messages[1].forwarded_from == "Person 3"
    assert shown.messages[1].reactions == (Reaction("+", ("Person 1",)),)
    assert shown.account.examples == ["WhatsApp Chat with Person 1.txt:3: Person 1???"]
    assert shown.account.faults == ["Person 1 is cut off"]


def test_one_person_of_two_chats_has_one_name() -> None:
    first = a_chat(Message("Ann", "hi"), names=["Ann"])
    second = a_chat(Message("Ann", "Bob?"), Message("Bob", "Ann!"), names=["Bob", "Ann"])
    shown = Redaction([first, second], others=["Carl"]).chats

    assert [message.text for chat in shown for message in chat.messages] == [
        "hi",
        "Person 2?",
        "Person 1!",
    ]
    assert list(shown[1].people) == ["Person 2", "Person 1"]


def test_a_later_export_gives_the_same_names() -> None:
    said = [Message("Ann", "call 0170 1234567"), Message("Bob", "bob@example.org")]
    earlier = redacted(a_chat(*said, names=["Ann", "Bob"]))
    later = redacted(
        a_chat(
            *said, Message("Carl", "0171 7654321, bob@example.org"), names=["Ann", "Bob", "Carl"]
        )
    )

    assert later.messages[:2] == earlier.messages
    assert later.messages[2].text == "Phone 2, Email 1"


def test_a_whole_name_is_its_owners() -> None:
    shown = Redaction([a_chat(names=["Ann Smith", "Ann"])])

    assert shown.text("Ann and Ann Smith") == "Person 2 and Person 1"


def test_many_and_strange_names_take_no_time() -> None:
    names = [f"Name{number} Of{number % 7}" for number in range(3000)]
    strange = ["a" * length for length in range(1, 300)] + [
        ".*",
        "(",
        "[a-z]",
        "\\",
        "\n",
        " ",
        "\u202e",
    ]
    shown = Redaction([], [*names, *strange])

    assert shown.text("to name2999 of3 and (.*)") == "to Person 3000 and (.*)"
    assert shown.text("aaaa") == "Person 3004"


@given(
    st.lists(
        st.one_of(st.sampled_from([*NAMES, "小明", "ann", "SMITH"]), st.sampled_from(" ,.!?:\n")),
        max_size=12,
    )
)
def test_no_name_is_left(pieces: list[str]) -> None:
    text = " ".join(pieces)
    shown = redacted(a_chat(Message("Ann Smith", text))).messages[0].text

    assert not re.search(
        "ann|smith|小明|지민|1234567|zoë|خالد|娜娜|สมชาย|groß|04abc", shown.lower()
    )
    assert shown == redacted(a_chat(Message("Ann Smith", text))).messages[0].text
