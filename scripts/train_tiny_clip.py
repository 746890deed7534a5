"""Trains the embedded text–image encoder `tiny-clip` from nothing: `python scripts/train_tiny_clip.py --out DIR --seed 0`.

A CLIP of transformers learns the 24 topics of the lexicon: lines, queries and bare words in the wordings that no bundled set uses,
and drawings of its own seed. A step sees every topic; each text and picture is drawn to all texts and to all pictures of its topic
(cross-entropy against the even spread over them, CLIP's loss with many positives), and texts without a topic keep the same distance
from all. Random tokens between the words of a topic stand for wordings it has never seen. One thread, about five minutes;
DIR/log.jsonl says what happened, DIR/base is the model's folder.

Shapes: T topics, n texts or pictures, L tokens, H width of the joint space.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ffr.data.dataset import open_dataset
from ffr.data.sample.generate import SAMPLE_NAMES, write_sample
from ffr.world.lexicon import LANGUAGES, TOPICS, WORDINGS, Topic
from ffr.world.pictures import draw

END, PAD, START = "<|end|>", "<|pad|>", "<|start|>"
CONTEXT, IMAGE_SIDE, PATCH = 77, 56, 14
SCALE = 8.0
"""What cosines are multiplied by in the loss. A larger one is content with topics that lie close together; coherence wants them apart."""
TEXTS_PER_TOPIC, PICTURES_PER_TOPIC, NO_TOPIC_PER_STEP = 5, 4, 24
DRAWINGS_PER_TOPIC, UNSEEN_PER_TOPIC = 500, 20
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.01
NO_TOPIC = -1


# -- model ------------------------------------------------------------------------------------------------------------------


def topic_words(topic: Topic) -> tuple[str, ...]:
    return (*topic.zh_names, *topic.en_names, *topic.zh_words, *topic.en_words)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over lower-case text; a word of a topic is one token. It knows the base wordings and no other."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), behavior="removed"),
            pre_tokenizers.Split(Regex(r"\p{N}|\p{L}+|[^\p{L}\p{N}]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1_100,
        special_tokens=[END, PAD, START],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=14,
        show_progress=False,
    )
    corpus = [word for topic in TOPICS for word in (*topic.en_names, *topic.en_words)] * 400
    for language in LANGUAGES:
        wording = WORDINGS["base", language]
        for text in (*wording.lines, *wording.follow_ups, *wording.fillers, *wording.queries):
            corpus += [text.replace("{0}", " ").replace("{1}", " ")] * 4
    tokenizer.train_from_iterator(corpus, trainer)
    chinese = [word for topic in TOPICS for word in (*topic.zh_names, *topic.zh_words)]
    tokenizer.add_tokens(
        [AddedToken(word, normalized=False) for word in sorted(chinese, key=lambda w: (-len(w), w))]
    )
    ends = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def make_config(tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    return CLIPConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 8) * 8,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIDE,
            "patch_size": PATCH,
        },
        projection_dim=64,
        logit_scale_init_value=math.log(SCALE),
    )


def make_image_processor() -> CLIPImageProcessorPil:
    """CLIP's, without its cut at the centre: what is drawn may stand at the edge."""
    side = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    return CLIPImageProcessorPil(
        size=side,
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
        do_convert_rgb=True,
    )


# -- what it learns from ----------------------------------------------------------------------------------------------------


