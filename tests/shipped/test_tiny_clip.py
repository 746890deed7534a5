"""The embedded encoder: it loads with plain transformers, is small, saw nothing of the bundled sets, and knows their topics."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ffr.data.dataset import open_dataset
from ffr.dialogue import Example
from ffr.embedding import Encoder, load_encoder
from ffr.metrics.functional import fragment_order_coherence
from ffr.shipped.tiny import TINY_FOLDER
from ffr.shipped.tiny_clip import TINY_CLIP_FOLDER
from ffr.world.lexicon import TOPICS

REPOSITORY = Path(__file__).resolve().parents[2]


@lru_cache(maxsize=1)
def _loaded() -> Encoder:
    return load_encoder("tiny-clip")


def test_it_loads_with_plain_transformers() -> None:
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(TINY_CLIP_FOLDER)
    assert sum(weight.numel() for weight in model.parameters()) < 500_000
    assert not CLIPImageProcessorPil.from_pretrained(TINY_CLIP_FOLDER).do_center_crop
    tokenizer = AutoTokenizer.from_pretrained(TINY_CLIP_FOLDER)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.padding_side) == (
        "<|start|>",
        "<|end|>",
        "right",
    )
    assert model.config.text_config.eos_token_id == tokenizer.eos_token_id


def test_it_is_small_and_says_where_it_comes_from() -> None:
    sizes = [
        sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        for folder in (TINY_FOLDER, TINY_CLIP_FOLDER)
    ]
    assert sizes[1] < 2_000_000
    assert sum(sizes) < 10_000_000
    assert (
        json.loads((TINY_CLIP_FOLDER / "ffr.json").read_text(encoding="utf-8"))["provenance"][
            "seed"
        ]
        == 0
    )
    assert "real work takes a real encoder" in (TINY_CLIP_FOLDER / "README.md").read_text(
        encoding="utf-8"
    )


def test_its_name_is_all_that_is_needed() -> None:
    encoder = _loaded()
    assert encoder.name == "tiny-clip"
    vectors = encoder.embed_texts(["周末去看球赛吧", "the puppy ate my sock"])
    assert vectors.shape == (2, 64)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2), atol=1e-6)


def test_words_of_a_topic_lie_together_in_both_languages() -> None:
    encoder = _loaded()
    words = [word for topic in TOPICS for word in (topic.zh_words[0], topic.en_words[0])]
    vectors = encoder.embed_texts([f"刚刚又提起{word}这件事" for word in words])
    nearest = (vectors @ vectors.T - 2 * torch.eye(len(words))).argmax(-1)
    assert sum(int(found) // 2 == number // 2 for number, found in enumerate(nearest)) >= 46


# -- what it saw --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training() -> Iterator[ModuleType]:
    """The training script, as a module."""
    folder = str(REPOSITORY / "scripts")
    if not (Path(folder) / "train_tiny_clip.py").is_file():
        pytest.skip("the training script is not part of the installed package")
    sys.path.insert(0, folder)
    import train_tiny_clip

    yield train_tiny_clip
    sys.path.remove(folder)


def test_the_script_makes_this_tokenizer_and_these_sizes(training: ModuleType) -> None:
    from transformers import AutoTokenizer, CLIPConfig

    made = training.make_tokenizer()
    assert made.get_vocab() == AutoTokenizer.from_pretrained(TINY_CLIP_FOLDER).get_vocab()
    shipped = CLIPConfig.from_pretrained(TINY_CLIP_FOLDER)
    config = training.make_config(made)
    for part in ("text_config", "vision_config"):
        for name in ("hidden_size", "num_hidden_layers", "intermediate_size"):
            assert getattr(getattr(config, part), name) == getattr(getattr(shipped, part), name)
    assert config.text_config.vocab_size == shipped.text_config.vocab_size
    for topic in TOPICS:
        for word in training.topic_words(topic):
            assert len(made(word, add_special_tokens=False).input_ids) == 1


def test_nothing_it_saw_is_in_the_sets(training: ModuleType, sample_home: Path) -> None:
    drawn = training.Texts(training.make_tokenizer(), 0)
    own_texts = training.possible_texts()
    bare = {word for topic in TOPICS for word in training.topic_words(topic)}
    assert {drawn.text(topic) for topic in (*TOPICS, None) for _ in range(100)} <= own_texts | bare
    own_pictures = {
        training.pixel_digest(picture)
        for topic in TOPICS
        for picture in training.drawings(topic, 20, training.picture_seed(0))
    }
    assert len(own_pictures) == 480
    for name in ("sample", "wechat-sample"):
        texts, pictures = training.set_contents(sample_home / name)
        assert len(pictures) >= 192
        assert not texts & (own_texts | bare)
        assert not pictures & own_pictures


def test_the_loss_by_hand(training: ModuleType) -> None:
    """Two topics: a text is drawn to the even spread over its topic's others, one without a topic to all of them."""
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    texts, text_topics = torch.stack([east, north]), torch.tensor([0, training.NO_TOPIC])
    pictures, picture_topics = torch.stack([east, east, north]), torch.tensor([0, 0, 1])
    found = training.alignment(texts, text_topics, pictures, picture_topics, is_same=False)
    high = math.exp(training.SCALE)
    first = -math.log(high / (2 * high + 1))
    second = -(2 * math.log(1 / (high + 2)) + math.log(high / (high + 2))) / 3
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-5)
    # an item is not its own positive: of the two at east each has the other alone
    found = training.alignment(
        pictures[[0, 1, 2, 2]],
        torch.tensor([0, 0, 1, 1]),
        pictures[[0, 1, 2, 2]],
        torch.tensor([0, 0, 1, 1]),
        is_same=True,
    )
    assert float(found) == pytest.approx(-math.log(high / (high + 2)), abs=1e-6)


# -- what it knows ------------------------------------------------------------------------------------------------------------


def _coherence(
    example: Example, texts: torch.Tensor, pictures: torch.Tensor, image_ids: list[int]
) -> float:
    """Coherence of the true utterances with these images."""
    assert example.fragment is not None
    hangs_on = example.dialogue.image_utterance_ids
    utterance_ids = example.fragment.utterance_ids
    return float(
        fragment_order_coherence(
            utterance_ids,
            texts[list(utterance_ids)],
            [hangs_on[item] for item in image_ids],
            pictures[image_ids],
            is_target_empty=False,
        )
    )


def test_coherence_tells_right_from_wrong_on_pictures_it_never_saw(sample_home: Path) -> None:
    """What the order reward needs: a right picture costs nothing, a wrong one does."""
    encoder = _loaded()
    rows = []
    for example in list(open_dataset(sample_home / "sample" / "val.jsonl"))[::3]:
        assert example.fragment is not None
        right = list(example.fragment.image_ids)
        pictures = encoder.embed_images(list(example.image_locations()))
        others = sorted(set(range(len(pictures))) - set(right))
        if len(example.fragment.utterance_ids) < 2 or not right or not others:
            continue
        texts = encoder.embed_texts([line.text for line in example.dialogue.utterances])
        rows.append(
            [_coherence(example, texts, pictures, ids) for ids in (right, [], [*right, others[0]])]
        )
    assert len(rows) > 40
    whole, without, wrong = torch.tensor(rows).mean(0).tolist()
    assert whole >= without - 0.005
    assert whole > wrong + 0.1
