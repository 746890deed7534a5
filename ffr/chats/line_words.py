"""What LINE says in the languages of its phones: titles, kinds of messages, lines of the app."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ffr.chats.chat import Kind, Media, MediaKind
from ffr.chats.whatsapp_words import stem_kind

_PREFIX = re.compile(r"^\s*\[LINE\]\s*", re.IGNORECASE)
_TITLES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"chat(?: history)? (?:with|in) (?P<title>.+)",
        r"(?P<title>.+?)(?:との|の)トーク(?:履歴)?",
        r"[與与和跟] ?(?P<title>.+?) ?的?(?:聊天|對話|对话)(?:記錄|记录|紀錄|纪录)?",
        r"(?P<title>.+?) ?的?(?:聊天|對話|对话)(?:記錄|记录|紀錄|纪录)",
        r"(?P<title>.+?) ?(?:님)?(?:과의|와의|과|와) ?(?:대화|채팅)(?: ?내용| ?기록)?",
        r"(?P<title>.+?)(?:의)? ?(?:대화|채팅) ?(?:내용|기록)",
        r"ประวัติการ(?:แชท|สนทนา|คุย)(?:กับ|ใน|ของ)? ?(?P<title>.+)",
        r"riwayat (?:obrolan|chat) (?:dengan|di|dalam) (?P<title>.+)",
        r"historial de(?:l)? chats? (?:con|en|de) (?P<title>.+)",
        r"hist[óo]rico d[eao] (?:conversa|chat|bate-papo)s? (?:com|em) (?P<title>.+)",
        r"chatverlauf (?:mit|in) (?P<title>.+)",
        r"historique (?:des? )?(?:discussions?|chats?|conversations?) (?:avec|dans) (?P<title>.+)",
        r"cronologia (?:della )?chat (?:con|in) (?P<title>.+)",
        r"lịch sử (?:trò chuyện|chat) (?:với|trong) (?P<title>.+)",
        r"история (?:чата|переписки) (?:с|в) (?P<title>.+)",
        r"sohbet geçmişi:? (?P<title>.+)",
    )
)
# words in brackets; all kinds of one line in any language
_KINDS: dict[Kind, str] = {
    "picture": """
        photo | photos | image | 写真 | 画像 | 照片 | 圖片 | 图片 | 相片 | 사진 | 이미지 | รูปภาพ | รูป |
        foto | imagen | imagem | bild | hình ảnh | ảnh | изображение | фото | gambar
    """,
    "sticker": """
        sticker | stickers | スタンプ | 貼圖 | 贴图 | 表情贴图 | 表情貼 | 스티커 | สติกเกอร์ | stiker | 貼図 |
        nhãn dán | стикер | figurinha | emoji | 絵文字 | 表情貼圖
    """,
    "video": """
        video | videos | 動画 | ビデオ | 影片 | 视频 | 視頻 | 動態影片 | 동영상 | 비디오 | วิดีโอ | วีดีโอ |
        vídeo | vidéo | видео
    """,
    "voice": """
        voice message | voice messages | audio | voice | ボイスメッセージ | 音声メッセージ | 音声 | 語音訊息 | 语音信息 |
        语音消息 | 語音 | 语音 | 음성메시지 | 음성 메시지 | 음성 | ข้อความเสียง | เสียง | pesan suara | mensaje de voz
    """,
    "file": """
        file | files | ファイル | 檔案 | 文件 | 파일 | ไฟล์ | archivo | arquivo | datei | fichier | tệp | файл | berkas
    """,
    "place": """
        location | 位置情報 | 位置訊息 | 位置信息 | 位置 | 位置資訊 | 위치 | 위치정보 | ตำแหน่งที่ตั้ง | ตำแหน่ง |
        โลเคชั่น | ที่ตั้ง | lokasi | ubicación | vị trí | standort | localização
    """,
    "contact": """
        contact | contacts | 連絡先 | 聯絡資訊 | 聯絡人 | 联系人 | 联系方式 | 名片 | 연락처 | 연락처 정보 |
        รายชื่อผู้ติดต่อ | รายชื่อติดต่อ | kontak | contacto | kontakt | liên hệ
    """,
    "poll": "poll | 投票 | アンケート | 投票・アンケート | 투표 | โพล | polling | encuesta",
    "call": "call | 通話 | 通话 | 통화 | การโทร | voice call | video call | 語音通話 | 視訊通話",
}
_ALBUM_WORDS = "album | albums | アルバム | 相簿 | 相册 | 相冊 | 앨범 | อัลบั้ม | álbum"


def _words(said: str) -> list[str]:
    return [" ".join(word.split()) for word in said.split("|") if word.strip()]


_KIND_OF: dict[str, Kind] = {word: kind for kind, said in _KINDS.items() for word in _words(said)}
_ALBUMS = frozenset(_words(_ALBUM_WORDS))
_MEDIA: dict[Kind, MediaKind] = {
    "picture": "picture",
    "sticker": "sticker",
    "video": "video",
    "voice": "voice",
    "file": "file",
}
_BRACKETED = re.compile(
    r"^[\[［【](?P<word>[^\[\]［］【】\n]{1,30})[\]］】](?P<more>.{0,300})$", re.DOTALL
)
_UNSENT = re.compile(
    r"(?:you |.{1,60} )?unsent a message\.?"
    r"|(?:.{1,60}が)?(?:メッセージの)?送信を取り消しました。?"
    r"|.{0,60}(?:已收回訊息|收回了訊息|已收回一則訊息|收回訊息|撤回了一条消息|已撤回消息|撤回了消息|撤回訊息)。?"
    r"|.{0,60}(?:메시지 ?(?:전송|보내기)?(?:을|를) 취소(?:했습니다|하였습니다)|메시지를 삭제했습니다)\.?"
    r"|.{0,60}(?:ยกเลิกข้อความ|ยกเลิกการส่งข้อความ|ยกเลิกการส่ง).{0,10}"
)
# lines of the app where only blanks part the columns
_SYSTEM = re.compile(
    r".{1,80}(?: (?:joined|left) the (?:group|chat)\.?| (?:added|invited|removed) .{1,80} (?:to|from) the "
    r"(?:group|chat)\.?| changed the (?:group|chat).{0,80}"
    r"|が(?:.{0,60}を)?(?:グループに)?(?:参加|招待|追加|退会|退出)しました。?|がグループを退会しました。?|を退会させました。?"
    r"|がグループ(?:名|アイコン|の).{0,60}しました。?"
    r"|(?:已)?(?:加入|離開|离开|退出)(?:了)?(?:聊天|群組|群组|群|聊天室)。?|邀請.{1,60}加入(?:群組|聊天)?。?"
    r"|님이 (?:들어왔습니다|나갔습니다|그룹에 참여했습니다|그룹에서 나갔습니다)\.?"
    r"|(?:님이 )?.{1,60}님을 (?:초대했습니다|내보냈습니다|그룹에 초대했습니다)\.?"
    r"|(?:เข้าร่วมกลุ่ม|ออกจากกลุ่ม|เข้าร่วมแชท).{0,10})$"
)


@dataclass(frozen=True, slots=True)
class Content:
    """What a message is; see `Message`."""

    text: str
    kind: Kind = "text"
    media: tuple[Media, ...] = ()
    is_deleted: bool = False


def title_of(said: str) -> str:
    """What a chat is called, by the first line of its file or by the file's name.

    >>> title_of("[LINE] Chat history with Ann"), title_of("[LINE] 旅行のトーク履歴")
    ('Ann', '旅行')
    """
    rest = _PREFIX.sub("", said).strip()
    for pattern in _TITLES:
        match = pattern.fullmatch(rest)
        if match is not None:
            return match["title"].strip().strip("「」\"“”'").strip()
    return rest


def is_system(text: str) -> bool:
    """Whether a line is one of the app's, by its words.

    >>> is_system("Ann joined the group."), is_system("Ann joined us")
    (True, False)
    """
    return len(text) <= 300 and _SYSTEM.match(text) is not None


def is_unsent(text: str) -> bool:
    """Whether a line says that a message was taken back.

    >>> is_unsent("You unsent a message."), is_unsent("小明已收回訊息")
    (True, True)
    """
    return len(text) <= 80 and _UNSENT.fullmatch(text) is not None


def content_of(text: str, *, is_bare: bool = False) -> Content:
    """What a person's message is.

    Args:
        text: Its words.
        is_bare: Whether words for kinds may stand without brackets, as computers write them.

    >>> content_of("[スタンプ]").media
    (Media(kind='sticker', name='', file=None),)
    >>> content_of("☎ Missed call").kind, content_of("[sic]").kind
    ('call', 'text')
    """
    if text[:1] in "☎📞" and text:
        return Content(text, "call")
    if is_unsent(text):
        return Content("", is_deleted=True)
    match = _BRACKETED.match(text) if text[:1] in "[［【" and text else None
    word = "" if match is None else match["word"].strip().lower()
    more = "" if match is None else match["more"].strip()
    if match is None and is_bare and len(text) <= 24 and text.lower() in _KIND_OF:
        word = text.lower()
    if not word:
        is_link = text.startswith(("http://", "https://")) and not text.split(None, 1)[1:]
        return Content(text, "link" if is_link else "text")
    kind = _KIND_OF.get(word)
    if kind is None and word in _ALBUMS:
        return Content(text, "picture")
    if kind is None and not more and len(word.split()) <= 2:
        kind = stem_kind(word)
    if kind is None:
        return Content(text)
    if kind in _MEDIA:
        item = Media(_MEDIA[kind], more if kind == "file" and "." in more else "")
        return Content("" if item.name else more, kind, (item,))
    return Content(more or text, kind)