class Texts:
    """Draws texts of the base wordings and their token ids, with random tokens strewn in; owns their chance.

    Args:
        tokenizer: The tokenizer.
        seed: Seed of all that is drawn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._tokenizer = tokenizer
        self._chance = random.Random(f"{seed} texts")
        taken = {self._tokens(word)[0] for topic in TOPICS for word in topic_words(topic)}
        taken |= set(tokenizer.all_special_ids)
        self._filling = [token for token in range(len(tokenizer)) if token not in taken]
        self._topical = taken

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def text(self, topic: Topic | None) -> str:
        """A line, a query or a bare word of a topic, or a line without one."""
        chance = self._chance
        language = chance.choice(LANGUAGES)
        wording = WORDINGS["base", language]
        if topic is None:
            return chance.choice((*wording.follow_ups, *wording.fillers))
        names, words = (
            (topic.zh_names, topic.zh_words)
            if language == "zh"
            else (topic.en_names, topic.en_words)
        )
        kind = chance.random()
        if kind < 0.15:
            return chance.choice((*names, *words))
        if kind < 0.4:
            return chance.choice(wording.queries).format(*chance.sample((*names, *words), 2))
        return chance.choice(wording.lines).format(*chance.sample(words, 2))

    def row(self, topic: Topic | None) -> list[int]:
        """The ids of a text as the model gets them."""
        chance = self._chance
        if topic is None and chance.random() < 0.6:
            ids = self._noise(chance.randint(1, 50))
        else:
            ids = self._tokens(self.text(topic))
            if chance.random() < 0.5:
                ids = [token for token in ids if token in self._topical or chance.random() < 0.6]
            if chance.random() < 0.6:
                for _ in range(chance.randint(1, 3)):
                    at = chance.randint(0, len(ids))
                    ids = [*ids[:at], *self._noise(chance.randint(1, 16)), *ids[at:]]
        ends = self._tokenizer
        return [ends.bos_token_id, *ids[: CONTEXT - 2], ends.eos_token_id]

    def _noise(self, number: int) -> list[int]:
        return self._chance.choices(self._filling, k=number)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and mask (n, L), and the topic of each text (n,), with `NO_TOPIC` at the end."""
        topics = [number for number in range(len(TOPICS)) for _ in range(TEXTS_PER_TOPIC)]
        topics += [NO_TOPIC] * NO_TOPIC_PER_STEP
        rows = [self.row(None if topic == NO_TOPIC else TOPICS[topic]) for topic in topics]
        ids = torch.full((len(rows), max(map(len, rows))), int(self._tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids, mask, torch.tensor(topics)


def drawings(topic: Topic, number: int, seed: str) -> list[Image.Image]:
    """The first drawings of a topic; more of them begin with the same ones."""
    chance = random.Random(f"{seed} {topic.key}")
    return [
        draw(topic.key, chance, width=chance.randint(84, 96), height=chance.randint(84, 96))
        for _ in range(number)
    ]


def draw_pool(number: int, seed: str) -> Tensor:
    """Processed drawings of every topic: (T, number, 3, side, side) float16."""
    processor = make_image_processor()
    rows = [
        processor(images=drawings(topic, number, seed), return_tensors="pt")["pixel_values"].half()
        for topic in TOPICS
    ]
    return torch.stack(rows)


def check_disjoint(seed: int) -> dict[str, int]:
    """Checks that no line, query or drawing of this training stands in a part of the bundled sets.

    Raises:
        SystemExit: where one does.
    """
    own_texts = possible_texts()
    own_pictures = {
        pixel_digest(picture)
        for topic in TOPICS
        for picture in drawings(topic, DRAWINGS_PER_TOPIC, picture_seed(seed))
    }
    texts: set[str] = set()
    pictures: set[str] = set()
    for name in SAMPLE_NAMES:
        with tempfile.TemporaryDirectory() as folder:
            write_sample(Path(folder), name)
            set_texts, set_pictures = set_contents(Path(folder))
        texts |= set_texts
        pictures |= set_pictures
    if shared := (texts & own_texts) | (pictures & own_pictures):
        raise SystemExit(
            f"{len(shared)} texts or pictures stand in the bundled sets too, such as {min(shared)!r}"
        )
    return {
        "own_texts": len(own_texts),
        "own_pictures": len(own_pictures),
        "set_texts": len(texts),
        "set_pictures": len(pictures),
    }


def picture_seed(seed: int) -> str:
    return f"{seed} tiny-clip"


def pixel_digest(picture: Image.Image) -> str:
    return hashlib.sha256(str(picture.size).encode() + picture.tobytes()).hexdigest()


def possible_texts() -> set[str]:
    """Every line and query that `Texts.text` can give, before tokens are strewn in; bare words are no one's line."""
    found: set[str] = set()
    for language in LANGUAGES:
        wording = WORDINGS["base", language]
        found |= {*wording.follow_ups, *wording.fillers}
        for topic in TOPICS:
            names, words = (
                (topic.zh_names, topic.zh_words)
                if language == "zh"
                else (topic.en_names, topic.en_words)
            )
            for templates, choices in ((wording.lines, words), (wording.queries, (*names, *words))):
                for template in templates:
                    seconds = choices if "{1}" in template else choices[:1]
                    found |= {
                        template.format(first, second) for first in choices for second in seconds
                    }
    return found


def set_contents(folder: Path) -> tuple[set[str], set[str]]:
    """The lines and queries of a bundled set, and digests of its pictures."""
    texts: set[str] = set()
    for part in sorted(folder.glob("*.jsonl")):
        for example in open_dataset(part):
            texts |= {example.query, *(line.text for line in example.dialogue.utterances)}
    pictures = set()
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            pictures.add(pixel_digest(picture))
    return texts, pictures


# -- training ---------------------------------------------------------------------------------------------------------------


def alignment(
    anchors: Tensor, anchor_topics: Tensor, others: Tensor, other_topics: Tensor, *, is_same: bool
) -> Tensor:
    """Cross-entropy of each anchor's similarities against the even spread over the others of its topic.

    An anchor without a topic takes the even spread over all others. Vectors are normalised; `is_same` says that anchors begin with
    the others themselves, which are then not their own positives.

    Args:
        anchors: (n, H).
        anchor_topics: (n,), `NO_TOPIC` where there is none.
        others: (m, H), all with a topic.
        other_topics: (m,).
        is_same: Whether row i of `others` is row i of `anchors`.
    """
    logits = SCALE * anchors @ others.T
    wanted = (anchor_topics[:, None] == other_topics) | (anchor_topics[:, None] == NO_TOPIC)
    if is_same:
        itself = torch.zeros_like(wanted).fill_diagonal_(True)
        wanted, logits = wanted & ~itself, logits.masked_fill(itself, -1e4)
    targets = wanted / wanted.sum(-1, keepdim=True)
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def step_loss(
    texts: Tensor, text_topics: Tensor, pictures: Tensor, picture_topics: Tensor
) -> Tensor:
    """Mean of the four directions: text to text, text to picture, picture to text, picture to picture."""
    topical = text_topics != NO_TOPIC
    some, some_topics = texts[topical], text_topics[topical]
    return (
        alignment(texts, text_topics, some, some_topics, is_same=True)
        + alignment(texts, text_topics, pictures, picture_topics, is_same=False)
        + alignment(pictures, picture_topics, some, some_topics, is_same=False)
        + alignment(pictures, picture_topics, pictures, picture_topics, is_same=True)
    ) / 4


def embed_pictures(model: CLIPModel, pixels: Tensor) -> Tensor:
    return F.normalize(model.get_image_features(pixel_values=pixels.float()).pooler_output, dim=-1)


def embed_texts(model: CLIPModel, ids: Tensor, mask: Tensor) -> Tensor:
    return F.normalize(
        model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output, dim=-1
    )


@torch.no_grad()
def unseen_right(model: CLIPModel, texts: Texts, unseen: Tensor) -> float:
    """Share of drawings never trained on that are nearest to the mean text of their own topic."""
    ids, mask, topics = texts.batch()
    vectors = embed_texts(model, ids, mask)
    means = torch.stack([vectors[topics == number].mean(0) for number in range(len(TOPICS))])
    found = [
        (embed_pictures(model, unseen[number]) @ means.T).argmax(-1) == number
        for number in range(len(TOPICS))
    ]
    return float(torch.stack(found).float().mean())


def train(
    model: CLIPModel, tokenizer: PreTrainedTokenizerFast, num_steps: int, seed: int, log: Any
) -> None:
    texts, judged_texts = Texts(tokenizer, seed), Texts(tokenizer, seed + 1)
    pool = draw_pool(DRAWINGS_PER_TOPIC, picture_seed(seed))
    unseen = draw_pool(UNSEEN_PER_TOPIC, f"{picture_seed(seed)} unseen")
    generator = torch.Generator().manual_seed(seed)
    picture_topics = torch.arange(len(TOPICS)).repeat_interleave(PICTURES_PER_TOPIC)
    model.logit_scale.requires_grad_(False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    started = time.process_time()
    for step in range(num_steps):
        ids, mask, text_topics = texts.batch()
        drawing = torch.randint(DRAWINGS_PER_TOPIC, picture_topics.shape, generator=generator)
        loss = step_loss(
            embed_texts(model, ids, mask),
            text_topics,
            embed_pictures(model, pool[picture_topics, drawing]),
            picture_topics,
        )
        rate = min(1, (step + 1) / 100) * (
            0.01 + 0.99 * (1 + math.cos(math.pi * step / num_steps)) / 2
        )
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step == num_steps - 1:
            right = unseen_right(model, judged_texts, unseen)
            log({"step": step + 1, "loss": round(loss.item(), 4), "unseen_right": round(right, 4), "seconds": round(time.process_time() - started)})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the embedded encoder tiny-clip.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2_400)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    def log(entry: dict[str, Any]) -> None:
        print(json.dumps(entry), flush=True)
        with (options.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    log({"disjoint": check_disjoint(options.seed)})
    tokenizer = make_tokenizer()
    torch.manual_seed(options.seed)
    model = CLIPModel(make_config(tokenizer))
    log(
        {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "vocabulary": len(tokenizer),
        }
    )
    train(model, tokenizer, options.steps, options.seed, log)
    folder = options.out / "base"
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_image_processor().save_pretrained(folder)
    provenance = {
        "seed": options.seed,
        "steps": options.steps,
        "script": "scripts/train_tiny_clip.py",
    }
    (folder / "ffr.json").write_text(
        json.dumps({"provenance": provenance}, indent=2) + "\n", encoding="utf-8"
    )
    log({"base": str(folder)})


if __name__ == "__main__":
    main()
