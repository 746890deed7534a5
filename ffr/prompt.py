"""Dialogue + query → the chat messages a model sees, and back.

The Chinese template with the query first is the one of MLDR and WeChat-MDR, to the byte. The
English one has the same shape. With `query_position="last"` the dialogue stands before the query,
so that queries on one dialogue share their prefix. With `answer_style="think"` a third requirement
asks for a thought before the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ffr.answer import AnswerStyle
from ffr.dialogue import Dialogue, Example, FilePrompt, Image, Utterance
from ffr.errors import DataError
from ffr.text import counted

QueryPosition = Literal["first", "last"]

IMAGE_MARK = "<image>"
QUERY_START, QUERY_END = "<|query_start|>", "<|query_end|>"
UTT_ID_START, UTT_ID_END = "<|utt_id_start|>", "<|utt_id_end|>"
IMG_ID_START, IMG_ID_END = "<|img_id_start|>", "<|img_id_end|>"
RESERVED_MARKS = (
    IMAGE_MARK,
    QUERY_START,
    QUERY_END,
    UTT_ID_START,
    UTT_ID_END,
    IMG_ID_START,
    IMG_ID_END,
)
"""What an utterance or a query may not contain, or the prompt could not be read back."""

MAX_SHARED_QUERIES = 16
"""Most queries behind one copy of a dialogue: a bound on the tokens behind it, whatever the
data."""


@dataclass(frozen=True, slots=True)
class Template:
    """The words around a dialogue and a query; `{query}` and `{dialogue}` stand where they go.

    `think_rule` is the requirement that asks for a thought; it becomes a line of its own before the
    first empty line.
    """

    name: str
    system: str
    query_first: str
    query_last: str
    think_rule: str = ""


_ZH_RULES = (
    "要求: \n1.检索结果以句子ID和图片ID输出，若不存在匹配的句子或图片，对应部分返回空列表\n"
    "2.格式严格遵循:<|utt_ids_start|>[句子ID列表]<|utt_ids_end|>;<|img_ids_start|>[图片ID列表]<|img_ids_end|>\n\n"
    "对话内容: {dialogue}"
)
_EN_RULES = (
    "Requirements: \n1.Output the results as utterance ids and image ids; where no utterance or no "
    "image matches, return an "
    "empty list for that part\n2.Follow this format strictly:<|utt_ids_start|>[utterance "
    "ids]<|utt_ids_end|>;"
    "<|img_ids_start|>[image ids]<|img_ids_end|>\n\nDialogue: {dialogue}"
)
_QUERY = QUERY_START + "{query}" + QUERY_END

TEMPLATES = {
    "zh": Template(
        name="zh",
        system="你是一个多模态信息检索助手。",
        query_first=f"请根据下列多模态长对话内容,检索与{_QUERY}匹配的句子和图片.\n{_ZH_RULES}",
        query_last=f"请根据下列多模态长对话内容,检索与查询匹配的句子和图片.\n{_ZH_RULES}查询: {_QUERY}\n",
        think_rule="3.先写出思考过程，再写出检索结果，严格遵循:<think>思考过程</think><answer>检索结果</answer>",
    ),
    "en": Template(
        name="en",
        system="You are a multimodal information retrieval assistant.",
        query_first="From the long multimodal dialogue below,retrieve the utterances and images "
        f"that match {_QUERY}.\n{_EN_RULES}",
        query_last="From the long multimodal dialogue below,retrieve the utterances and images "
        "that match the query.\n"
        f"{_EN_RULES}Query: {_QUERY}\n",
        think_rule="3.Write down your thoughts first and the results after them, strictly as:"
        "<think>thoughts</think><answer>results</answer>",
    ),
}


def render_dialogue(dialogue: Dialogue) -> str:
    """One utterance a line, the speaker lower-cased, images as marks.

    A line is `<|utt_id_start|>0<|utt_id_end|> speaker: text`.

    >>> lines = (Utterance("User1", ("hi",)), Utterance("B", (Image("a.png"),)))
    >>> print(render_dialogue(Dialogue("d", lines)), end="")
    <|utt_id_start|>0<|utt_id_end|> user1: hi
    <|utt_id_start|>1<|utt_id_end|> b: <|img_id_start|>0<|img_id_end|><image>
    """
    lines: list[str] = []
    image_id = 0
    for utterance_id, utterance in enumerate(dialogue.utterances):
        pieces: list[str] = []
        for segment in utterance.segments:
            if isinstance(segment, str):
                pieces.append(segment)
            else:
                pieces.append(f"{IMG_ID_START}{image_id}{IMG_ID_END}{IMAGE_MARK}")
                image_id += 1
        lines.append(
            f"{UTT_ID_START}{utterance_id}{UTT_ID_END} {utterance.speaker.lower()}: "
            f"{''.join(pieces)}\n"
        )
    return "".join(lines)


def render(
    dialogue: Dialogue,
    query: str,
    *,
    template: str | Template = "zh",
    query_position: QueryPosition = "first",
    answer_style: AnswerStyle = "bare",
) -> FilePrompt:
    """The prompt for a dialogue and a query.

    Args:
        dialogue: The dialogue; no utterance may contain one of `RESERVED_MARKS`.
        query: What is looked for; likewise.
        template: `zh`, `en`, or a template of your own.
        query_position: `first` as published, `last` for dialogue before query.
        answer_style: `bare` as published, `think` to ask for a thought before the answer.

    Raises:
        DataError: where a text contains one of the task's markers, which would make the prompt
            ambiguous.
        ValueError: where a thought is to be asked for and a template of your own has no
            `think_rule` or no empty line.

    >>> chat = Dialogue("d", (Utterance("user1", ("你好",)),))
    >>> render(chat, "问候").user.splitlines()[0]
    '请根据下列多模态长对话内容,检索与<|query_start|>问候<|query_end|>匹配的句子和图片.'
    """
    chosen = TEMPLATES[template] if isinstance(template, str) else template
    check_markers(dialogue, query)
    text = chosen.query_first if query_position == "first" else chosen.query_last
    if answer_style == "think":
        text = _with_think_rule(chosen, text)
    # one pass over the template, so that braces in the texts stay what they are
    parts = {"{query}": query, "{dialogue}": render_dialogue(dialogue)}
    user = re.sub(r"\{query\}|\{dialogue\}", lambda match: parts[match[0]], text)
    return FilePrompt(user=user, system=chosen.system)


def _with_think_rule(template: Template, text: str) -> str:
    rules, empty_line, rest = text.partition("\n\n")
    if not template.think_rule or not empty_line:
        raise ValueError(
            f"template {template.name!r} has no think_rule, or no empty line to put it before"
        )
    return f"{rules}\n{template.think_rule}{empty_line}{rest}"


def prompt_of(
    example: Example,
    *,
    template: str | None = None,
    query_position: QueryPosition | None = None,
    answer_style: AnswerStyle = "bare",
) -> FilePrompt:
    """The prompt an example is asked with.

    The file's own where it has one and nothing else was asked for.

    A thought must be asked for in words, so with `think` the file's own prompt is not taken as it
    stands. Where it is one of this module's templates to the byte, the prompt is that template, in
    that query position and with the file's system message, and gains the third requirement; in any
    other words it is written anew. What was asked for goes before what was found, and `zh` and
    `first` stand where neither is there.

    Args:
        example: Dialogue and query, perhaps with the file's own prompt.
        template: `zh` or `en`; None = not asked for.
        query_position: None = not asked for.
        answer_style: `think` to ask for a thought before the answer.
    """
    own = example.prompt
    if template is None and query_position is None and answer_style == "bare" and own is not None:
        return own
    found: tuple[str, QueryPosition] | None = None
    if answer_style == "think" and own is not None and (template is None or query_position is None):
        found = _settings_of(own, example)
    prompt = render(
        example.dialogue,
        example.query,
        template=template or (found[0] if found else "zh"),
        query_position=query_position or (found[1] if found else "first"),
        answer_style=answer_style,
    )
    return (
        replace(prompt, system=own.system)
        if found and own is not None and template is None
        else prompt
    )


def _settings_of(own: FilePrompt, example: Example) -> tuple[str, QueryPosition] | None:
    """Template and query position that make a file's own prompt, in either answer style.

    None for other words.
    """
    for name in TEMPLATES:
        position: QueryPosition
        for position in get_args(QueryPosition):
            style: AnswerStyle
            for style in get_args(AnswerStyle):
                made = render(
                    example.dialogue,
                    example.query,
                    template=name,
                    query_position=position,
                    answer_style=style,
                )
                if made.user == own.user:
                    return name, position
    return None


def check_markers(dialogue: Dialogue, *queries: str) -> None:
    """Raises DataError where a text holds one of the task's markers.

    Or a speaker what ends its name in a prompt.
    """
    where = f"dialogue {dialogue.id!r}"
    for query in queries:
        if mark := _mark_in(query):
            raise DataError(f"the query contains the marker {mark}; remove it", where=where)
    for index, utterance in enumerate(dialogue.utterances):
        if mark := _mark_in(utterance.text) or _mark_in(utterance.speaker):
            raise DataError(f"utterance {index} contains the marker {mark}; remove it", where=where)
        if ": " in utterance.speaker:
            raise DataError(
                f"the speaker of utterance {index} contains a colon and a space, which end the "
                "name in a prompt; remove them",
                where=where,
            )


def _mark_in(text: str) -> str | None:
    # most texts have no "<" at all, and this runs on every line of every file
    return next((mark for mark in RESERVED_MARKS if mark in text), None) if "<" in text else None


_AFTER_UTT_ID = f"{UTT_ID_END} "
_QUERY_SPAN = re.compile(re.escape(QUERY_START) + r"(.*?)" + re.escape(QUERY_END), re.S)
_IMAGE = re.compile(
    re.escape(IMG_ID_START) + r"([0-9]{1,9})" + re.escape(IMG_ID_END) + re.escape(IMAGE_MARK)
)


def parse_user_prompt(user: str, images: tuple[Image, ...]) -> tuple[str, tuple[Utterance, ...]]:
    """Reads query and utterances back from a prompt by the markers, whatever the words around.

    Args:
        user: The prompt text, in the shape of this module's templates.
        images: Entry i is the image of id i.

    Returns:
        The query and the utterances.

    Raises:
        DataError: with what is wrong: no query, ids that do not count from 0, a number of `<image>`
            other than of images, …

    >>> chat = Dialogue("d", (Utterance("user1", ("hi ", Image("a.png"))),))
    >>> read = parse_user_prompt(render(chat, "a picture").user, chat.images)
    >>> read == ("a picture", chat.utterances)
    True
    """
    queries = list(_QUERY_SPAN.finditer(user))
    if len(queries) != 1:
        raise DataError(
            f"the prompt has {counted(len(queries), 'query')} between {QUERY_START} and "
            f"{QUERY_END}; it "
            "needs one"
        )
    query = queries[0]
    if inside := _mark_in(query[1]):
        raise DataError(f"the query contains the marker {inside}; remove it")
    # split, not matched line by line: this runs on every line of every file
    head, *pieces = user.split(UTT_ID_START)
    if not pieces:
        raise DataError(
            f"the prompt has no utterance; each begins with {UTT_ID_START}<id>{UTT_ID_END} and a "
            "space"
        )
    tail_begin = len(user) - len(pieces[-1])
    if query.start() > tail_begin:
        # query last: the dialogue ends with the line break before the query's line
        end = user.rfind("\n", tail_begin, query.start()) + 1
        if not end:
            raise DataError(
                "the query stands on the last utterance's line; put it on a line of its own"
            )
        pieces[-1] = user[tail_begin:end]
    elif query.end() > len(head):
        raise DataError("the query stands inside the dialogue; put it before or after")
    utterances: list[Utterance] = []
    image_id = 0
    for index, piece in enumerate(pieces):
        number, mark, line = piece.partition(_AFTER_UTT_ID)
        if not mark or not number.isdecimal():
            before = f"utterance {index - 1}" if index else "the prompt"
            raise DataError(
                f"{before} has a stray {UTT_ID_START}; write {UTT_ID_START}<id>{UTT_ID_END} and a "
                "space"
            )
        if number != str(index):
            raise DataError(
                f"utterance id {number[:12]} stands where {index} is due; ids count from 0 in "
                "dialogue order"
            )
        if not line.endswith("\n"):
            raise DataError(f"utterance {index} does not end with a line break; put one after it")
        speaker, colon, content = line[:-1].partition(": ")
        if not colon:
            raise DataError(f"utterance {index} has no speaker; write `speaker: text`")
        if "<" not in line:  # no image and no marker, as in most lines
            utterances.append(Utterance(speaker, (content,) if content else ()))
            continue
        segments: list[str | Image] = []
        position = 0
        for shown in _IMAGE.finditer(content):
            if int(shown[1]) != image_id:
                raise DataError(
                    f"image id {shown[1]} in utterance {index} stands where {image_id} is due; ids "
                    "count from 0 over the dialogue"
                )
            if image_id >= len(images):
                raise DataError(
                    f"the prompt has more {IMAGE_MARK} than the record has images ({len(images)}); "
                    "correct one of the two"
                )
            if shown.start() > position:
                segments.append(content[position : shown.start()])
            segments.append(images[image_id])
            position = shown.end()
            image_id += 1
        if position < len(content):
            segments.append(content[position:])
        utterance = Utterance(speaker, tuple(segments))
        if stray := _mark_in(utterance.text) or _mark_in(speaker):
            raise DataError(
                f"utterance {index} has a stray {stray}; an image is "
                f"{IMG_ID_START}<id>{IMG_ID_END}{IMAGE_MARK}"
            )
        utterances.append(utterance)
    if image_id != len(images):
        raise DataError(
            f"the prompt has {image_id} {IMAGE_MARK} but the record has "
            f"{counted(len(images), 'image')}; "
            "correct one of the two"
        )
    if user.count(IMAGE_MARK) != image_id:
        raise DataError(f"the prompt has an {IMAGE_MARK} outside the dialogue; remove it")
    return query[1], tuple(utterances)
