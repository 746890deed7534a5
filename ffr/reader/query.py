"""What a query asks for, without the words that only say that something is asked for.

In "find the messages about swimming" one word of five counts; a sentence's vector is pulled towards
the other four, and with it every likeness. Words at the ends are left out by rule, in English and
Chinese; what remains of asking in a vector is taken out by a linear map, in any language.

Shapes: n queries, D width of the encoder's vectors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_HEADS_EN = """
please can could would you we i they people somebody someone anybody anyone everybody who whom what
which where when how did do does was were is are am be been have has had any all every everything
anything something remember time the a an this that these those me us our their my your it its find finds show
give get list search for pull bring go tell remind recall up out back to of on in at
about around regarding concerning related relating relates deals deal dealing with and or from
talk talks talked talking speak speaks spoke speaking discuss discusses discussed discussing
discussion mention mentions mentioned mentioning said say says saying chat chats chatted chatting
conversation conversations exchange dialogue part parts bit section passage passages place point
moment line lines sentence sentences message messages utterance utterances picture pictures photo
photos image images subject topic theme words came comes come ever
"""
_TAILS_EN = """
is are was were be been being get gets got come comes came up discussed mentioned brought raised
talked about spoken said written here there in on of the this that our their chat chats
conversation dialogue discussion talk part section message messages line lines picture pictures
photo photos image images and with it what who where when went goes together sent
"""
_HEADS_ZH = """
请 麻烦 帮我 帮忙 给我 替我 我想 我要 想看 看看 看 找一找 找出来 找出 找到 找一下 找找 找 查找
查一查 查一下 查查 查 搜索 搜一搜 搜一下 搜 列出 翻出 翻到 翻一下 翻 定位到 定位 展示 显示 把 将 所有 全部 有没有
哪一段 哪一句 哪几句 哪几条 哪些 哪里 哪儿 哪 在哪里 在哪儿 什么时候 什么 有谁 谁 大家 他们 她们 我们
你们 咱们 双方 两个人 两人 聊天记录里 聊天里 对话里 对话中 群里 曾经 曾 都 一起 是在 有 是 在 聊到
聊起 聊过 聊 谈到 谈起 谈论 谈过 谈 讨论 说到 说起 说过 说说 说 提到 提起 提过 提及 讲到 讲过 讲 关于
有关 跟 和 与 对 针对 涉及到 涉及 围绕着 围绕 交流 以 就 回忆一下 到 了 过 的 那 这 个 些 几 段
"""
_TAILS_ZH = """
的 那 这 一 几 些 个 段 处 条 部分 地方 时候 话题 主题 内容 消息 信息 句子 句 对话 聊天 记录 发言 片段
上下文 图片 照片 图文 图 话 讨论 交流 有关 相关 意见 经过 过程 情况 展开 交换 一起 起 都 全 找 列 翻 挑
出来 出 来 事情 文字 给我 看看 看 和 及 与 跟 为 是 在哪里 在哪儿 哪里 哪儿 什么 说了 说 讲了 讲 聊了 聊 谈 怎么 时
了 过 吗 呢 吧 谁 的人
"""
_HALVES_ZH = frozenset("看找翻查搜聊谈说讲对有是过话图句来出起时全都")
"""Of these, what also begins or ends a word of two characters: 看病, 电话, 地图."""

_MARKS = r"[\s?!.,;:，。！？、：；\"'“”…]"
_HAN = re.compile(r"[\u3400-\u9fff]")


def _alternatives(words: str) -> str:
    # the longest first: 聊到 before 聊
    return "|".join(sorted(words.split(), key=len, reverse=True))


# one word at an end at a time: a pattern of many would try all ways to cut a run of them
_RULES = {
    "en": (
        re.compile(rf"(?:{_alternatives(_HEADS_EN)})\b{_MARKS}*", re.IGNORECASE),
        re.compile(rf"(?:\b(?:{_alternatives(_TAILS_EN)})|{_MARKS})$", re.IGNORECASE),
    ),
    "zh": (
        re.compile(rf"(?:{_alternatives(_HEADS_ZH)}){_MARKS}*"),
        re.compile(rf"(?:{_alternatives(_TAILS_ZH)}|{_MARKS})$"),
    ),
}
_QUOTED = re.compile(r"[\"“「『](.{6,})[\"”」』]")
"""Somebody's own words, of which no word only asks."""

_MAX_CHARS = 60
"""A longer query is a sentence of its own, of which all counts."""

