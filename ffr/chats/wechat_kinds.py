"""Kinds of messages of WeChat, by the words that exporters call them by."""

from __future__ import annotations

from functools import lru_cache

from ffr.chats.chat import Kind

_KINDS: tuple[tuple[str, Kind], ...] = (
    # the first that stands in the word is taken: 语音通话 is a call before 语音 is a voice
    ("通话", "call"),
    ("系统", "system"),
    ("撤回", "system"),
    ("拍一拍", "system"),
    ("视频号", "link"),
    ("图片", "picture"),
    ("表情", "sticker"),
    ("语音", "voice"),
    ("视频", "video"),
    ("文件", "file"),
    ("位置", "place"),
    ("名片", "contact"),
    ("投票", "poll"),
    ("链接", "link"),
    ("卡片", "link"),
    ("小程序", "link"),
    ("公众号", "link"),
    ("音乐", "link"),
    ("直播", "link"),
)


@lru_cache(maxsize=256)
def kind_of_word(word: str) -> Kind:
    """The kind of a message by what it is called in Chinese; text where nothing else fits.

    >>> kind_of_word("图片消息"), kind_of_word("语音通话"), kind_of_word("引用消息")
    ('picture', 'call', 'text')
    """
    return next((kind for part, kind in _KINDS if part in word), "text")
