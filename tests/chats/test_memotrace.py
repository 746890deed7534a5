"""WeChat by MemoTrace: rows over several lines, XML of strangers, which picture is whose."""

from __future__ import annotations

import csv
import io
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from chat_samples import MEMOTRACE

from ffr.chats.account import Account
from ffr.chats.chat import Chat, Media, Message
from ffr.chats.memotrace import cells, records
from ffr.chats.reading import read_chat

ZONE = timezone(timedelta(hours=8))
SUM = "0123456789abcdef0123456789abcdef"
HEADER = MEMOTRACE.partition("\n")[0].split(",")


def _of(folder: Path, *rows: dict[str, object]) -> Chat:
    common: dict[str, object] = {"CreateTime": 1714550400, "StrTime": "2024-05-01 16:00:00",
                                 "NickName": "波", "Sender": "wxid_bo", "IsSender": 0}  # fmt: skip
    written = io.StringIO()
    writer = csv.DictWriter(written, HEADER)
    writer.writeheader()
    for number, row in enumerate(rows, 1):
        writer.writerow({"localId": number, **common, **row})
    (folder / "小波.csv").write_text(written.getvalue(), encoding="utf-8-sig", newline="")
    return read_chat(folder)


def _picture(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")


def test_a_chat(tmp_path: Path) -> None:
    (tmp_path / "小波.csv").write_text(MEMOTRACE, encoding="utf-8-sig")
    _picture(tmp_path, f"image/{SUM}.jpg")
    for path in (tmp_path, tmp_path / "小波.csv"):
        chat = read_chat(path)
        assert (chat.app, chat.title) == ("memotrace", "小波")
        assert chat.messages == (
            Message(
                "wxid_ann",
                '去湖边吗？\n带上"相机", 好',
                datetime(2024, 5, 1, 16, tzinfo=ZONE),
                id="1",
                line=2,
            ),
            Message(
                "wxid_bo",
                "",
                datetime(2024, 5, 1, 16, 1, tzinfo=ZONE),
                "picture",
                (Media("picture", f"{SUM}.jpg", f"image/{SUM}.jpg"),),
                "2",
                line=4,
            ),
            Message(
                None,
                "小波 撤回了一条消息",
                datetime(2024, 5, 1, 16, 1, 10, tzinfo=ZONE),
                "system",
                id="3",
                line=5,
            ),
        )
        people = [(one.name, one.other_names, one.is_me) for one in chat.people.values()]
        assert people == [("安", (), True), ("小波", ("波",), False)]
        assert (chat.account.num_lines, chat.account.num_continuations) == (5, 1)


def test_a_picture_is_found_by_its_time_where_only_one_has_it(tmp_path: Path) -> None:
    image = "<msg><img length='9'/></msg>"
    for name in ("1714550401_a.jpg", "2024-05-01_16-00-02.jpg", "1714550403.jpg", "x.jpg"):
        _picture(tmp_path, f"image/{name}")
    for name in ("1714550404_1.jpg", "1714550404_2.jpg"):
        _picture(tmp_path, f"image/{name}")
    rows: list[dict[str, object]] = [
        {"Type": 3, "StrContent": image, "CreateTime": 1714550400 + second,
         "StrTime": f"2024-05-01 16:00:{second:02}"}
        for second in (1, 2, 3, 3, 4, 5)
    ]  # fmt: skip
    chat = _of(tmp_path, *rows)
    assert [message.media[0].file for message in chat.messages] == [
        "image/1714550401_a.jpg",
        "image/2024-05-01_16-00-02.jpg",
        None,  # two messages of one second
        None,
        None,  # two files of one second
        None,
    ]
    assert "6 pictures (4 missing)" in chat.summary


def test_every_kind(tmp_path: Path) -> None:
    _picture(tmp_path, f"emoji/{SUM}.gif")
    _picture(tmp_path, "file/合同.pdf")
    rows: list[dict[str, object]] = [
        {"Type": 47, "StrContent": f'<msg><emoji md5="{SUM}" type="2"/></msg>'},
        {"Type": 34, "StrContent": '<msg><voicemsg voicelength="900"/><voicetrans transtext="到了"/></msg>'},
        {"Type": 43, "StrContent": '<msg><videomsg md5="ff"/></msg>'},
        {"Type": 48, "StrContent": '<msg><location x="30.2" y="120.1" label="杭州" poiname="西湖"/></msg>'},
        {"Type": 42, "StrContent": '<msg username="wxid_c" nickname="小陈"/>'},
        {"Type": 50, "StrContent": "<voipmsg><VoIPBubbleMsg><msg><![CDATA[通话时长 00:10]]></msg></VoIPBubbleMsg></voipmsg>"},
        {"Type": 49, "SubType": 6, "StrContent": "<msg><appmsg><title>合同.pdf</title><type>6</type></appmsg></msg>"},
        {"Type": 49, "SubType": 5, "StrContent": "<msg><appmsg><title>菜谱</title><des>汤</des><type>5</type><url>http://x.cn/?a=1&amp;b</url></appmsg></msg>"},
        {"Type": 49, "SubType": 57, "StrContent": "<msg><appmsg><title>好的</title><type>57</type><refermsg><svrid>77</svrid><content>&lt;a&gt;</content></refermsg></appmsg></msg>"},
        {"Type": 49, "SubType": 2000, "StrContent": "<msg><appmsg><title>微信转账</title><type>2000</type><wcpayinfo><feedesc>￥5.00</feedesc><pay_memo>车费</pay_memo></wcpayinfo></appmsg></msg>"},
        {"Type": 49, "SubType": 62, "StrContent": "<msg><appmsg><title>波 拍了拍 安</title><type>62</type></appmsg></msg>"},
        {"Type": 10000, "StrContent": '"波"邀请"安" <a href="x">加入</a>'},
        {"Type": 1, "StrContent": "1 < 2 > 0"},
    ]  # fmt: skip
    chat = _of(tmp_path, *rows)
    assert [(message.kind, message.text, message.media) for message in chat.messages] == [
        ("sticker", "", (Media("sticker", f"{SUM}.gif", f"emoji/{SUM}.gif"),)),
        ("voice", "到了", (Media("voice"),)),
        ("video", "", (Media("video"),)),
        ("place", "西湖\n杭州\n30.2, 120.1", ()),
        ("contact", "小陈", ()),
        ("call", "通话时长 00:10", ()),
        ("file", "", (Media("file", "合同.pdf", "file/合同.pdf"),)),
        ("link", "菜谱\n汤\nhttp://x.cn/?a=1&b", ()),
        ("text", "好的", ()),
        ("text", "微信转账\n￥5.00\n车费", ()),
        ("system", "波 拍了拍 安", ()),
        ("system", '"波"邀请"安" 加入', ()),
        ("text", "1 < 2 > 0", ()),
    ]
    assert chat.messages[8].reply_to == "77"
    assert chat.account.lines() == []


def test_lines_of_the_app_in_xml(tmp_path: Path) -> None:
    template = (
        '<sysmsg type="sysmsgtemplate"><sysmsgtemplate><content_template><template>'
        '<![CDATA["$username$"邀请"$names$"加入了群聊]]></template><link_list>'
        '<link name="username"><memberlist><member><nickname>波</nickname></member></memberlist></link>'
        '<link name="names"><memberlist><member><nickname>安</nickname></member>'
        "<member><nickname>陈</nickname></member></memberlist></link>"
        "</link_list></content_template></sysmsgtemplate></sysmsg>"
    )
    recalled = "<sysmsg><revokemsg><msgid>7</msgid><replacemsg><![CDATA[波 撤回]]></replacemsg></revokemsg></sysmsg>"
    rows: list[dict[str, object]] = [
        {"Type": kind, "StrContent": said}
        for kind, said in ((10000, template), (10002, recalled), (10000, "<![CDATA[半个]]> <b>"))
    ]
    chat = _of(tmp_path, *rows)
    assert [message.text for message in chat.messages] == [
        '"波"邀请"安、陈"加入了群聊',
        "波 撤回",
        "半个",
    ]


def test_a_quote_finds_its_message_by_time_and_sender(tmp_path: Path) -> None:
    quote = (
        "<msg><appmsg><title>好的</title><type>57</type><refermsg><svrid>77</svrid>"
        "<fromusr>wxid_bo</fromusr><createtime>1714550400</createtime></refermsg></appmsg></msg>"
    )
    one = {"Type": 1, "StrContent": "去湖边吗？"}
    other = {"Type": 1, "StrContent": "不", "Sender": "wxid_ann", "NickName": "安"}
    later = {"Type": 49, "SubType": 57, "StrContent": quote, "CreateTime": 1714550460}
    assert _of(tmp_path, one, other, later).messages[2].reply_to == "1"
    # where two may be meant, the server's own name for it stays
    assert _of(tmp_path, one, one, later).messages[2].reply_to == "77"


@pytest.mark.parametrize(
    "xml",
    [
        '<!DOCTYPE a [<!ENTITY b "bb">]><msg><appmsg><title>&b;</title></appmsg></msg>',
        "<msg>" * 100_000,
        "<msg><appmsg><title>half",
        "<msg " + " ".join(f'a{number}="1"' for number in range(50_000)) + "/>",
    ],
)
def test_hostile_xml_is_counted_and_quick(tmp_path: Path, xml: str) -> None:
    begun = time.process_time()
    chat = _of(tmp_path, {"Type": 49, "SubType": 5, "StrContent": xml})
    assert time.process_time() - begun < 2
    assert [message.kind for message in chat.messages] == ["link"]
    assert "&b;" in xml or len(chat.messages[0].text) <= 4


def test_a_quote_that_never_ends_costs_its_row_alone(tmp_path: Path) -> None:
    text = MEMOTRACE + '4,9,1,0,0,1714550480,2,"open,2024-05-01 16:01:20,,波,wxid_bo\n'
    text += "5,9,1,0,0,1714550490,2,later,2024-05-01 16:01:30,,波,wxid_bo\n9,9,777,0\n"
    (tmp_path / "a.csv").write_text(text)
    chat = read_chat(tmp_path / "a.csv")
    assert [message.text for message in chat.messages][3:] == ["later"]
    assert chat.account.num_not_understood == 2
    assert chat.account.num_lines == len(text.splitlines())


def test_cells_and_records_are_those_of_the_csv_module() -> None:
    rows = [["a", 'b "c"', "d\ne", ""], ['"', ",", "\n\n", "x"], ["", "", "", ""]]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    lines = enumerate(written.getvalue().splitlines(), 1)
    assert [cells(record) for _, record in records(iter(lines), Account(), "f")] == rows


def test_a_quote_finds_its_message_by_the_id_of_the_server(tmp_path: Path) -> None:
    quote = "<msg><appmsg><title>好</title><type>57</type><refermsg><svrid>77</svrid></refermsg></appmsg></msg>"
    text = (
        "localId,TalkerId,Type,SubType,IsSender,CreateTime,StrContent,Sender,MsgSvrID\n"
        f"1,9,1,0,0,1714550400,去,a,77\n2,9,49,57,1,1714550460,{quote},b,78\n"
    )
    (tmp_path / "x.csv").write_text(text)
    one, two = read_chat(tmp_path / "x.csv").messages
    assert (one.id, two.id, two.reply_to) == ("77", "78", "77")


def test_a_picture_is_found_by_a_name_anywhere_in_its_xml(tmp_path: Path) -> None:
    _picture(tmp_path, "image/IMG_7.png")
    xml = "<msg><img length='9'/><extra><name>IMG_7.png</name></extra></msg>"
    chat = _of(tmp_path, {"Type": 3, "StrContent": xml})
    assert chat.messages[0].media == (Media("picture", "IMG_7.png", "image/IMG_7.png"),)
