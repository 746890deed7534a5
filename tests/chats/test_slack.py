"""A workspace of Slack: channels, threads, markup, bots, attachments."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chat_samples import SLACK_DAY, write_slack

from ffr.chats.chat import Chat, Media, Message, Reaction
from ffr.chats.reading import read_chat, read_chats


def _general(tmp_path: Path, *messages: Any) -> Chat:
    return read_chat(write_slack(tmp_path / "export", list(messages)), "general")


def _said(tmp_path: Path, **message: Any) -> Message:
    (found,) = _general(
        tmp_path, {"type": "message", "user": "U1", "ts": "1.0", **message}
    ).messages
    return found


def test_a_workspace_as_folder_and_as_archive(tmp_path: Path) -> None:
    folder = write_slack(tmp_path / "export")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "export")
    for path in (folder, Path(archive)):
        talk, general = read_chats(path)
        assert (general.app, general.title, general.id) == ("slack", "general", "C1")
        assert (talk.title, talk.id, len(talk)) == ("Ann, Bo B.", "D7", 1)
        assert {key: person.name for key, person in general.people.items()} == {
            "U1": "Ann",
            "U2": "Bo B.",
        }
        assert general.messages == (
            Message(
                "U1",
                "hi & welcome @Bo B.",
                datetime(2024, 5, 1, 8, 0, 0, 100, tzinfo=UTC),
                id="1714550400.000100",
                line=1,
            ),
            Message(
                "U2",
                "thanks",
                datetime(2024, 5, 1, 8, 1, 0, 200, tzinfo=UTC),
                id="1714550460.000200",
                reply_to="1714550400.000100",
                line=2,
            ),
        )
        assert general.people["U1"].other_names == ("Ann A.", "ann")
        assert general.account.lines() == []


def test_days_follow_each_other(tmp_path: Path) -> None:
    folder = write_slack(tmp_path / "export")
    for day in ("2024-04-30", "2024-05-02"):
        message = {"type": "message", "user": "U1", "text": day, "ts": "1714550400.5"}
        (folder / "general" / f"{day}.json").write_text(json.dumps([message]))
    texts = [message.text for message in read_chat(folder, "general").messages]
    assert texts == ["hi & welcome @Bo B.", "2024-04-30", "2024-05-02", "thanks"]  # by their times


def test_markup_becomes_words(tmp_path: Path) -> None:
    text = (
        "<@U2> <@U9|cy> <@U8> <#C1> <#C7|news> <!here> <!subteam^S1|@cooks> "
        "<!date^1392734382^{date}|18 February> <https://x.org/a?b=1&amp;c=2> <https://x.org|the list> "
        "<mailto:a@b.org|a@b.org> 1 &lt; 2 :smile:"
    )
    assert _said(tmp_path, text=text).text == (
        "@Bo B. @cy @U8 #general #news @here @cooks 18 February https://x.org/a?b=1&c=2 "
        "the list (https://x.org) a@b.org 1 < 2 :smile:"
    )


def test_files_reactions_and_edits(tmp_path: Path) -> None:
    folder = write_slack(
        tmp_path / "export",
        [
            {
                "type": "message",
                "user": "U1",
                "text": "look",
                "ts": "1.5",
                "edited": {"user": "U1", "ts": "2.0"},
                "files": [
                    {"id": "F1", "name": "image.png", "mimetype": "image/png"},
                    {"id": "F2", "name": "image.png", "mimetype": "image/png"},
                    {
                        "id": "F3",
                        "name": "talk.m4a",
                        "mimetype": "audio/mp4",
                        "subtype": "slack_audio",
                    },
                ],
                "reactions": [{"name": "thumbsup", "users": ["U2", "U3"], "count": 4}],
            }
        ],
    )
    (folder / "__uploads" / "F2").mkdir(parents=True)
    (folder / "__uploads" / "F2" / "image.png").write_bytes(b"x")
    (message,) = read_chat(folder, "general").messages
    assert message.kind == "picture"
    assert message.media[1:] == (
        Media("picture", "image.png", "__uploads/F2/image.png"),
        Media("voice", "talk.m4a"),
    )
    assert message.reactions == (Reaction(":thumbsup:", ("U2", "U3"), 4),)
    assert message.is_edited


def test_a_file_of_another_message_is_not_taken(tmp_path: Path) -> None:
    day = [{"type": "message", "user": "U1", "ts": "1.5", "files": [{"id": "F1", "name": "a.png"}]}]
    folder = write_slack(tmp_path / "export", day)
    (folder / "__uploads" / "F2").mkdir(parents=True)
    (folder / "__uploads" / "F2" / "a.png").write_bytes(b"x")
    assert read_chat(folder, "general").messages[0].media == (Media("picture", "a.png"),)


def test_bots_lines_of_the_app_and_what_was_taken_back(tmp_path: Path) -> None:
    chat = _general(
        tmp_path,
        {"type": "message", "subtype": "channel_join", "user": "U1", "ts": "1.0",
         "text": "<@U1> has joined the channel"},
        {"type": "message", "subtype": "bot_message", "bot_id": "B1", "username": "weather",
         "ts": "2.0", "text": "", "attachments": [{"title": "Rain", "text": "all day",
                                                   "fallback": "Rain all day"}]},
        {"type": "message", "user": "U2", "ts": "3.0", "text": "", "blocks": [
            {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
                {"type": "text", "text": "in blocks"}]}]}]},
        {"type": "message", "subtype": "tombstone", "user": "U2", "ts": "4.0",
         "text": "This message was deleted."},
        {"type": "message", "user": "U7", "ts": "5.0", "text": "guest",
         "user_profile": {"display_name": "Guest"}},
    )  # fmt: skip
    assert [(chat.name_of(message), message.kind, message.text) for message in chat.messages] == [
        ("", "system", "@Ann has joined the channel"),
        ("weather", "text", "Rain\nall day"),
        ("Bo B.", "text", "in blocks"),
        ("Bo B.", "text", ""),
        ("Guest", "text", "guest"),
    ]
    assert [message.is_deleted for message in chat.messages] == [False] * 3 + [True, False]
    assert (chat.account.num_system, chat.account.num_messages) == (1, 4)


def test_a_day_alone_and_a_workspace_without_its_people(tmp_path: Path) -> None:
    path = tmp_path / "2024-05-01.json"
    path.write_text(json.dumps(SLACK_DAY))
    chat = read_chat(path)
    assert (chat.title, [chat.name_of(message) for message in chat.messages]) == (
        "2024-05-01",
        ["U1", "U2"],
    )
    folder = write_slack(tmp_path / "export")
    (folder / "users.json").write_text("[{")
    chat = read_chat(folder, "general")
    assert chat.people["U1"].name == "U1"
    assert chat.account.lines() == ["users.json ends in the middle, at line 1; export it again"]


def test_a_broken_day_leaves_the_others(tmp_path: Path) -> None:
    folder = write_slack(tmp_path / "export")
    (folder / "general" / "2024-05-02.json").write_text('[{"type": "message", "ts": "1714637000.0"')
    (folder / "general" / "2024-05-03.json").write_text(
        json.dumps([{"type": "message", "user": "U1", "text": "later", "ts": "1714723400.0"}, 3])
    )
    chat = read_chat(folder, "general")
    assert [message.text for message in chat.messages][1:] == ["thanks", "later"]
    assert chat.account.lines() == [
        "general/2024-05-02.json ends in the middle, at line 1; export it again",
        "1 line is not understood, the first is general/2024-05-03.json:2: 3",
    ]


def test_the_example_at_hand(shared_dir: Path) -> None:
    path = shared_dir / "chat-exports" / "langchain-community" / "slack_export.zip"
    chats = {chat.title: chat for chat in read_chats(path)}
    assert sorted(chats) == ["example-channel", "general", "random"]
    assert [message.text for message in chats["general"].messages] == [
        "Hello, world!",
        "Example in general",
    ]
    assert [message.kind for message in chats["example-channel"].messages] == ["system", "text"]


def test_a_talk_of_several_is_called_by_their_names(tmp_path: Path) -> None:
    folder = write_slack(tmp_path / "export")
    name = "mpdm-ann--bo-1"
    talk = {"id": "G1", "name": name, "members": ["U1", "U2", "U5"]}
    (folder / "mpims.json").write_text(json.dumps([talk]))
    (folder / name).mkdir()
    (folder / name / "2024-05-01.json").write_text(json.dumps(SLACK_DAY))
    assert read_chat(folder, "G1").title == "Ann, Bo B., U5"


def test_a_message_that_is_handed_on(tmp_path: Path) -> None:
    card = {"is_share": True, "author_name": "Cy", "text": "the <https://x.org|plan>"}
    message = _said(tmp_path, text="", attachments=[card])
    assert (message.text, message.forwarded_from) == ("the plan (https://x.org)", "Cy")
