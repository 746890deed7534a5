"""Prompts: to the byte for every record of the real dialogues, and back for anything said."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.dialogue import Dialogue, Example, FilePrompt, Image, Utterance
from ffr.errors import DataError
from ffr.prompt import (
    RESERVED_MARKS,
    TEMPLATES,
    QueryPosition,
    Template,
    check_markers,
    parse_user_prompt,
    prompt_of,
    render,
)

PUBLISHED = (
    "请根据下列多模态长对话内容,检索与<|query_start|>问候<|query_end|>匹配的句子和图片.\n"
    "要求: \n"
    "1.检索结果以句子ID和图片ID输出，若不存在匹配的句子或图片，对应部分返回空列表\n"
    "2.格式严格遵循:<|utt_ids_start|>[句子ID列表]<|utt_ids_end|>;<|img_ids_start|>[图片ID列表]<|img_ids_end|>\n\n"
    "对话内容: <|utt_id_start|>0<|utt_id_end|> user1: 你好\n"
    "<|utt_id_start|>1<|utt_id_end|> user2: <|img_id_start|>0<|img_id_end|><image>\n"
)
CHAT = Dialogue("d", (Utterance("User1", ("你好",)), Utterance("user2", (Image("a.png"),))))


def _real_records(folder: Path) -> Iterator[dict[str, Any]]:
    yield from json.loads((folder / "dev.json").read_bytes())
    with gzip.open(folder / "train.jsonl.gz", "rb") as lines:
        for line in lines:
            yield json.loads(line)


def test_the_published_prompt_to_the_byte() -> None:
    assert render(CHAT, "问候") == FilePrompt(PUBLISHED, "你是一个多模态信息检索助手。")


def test_every_real_record_to_the_byte(real_dialogues: Path) -> None:
    count = 0
    for record in _real_records(real_dialogues):
        system, user = (message["content"] for message in record["messages"][:2])
        query, utterances = parse_user_prompt(user, tuple(map(Image, record["images"])))
        again = render(Dialogue("d", utterances), query)
        assert again.user.encode() == user.encode()
        assert again.system == system
        assert query == record["meta"]["query_text"]
        count += 1
    assert count == 183 + 8717


def _without_marks(text: str) -> bool:
    return not any(mark in text for mark in RESERVED_MARKS)


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30).filter(_without_marks)
_TRICKY = st.sampled_from(
    [
        "a: b",
        "<|",
        "<image",
        "|>",
        "{query}",
        "{dialogue}",
        "\n",
        " ",
        "查询: ",
        "\\1",
        "<|utt_ids_start|>",
        "\r\n",
        "0<|",
    ]
)
_SPEAKER = (
    (_TEXT | st.sampled_from(["user1", "", "a:", " x", ":"]))
    .map(str.lower)
    .filter(lambda name: ": " not in name)
)


@st.composite
def _utterances(draw: st.DrawFn) -> Utterance:
    parts: list[str | Image] = []
    for part in draw(st.lists(_TEXT | _TRICKY | st.just(None), max_size=4)):
        if part is None:
            parts.append(Image("x.png"))
        elif part and not (parts and isinstance(parts[-1], str)):
            parts.append(part)  # two texts in a row would come back as one
    line = Utterance(draw(_SPEAKER), tuple(parts))
    return line if _without_marks(line.text) else Utterance("a", ("b",))


@settings(max_examples=200)
@given(
    st.lists(_utterances(), min_size=1, max_size=6),
    (_TEXT | _TRICKY).filter(_without_marks),
    st.sampled_from(sorted(TEMPLATES)),
    st.sampled_from(["first", "last"]),
)
def test_whatever_is_said_comes_back(
    lines: list[Utterance], query: str, template: str, query_position: QueryPosition
) -> None:
    numbered = [
        Utterance(
            line.speaker,
            tuple(
                Image(f"{i}-{j}") if isinstance(s, Image) else s
                for j, s in enumerate(line.segments)
            ),
        )
        for i, line in enumerate(lines)
    ]
    chat = Dialogue("d", tuple(numbered))
    # a lower-cased letter may lower-case to something else again (İ); prompts show the first
    chat = Dialogue(
        "d", tuple(Utterance(line.speaker.lower(), line.segments) for line in chat.utterances)
    )
    prompt = render(chat, query, template=template, query_position=query_position)
    read_query, read_lines = parse_user_prompt(prompt.user, chat.images)
    assert read_query == query
    again = render(
        Dialogue("d", read_lines), read_query, template=template, query_position=query_position
    )
    assert again == prompt
    assert [line.segments for line in read_lines] == [line.segments for line in chat.utterances]


@pytest.mark.parametrize("mark", RESERVED_MARKS)
def test_markers_in_the_texts_are_refused(mark: str) -> None:
    for dialogue, query in (
        (CHAT, f"a{mark}b"),
        (Dialogue("d", (Utterance("a", (f"x{mark}",)),)), "q"),
        (Dialogue("d", (Utterance(mark, ("x",)),)), "q"),
        (Dialogue("d", (Utterance("a", (mark[:3], mark[3:])),)), "q"),
    ):
        with pytest.raises(DataError, match="contains the marker"):
            check_markers(dialogue, query)
        with pytest.raises(DataError, match="contains the marker"):
            render(dialogue, query)


def test_a_speaker_that_would_not_come_back_is_refused() -> None:
    with pytest.raises(DataError, match="colon and a space"):
        render(Dialogue("d", (Utterance("dr: no", ("x",)),)), "q")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<|query_start|>", "", "0 queries"),
        ("要求", "<|query_start|>x<|query_end|>", "2 queries"),
        ("问候", "a<image>b", "the query contains the marker <image>"),
        ("问候", "<|query_start|>", "the query contains the marker <|query_start|>"),
        ("要求", "<image>", "an <image> outside the dialogue"),
        ("<|utt_id_start|>1", "<|utt_id_start|>2", "utterance id 2 stands where 1 is due"),
        (
            "<|img_id_start|>0",
            "<|img_id_start|>1",
            "image id 1 in utterance 1 stands where 0 is due",
        ),
        ("user1: ", "user1 ", "utterance 0 has no speaker"),
        ("<image>\n", "<image>", "does not end with a line break"),
        ("<image>\n", "\n", "stray <|img_id_start|>"),
        ("<|img_id_start|>0<|img_id_end|><image>", "", "0 <image> but the record has 1"),
        ("<image>", "<image><image>", "stray <image>"),
        ("<image>", "<image><|img_id_start|>1<|img_id_end|><image>", "more <image> than"),
        ("<|utt_id_start|>", "", "no utterance"),
        ("你好", "<|query_start|>x<|query_end|>", "2 queries"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_said(old: str, new: str, message: str) -> None:
    assert old in PUBLISHED
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        parse_user_prompt(PUBLISHED.replace(old, new), CHAT.images)


def test_damaged_prompts_end_in_a_sentence() -> None:
    chance = random.Random(0)
    pieces = [*RESERVED_MARKS, "0", "1", "\n", ": ", "9" * 5000, ""]
    for _ in range(3000):
        user = PUBLISHED
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(user))
            user = user[:at] + chance.choice(pieces) + user[at + chance.choice((0, 1, 20)) :]
        try:
            query, lines = parse_user_prompt(user, CHAT.images)
        except DataError:
            continue
        assert render(Dialogue("d", lines), query).user.count("<image>") == 1


def test_the_files_own_prompt_goes_first() -> None:
    own = FilePrompt("in words of its own")
    asked = Example(CHAT, "问候", prompt=own)
    assert prompt_of(asked) is own
    assert prompt_of(asked, template="zh").user == PUBLISHED
    assert prompt_of(Example(CHAT, "问候")).user == PUBLISHED
    assert prompt_of(asked, query_position="last").user.endswith(
        "查询: <|query_start|>问候<|query_end|>\n"
    )


def test_queries_on_one_dialogue_share_their_prefix() -> None:
    one, two = (render(CHAT, query, query_position="last").user for query in ("问候", "告别"))
    shared = one.index("问候")
    assert one[:shared] == two[:shared]
    assert "user2" in one[:shared]


THIRD = "\n3.先写出思考过程，再写出检索结果，严格遵循:<think>思考过程</think><answer>检索结果</answer>\n\n对话内容: "


def test_a_thought_is_asked_for_in_a_third_requirement() -> None:
    asked = render(CHAT, "问候", answer_style="think")
    assert asked.user == PUBLISHED.replace("\n\n对话内容: ", THIRD)
    english = render(CHAT, "hi", template="en", query_position="last", answer_style="think").user
    third = (
        "3.Write down your thoughts first and the results after them, strictly as:"
        "<think>thoughts</think><answer>results</answer>\n\nDialogue: "
    )
    bare = render(CHAT, "hi", template="en", query_position="last").user
    assert english == bare.replace("\n\nDialogue: ", f"\n{third}")
    assert english != bare


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@pytest.mark.parametrize("query_position", ["first", "last"])
def test_a_prompt_for_a_thought_comes_back(template: str, query_position: QueryPosition) -> None:
    lines = Dialogue(
        "d", (Utterance("a", ("<think>\n\nx</think>",)), Utterance("b", (Image("a.png"),)))
    )
    prompt = render(
        lines, "<answer>", template=template, query_position=query_position, answer_style="think"
    )
    assert parse_user_prompt(prompt.user, lines.images) == ("<answer>", lines.utterances)


def test_a_thought_keeps_to_the_files_own_template() -> None:
    for template in TEMPLATES:
        for position in ("first", "last"):
            own = FilePrompt(
                render(CHAT, "q", template=template, query_position=position).user, "be brief"
            )
            expected = render(
                CHAT, "q", template=template, query_position=position, answer_style="think"
            )
            asked = Example(CHAT, "q", prompt=own)
            assert prompt_of(asked, answer_style="think") == FilePrompt(expected.user, "be brief")
            # asked for already: nothing is put in twice
            again = Example(CHAT, "q", prompt=expected)
            assert prompt_of(again, answer_style="think") == expected
            other = prompt_of(asked, template="zh", answer_style="think")
            assert other == render(CHAT, "q", query_position=position, answer_style="think")
    in_other_words = Example(CHAT, "q", prompt=FilePrompt("in words of its own"))
    for example in (in_other_words, Example(CHAT, "q")):
        assert prompt_of(example, answer_style="think") == render(CHAT, "q", answer_style="think")
    assert prompt_of(in_other_words) is in_other_words.prompt


def test_a_template_without_the_rule_cannot_ask_for_a_thought() -> None:
    for own in (
        Template("own", "", "{query}\n\n{dialogue}", ""),
        Template("own", "", "{query}{dialogue}", "", "3.Think"),
    ):
        assert render(CHAT, "q", template=own).user.startswith("q")
        with pytest.raises(ValueError, match="'own' has no think_rule"):
            render(CHAT, "q", template=own, answer_style="think")
