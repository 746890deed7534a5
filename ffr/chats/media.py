"""Files that messages carry: what they are by their names, and where the export holds them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ffr.chats.chat import Kind, Media, MediaKind
from ffr.chats.export_files import ExportFiles

_PICTURES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".heic", ".heif", ".bmp", ".tif",
             ".tiff", ".avif")  # fmt: skip
_VIDEOS = (".mp4", ".mov", ".m4v", ".3gp", ".webm", ".mkv", ".avi", ".mpeg", ".mpg")
# what phones record speech as; music is a file
_VOICES = (".opus", ".ogg", ".oga", ".amr", ".silk", ".slk")
_MAX_SUFFIX = 6

FILE_KINDS: dict[Kind, MediaKind] = {
    "picture": "picture",
    "sticker": "sticker",
    "voice": "voice",
    "video": "video",
    "file": "file",
}
"""The kinds of messages that carry a file, and what that file is."""


def kind_of_file(name: str, mime: str = "") -> MediaKind:
    """What a file is by its MIME type, else by its ending.

    >>> kind_of_file("a.JPG"), kind_of_file("a", "video/mp4"), kind_of_file("a.pdf")
    ('picture', 'video', 'file')
    """
    main = mime.partition("/")[0].lower()
    if main in ("image", "video"):
        return "picture" if main == "image" else "video"
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    if suffix in _PICTURES:
        return "picture"
    if suffix in _VIDEOS:
        return "video"
    return "voice" if suffix in _VOICES else "file"


def base_name(path: str) -> str:
    r"""The last part of a path or an address, without what follows a `?`.

    >>> base_name("a\\b/c.jpg"), base_name("https://x.org/d.png?w=1")
    ('c.jpg', 'd.png')
    """
    if "://" in path:
        path = path.partition("?")[0].partition("#")[0]
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def is_path(text: str) -> bool:
    """Whether a text is one name or path of a file, and no words.

    >>> is_path("media/images/a.jpg"), is_path("see a.jpg or the other"), is_path("ok.")
    (True, False, False)
    """
    if not text or len(text) > 1000 or "\n" in text or "://" in text:
        return False
    suffix = PurePosixPath(text.replace("\\", "/")).suffix
    return (
        1 < len(suffix) <= _MAX_SUFFIX
        and suffix[1:].isalnum()
        and ("/" in text or "\\" in text or " " not in text)
    )


def carried(export: ExportFiles, beside: str, kind: MediaKind, path: str, name: str = "") -> Media:
    """A file of a message that names it by a path.

    Args:
        export: Where it may be.
        beside: The chat's own file.
        kind: What it is.
        path: As the message says it; "" where it names none.
        name: What the message calls it, where that is not the end of the path.
    """
    return Media(kind, name or base_name(path), export.find(path, beside) if path else None)


# [图片], [Photo]: that there was one; [文件] a.pdf: and what it was called
_BRACKETS = re.compile(r"\[[^\[\]\n]{1,20}\]\s*")


def media_in(export: ExportFiles, beside: str, kind: MediaKind, content: str) -> tuple[str, Media]:
    """The words and the file of a message whose one field holds a path, a word for it, or words.

    Args:
        export: Where the file may be.
        beside: The chat's own file.
        kind: What it is.
        content: A path such as `media/a.jpg`; `[图片]` where there is none; or what was said.
    """
    if is_path(content) or (content and export.find(content, beside)):
        return "", carried(export, beside, kind, content)
    match = _BRACKETS.match(content)
    rest = content[match.end() :] if match else content
    if match and is_path(rest):
        return "", carried(export, beside, kind, rest)
    return rest, Media(kind)
