"""Tokenizers of unlike kinds, with which an answer is spelled."""

from __future__ import annotations

from collections.abc import Callable

from model_builds import BUILDS
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ffr.answer import format_answer
from ffr.dialogue import Fragment


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """The kind of Llama 2 and Mistral: blanks are parts of pieces, bytes stand in for unknown letters."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    texts = [format_answer(Fragment(tuple(range(0, 60, step)), (0, step))) for step in range(1, 20)]
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", unk_token="<unk>")


def marker_tokenizer() -> PreTrainedTokenizerFast:
    """The task's markers as tokens of their own, like `tiny`."""
    fast = BUILDS["qwen2-vl"]()[1]
    fast.add_tokens(
        [
            "<|utt_ids_start|>",
            "<|utt_ids_end|>",
            "<|img_ids_start|>",
            "<|img_ids_end|>",
            "[]",
            ", 1",
        ]
    )
    return fast


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    **{name: (lambda build=build: build()[1]) for name, build in BUILDS.items()},
    "metaspace": metaspace_tokenizer,
    "markers": marker_tokenizer,
}