_MAX_QUOTE_CHARS = 1000
_LEAST_CHARS = {"en": 2, "zh": 1}


def plain_words(query: str) -> str:
    """The query less the words at its ends that only ask.

    Of a query that quotes a line the line counts. A query of more than 60 characters stays, and one
    of which too little would be left.

    >>> plain_words("find the messages about swimming"), plain_words("聊到滑雪的那一段")
    ('swimming', '滑雪')
    >>> plain_words("关于看病的对话和图片"), plain_words("聊到药的那一段")
    ('看病', '药')
    >>> plain_words("Who won?"), plain_words("Ann looks for a flat near the station.")
    ('won', 'Ann looks for a flat near the station')
    """
    text = " ".join(query.split())
    if quoted := _QUOTED.search(text[:_MAX_QUOTE_CHARS]):
        return quoted[1].strip()
    if len(text) > _MAX_CHARS:
        return text
    language = "zh" if 4 * len(_HAN.findall(text)) >= max(1, len(text)) else "en"
    head, tail = _RULES[language]
    rest = _less(text, head, tail)
    rest = rest.strip()
    return rest if len(rest) >= _LEAST_CHARS[language] else text


def _less(text: str, head: re.Pattern[str], tail: re.Pattern[str]) -> str:
    """The text less what the patterns find at its ends, one word at a time.

    Characters that may be half of a word go last, and not where one other would be left.
    """
    rest = text
    while True:
        ends = [(found, rest[found.end() :]) for found in [head.match(rest)] if found]
        ends += [(found, rest[: found.start()]) for found in [tail.search(rest)] if found]
        sure = [left for found, left in ends if found[0] not in _HALVES_ZH]
        if not sure and len(rest) > 2:
            sure = [left for _, left in ends]
        if not sure:
            return rest
        rest = sure[0]


@dataclass(frozen=True, slots=True, eq=False)
class QueryMap:
    """Takes out of a query's vector what the wording of asking adds to it.

        v' = w / |w|,  w = v + (v − mean) · matrix

    Args:
        matrix: (D, D) float32.
        mean: (D,) float32, of the queries that it was fitted on.

    Raises:
        ValueError: where shapes do not fit or a number is not finite.
    """

    matrix: Tensor
    mean: Tensor

    def __post_init__(self) -> None:
        width = self.mean.shape[0] if self.mean.ndim == 1 else -1
        if self.matrix.shape != (width, width):
            raise ValueError(
                f"a query map of shapes {tuple(self.matrix.shape)} and {tuple(self.mean.shape)} "
                "does not fit together; give (width, width) and (width,)"
            )
        if not bool(self.matrix.isfinite().all() and self.mean.isfinite().all()):
            raise ValueError("a query map holds NaN or infinite numbers; fit it again")

    def __call__(self, queries: Tensor) -> Tensor:
        """(n, D) float32, L2-normalised, of (n, D)."""
        moved = queries + (queries - self.mean) @ self.matrix
        return functional.normalize(moved, dim=-1)


def fit_query_map(asked: Tensor, bare: Tensor, *, ridge: float) -> QueryMap:
    """The map that brings queries in many wordings nearest to the bare names that they ask for.

    Ridge regression of bare − asked on asked, both less their means; the penalty pulls the map
    towards changing nothing.

    Args:
        asked: (n, D) queries in some wording.
        bare: (n, D) of each the bare name.
        ridge: The penalty, above 0.

    Raises:
        ValueError: where shapes differ or the penalty is not above 0.

    >>> bare = torch.eye(4)
    >>> asked = functional.normalize(bare + torch.tensor([0.0, 0.0, 0.0, 1.0]), dim=-1)
    >>> fitted = fit_query_map(asked[:3], bare[:3], ridge=0.01)
    >>> bool((fitted(asked[:3]) * bare[:3]).sum() > (asked[:3] * bare[:3]).sum())
    True
    """
    if asked.shape != bare.shape or asked.ndim != 2 or not ridge > 0:
        raise ValueError(
            f"queries {tuple(asked.shape)} and names {tuple(bare.shape)} at a penalty of {ridge}; "
            "give one name each, and a penalty above 0"
        )
    mean = asked.mean(0)
    centred = (asked - mean).double()
    change = (bare - bare.mean(0)).double() - centred
    gram = centred.T @ centred + ridge * torch.eye(asked.shape[1], dtype=torch.float64)
    return QueryMap(torch.linalg.solve(gram, centred.T @ change).float(), mean)
