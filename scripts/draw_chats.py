"""Draws the chats that `ffr quickstart` asks: their pictures and `chats.jsonl` under `ffr/shipped/chats`.

    python scripts/draw_chats.py

Two friends plan a weekend at a lake, and a family gets a birthday ready and looks after a cat, in English and in
Chinese, as chats go: one thing between the lines of another.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

FOLDER = Path(__file__).resolve().parent.parent / "ffr" / "shipped" / "chats"
SIZE = (320, 240)

Line = tuple[str, str, str]
"""Speaker, what is said (a picture in brackets before it), and the topic it belongs to."""

ENGLISH: list[Line] = [
    ("Mia", "morning! does anyone have plans for the long weekend?", "lake"),
    ("Jonas", "we could go to the lake again, like two summers ago", "lake"),
    ("Mia", "oh yes please. the hut by the north shore?", "lake"),
    ("Jonas", "the hut is free, I just called them. three nights from Friday", "lake"),
    ("Mia", "[lake] this is from last time, look at that water", "lake"),
    ("Jonas", "we take the 9:40 train and rent a boat there", "lake"),
    ("Mia", "I bring the tent for the kids, and the big pot", "lake"),
    ("Jonas", "perfect. then I book the hut now", "lake"),
    ("Mia", "did you hear back from the job interview?", "job"),
    ("Jonas", "they want me to come again on Tuesday, second round", "job"),
    ("Mia", "that is great news!! what do they ask this time?", "job"),
    ("Jonas", "a small task on my own laptop, and a talk with the whole team", "job"),
    ("Mia", "keeping my fingers crossed for you on Tuesday", "job"),
    ("Jonas", "thanks, I will need it", "job"),
    ("Mia", "is anybody good with washing machines? ours leaks since Monday", "washing"),
    ("Jonas", "where does the water come out, at the front or below?", "washing"),
    ("Mia", "below, only when it spins", "washing"),
    ("Jonas", "then it is the drain hose. turn it off and look at the clip behind it", "washing"),
    ("Jonas", "[ticket] and here are our train tickets, Friday 9:40, coach 5", "lake"),
    ("Mia", "wonderful, I pack for the lake tonight", "lake"),
    ("Mia", "you were right, the clip was loose! no more water on the floor", "washing"),
    ("Jonas", "my bill is one slice of cake", "washing"),
    ("Mia", "deal", "washing"),
]
CHINESE: list[Line] = [
    ("小雨", "早上好！我先说个事，下周六是妈妈六十岁生日", "birthday"),
    ("小雨", "我想订个大蛋糕，再请外婆一家过来吃饭", "birthday"),
    ("老王", "生日在家里过还是去饭店？", "birthday"),
    ("小雨", "在家里吧，妈妈不喜欢饭店吵", "birthday"),
    ("老王", "蛋糕我来订，街口那家，水果的好不好", "birthday"),
    ("小雨", "[cake] 像这样的，上面写“六十大寿”", "birthday"),
    ("老王", "没问题，周五下午去取", "birthday"),
    ("小雨", "那外婆那边我去接，你们六点前到就行", "birthday"),
    ("老王", "你新租的房子找得怎么样了", "flat"),
    ("小雨", "昨天看了两套，一套太贵，一套没有阳台", "flat"),
    ("老王", "离公司近的话，贵一点也值得", "flat"),
    ("小雨", "我再看看吧，周末还约了一套", "flat"),
    ("小雨", "对了，家里的猫今天不肯吃东西", "cat"),
    ("老王", "从什么时候开始的？", "cat"),
    ("小雨", "昨天晚上，一直躲在沙发下面", "cat"),
    ("小雨", "[cat] 你看它这个样子", "cat"),
    ("老王", "带它去看兽医吧，我认识一个好的，在河边那条街", "cat"),
    ("小雨", "约好了，明天早上十点半", "cat"),
    ("老王", "晚上一起看球吗？八点开始", "football"),
    ("小雨", "看！来我家，我买点烧烤", "football"),
    ("老王", "好，我带啤酒", "football"),
    ("小雨", "兽医说猫只是胃不舒服，打了一针，两天就好", "cat"),
    ("老王", "那就放心了", "cat"),
]
CHATS: dict[str, tuple[list[Line], list[tuple[str, str]]]] = {
    "two-friends": (ENGLISH, [("the plan for the trip to the lake, with the photos", "lake")]),
    "a-family": (
        CHINESE,
        [("妈妈的生日怎么过", "birthday"), ("what was wrong with the cat", "cat")],
    ),
}
"""Each chat with its queries; the last one is in the language of the other."""


def _ridge(pen: random.Random, width: int, roughness: float) -> list[float]:
    """Heights of a ridge by halving its pieces, each middle moved by chance."""
    points = [0.0, 0.0]
    reach = 1.0
    while len(points) < width:
        middles = [
            (left + right) / 2 + pen.uniform(-reach, reach)
            for left, right in itertools.pairwise(points)
        ]
        points = [
            x for pair in itertools.zip_longest(points, middles) for x in pair if x is not None
        ]
        reach *= roughness
    return points[:width]


def lake(image: Image.Image) -> None:
    """Hills one behind the other, a forest on the shore, and all of it once more in the water."""
    pen = random.Random(11)
    width, height = image.size
    shore = height * 11 // 20
    draw = ImageDraw.Draw(image)
    for y in range(shore):
        share = y / shore
        draw.line(
            (0, y, width, y),
            fill=(int(92 + 118 * share), int(142 + 76 * share), int(205 + 25 * share)),
        )
    for layer, (base, reach, colour) in enumerate(
        ((0.62, 62, (128, 148, 168)), (0.76, 46, (92, 118, 128)), (0.9, 26, (58, 84, 72)))
    ):
        ridge = _ridge(pen, width, 0.55)
        for x, lift in enumerate(ridge):
            top = int(shore * base - reach * abs(lift))
            for y in range(top, shore):
                shade = pen.randint(-9, 9) + (y - top) // (3 + layer)
                image.putpixel((x, y), tuple(max(0, min(255, part + shade)) for part in colour))
    for x in range(0, width, 3):
        tree = pen.randint(8, 24)
        green = pen.randint(-10, 12)
        draw.polygon(
            [(x - 4, shore), (x, shore - tree), (x + 4, shore)],
            fill=(26 + green, 52 + green, 34 + green),
        )
    water = image.crop((0, 2 * shore - height, width, shore)).transpose(
        Image.Transpose.FLIP_TOP_BOTTOM
    )
    water = water.filter(ImageFilter.GaussianBlur(1.6))
    for y in range(water.height):
        shift = int(3 * math.sin(y / 1.7) * (y / water.height))
        row = water.crop((0, y, width, y + 1))
        deep = Image.new("RGB", row.size, (30, 62, 84))
        image.paste(Image.blend(row, deep, 0.25 + 0.3 * y / water.height), (shift, shore + y))
    ImageDraw.Draw(image).line((0, shore, width, shore), fill=(150, 160, 150))


def cake(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 0, 320, 240), fill=(238, 226, 214))
    draw.ellipse((30, 170, 290, 226), fill=(215, 215, 220))
    draw.rectangle((65, 120, 255, 195), fill=(250, 240, 225))
    draw.ellipse((65, 175, 255, 215), fill=(250, 240, 225))
    draw.ellipse((65, 98, 255, 142), fill=(255, 250, 245))
    for number in range(9):
        angle = 2 * math.pi * number / 9
        x, y = 160 + 75 * math.cos(angle), 120 + 16 * math.sin(angle)
        draw.ellipse((x - 9, y - 8, x + 9, y + 8), fill=(205, 30, 45))
    for x in (130, 160, 190):
        draw.rectangle((x - 3, 70, x + 3, 118), fill=(90, 150, 220))
        draw.ellipse((x - 5, 52, x + 5, 72), fill=(255, 190, 60))


def cat(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 0, 320, 240), fill=(150, 120, 95))
    draw.rectangle((0, 0, 320, 70), fill=(95, 60, 55))
    fur = (215, 140, 70)
    draw.ellipse((95, 120, 285, 225), fill=fur)
    draw.ellipse((55, 90, 155, 185), fill=fur)
    for left in (60, 115):
        draw.polygon([(left, 110), (left + 14, 66), (left + 36, 100)], fill=fur)
        draw.polygon([(left + 7, 106), (left + 14, 78), (left + 28, 100)], fill=(235, 180, 160))
    for x in (85, 125):
        draw.ellipse((x - 8, 122, x + 8, 138), fill=(200, 215, 90))
        draw.ellipse((x - 2, 122, x + 3, 138), fill=(20, 20, 20))
    draw.polygon([(99, 146), (111, 146), (105, 154)], fill=(220, 120, 120))
    for y in (150, 157, 164):
        draw.line((95, 154, 50, y), fill=(250, 240, 230))
        draw.line((115, 154, 160, y), fill=(250, 240, 230))
    for x in range(170, 270, 22):
        draw.arc((x - 30, 120, x + 10, 215), 250, 330, fill=(165, 95, 40), width=5)


def ticket(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 0, 320, 240), fill=(90, 100, 110))
    draw.rectangle((25, 45, 295, 195), fill=(248, 248, 240))
    draw.rectangle((25, 45, 295, 80), fill=(190, 40, 50))
    draw.text((38, 54), "RAIL TICKET", fill=(255, 255, 255), font_size=18)
    for row, words in enumerate(("Friday  9:40", "to: North Shore", "coach 5  seats 31-34")):
        draw.text((38, 92 + 24 * row), words, fill=(30, 30, 30), font_size=16)
    pen = random.Random(5)
    x = 38
    while x < 200:
        width = pen.choice((2, 3, 5))
        draw.rectangle((x, 168, x + width, 190), fill=(20, 20, 20))
        x += width + pen.choice((2, 4))


DRAWINGS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "cake": cake,
    "cat": cat,
    "ticket": ticket,
}


def main() -> None:
    """Writes the pictures and the chats."""
    (FOLDER / "pictures").mkdir(parents=True, exist_ok=True)
    pictures = {"lake": Image.new("RGB", SIZE)}
    lake(pictures["lake"])
    for name, paint in DRAWINGS.items():
        pictures[name] = Image.new("RGB", SIZE)
        paint(ImageDraw.Draw(pictures[name]))
    for name, image in pictures.items():
        soft = image.filter(ImageFilter.GaussianBlur(0.6))
        soft.save(FOLDER / "pictures" / f"{name}.jpg", quality=82)
    records = b"".join(
        (json.dumps(_record(name, *CHATS[name]), ensure_ascii=False) + "\n").encode()
        for name in CHATS
    )
    (FOLDER / "chats.jsonl").write_bytes(records)


def _record(name: str, chat: list[Line], queries: list[tuple[str, str]]) -> dict[str, object]:
    lines: list[dict[str, object]] = []
    for speaker, said, _ in chat:
        parts: list[str | dict[str, str]] = []
        if said.startswith("["):
            picture, _, said = said[1:].partition("] ")
            parts.append({"image_url": f"pictures/{picture}.jpg"})
        lines.append({"speaker": speaker, "utterance": [*parts, said] if parts else said})
    return {
        "dialogue_id": name,
        "dialogue": lines,
        "query_text": [query for query, _ in queries],
        "gt_turns": [
            [number for number, (*_, its) in enumerate(chat) if its == topic]
            for _, topic in queries
        ],
    }


if __name__ == "__main__":
    main()
