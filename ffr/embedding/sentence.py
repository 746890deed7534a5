"""Sentence encoders: one vector a text, laid out on disk as by sentence-transformers.

Shapes: n texts or fragments of a call, L tokens of the longest text of a batch, H hidden size.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ffr.embedding.bert_layers import BertLayers, layers_of
from ffr.embedding.files import (
    CutNotice,
    as_text,
    check_device,
    fingerprint_of,
    load_tokenizer,
    load_weights,
    read_settings,
    weights_digest_of,
)
from ffr.embedding.interface import check_parts, mean_of_parts
from ffr.embedding.prefixes import Prefixes
from ffr.embedding.tokens import StatesOfTokens
from ffr.errors import ModelError, UsageError
from ffr.model_files import check_model_folder, loading_explained
from ffr.parts import (
    FragmentParts,
    Pictures,
    Texts,
    as_fragments,
    as_pictures,
    as_texts,
)
from ffr.text import one_line
from ffr.threads import one_thread

Pooling = Literal["mean", "cls"]

SENTENCE_KINDS = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert")
"""The sentence encoders that are known, by transformers' name."""

BATCH_SIZE = 32
"""Texts that go through an encoder at once, those of like length together."""

COUNTS_POSITIONS_FROM_PADDING = ("roberta", "xlm-roberta", "mpnet")
"""Their first position is one after the padding's id, and they do not count padding."""

_ONE_BY_ONE = ("mpnet",)
"""The last bits of their vectors hang on the size of a batch, whatever is in it."""

_FEW_TEXTS = 8
"""Up to so many texts of a call are taken for questions, which go through one by one."""

_FEW_TOKENS = 64
"""Up to so many tokens of one text need no second thread."""

_POOLING_MODE = re.compile(r"pooling_mode_(\w+?)(?:_tokens?)?")
_LINE_PROMPTS = ("document", "passage", "corpus")
_MAX_PREFIX_CHARS = 1_000
_MODULES = ("Transformer", "Pooling", "Normalize")


class SentenceEncoder(StatesOfTokens):
    """A model of texts alone, with pooling. Made by `load_encoder`.

        mean: v = Σ_t m_t h_t / Σ_t m_t over the last hidden states h with the attention mask m;
        cls: v = h_0;  then v / |v|

    The vector of a fragment is the mean of the normalised vectors of its texts, normalised anew; a
    fragment with pictures is refused. A vector may differ in its last bits with what else is in its
    batch, as matrix products do.

    Args:
        model: The transformers model.
        tokenizer: Its tokenizer.
        name: What the user called it.
        pooling: mean or cls.
        max_text_tokens: Longer texts are cut at their end; the special tokens count.
        is_lowered: Whether texts are put into lower case first.
        prefixes: What stands before lines and queries; `embed_texts` takes texts as they are.
    """

    takes_images = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        pooling: Pooling = "mean",
        max_text_tokens: int,
        is_lowered: bool = False,
        prefixes: Prefixes = Prefixes(),  # noqa: B008 - it cannot be changed
    ) -> None:
        self.name = name
        self.prefixes = prefixes
        self.pooling = pooling
        self.max_text_tokens = max_text_tokens
        self.model = model
        self.tokenizer = tokenizer
        self.is_lowered = is_lowered
        self._cut_notice = CutNotice(max_text_tokens)
        self._vocabulary_size = int(model.config.vocab_size)

    @cached_property
    def _arguments(self) -> set[str]:
        """What the model takes of that which its tokenizer gives."""
        return set(inspect.signature(self.model.forward).parameters)

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, tokenizer, pooling, longest text, prefixes, kinds of model and device."""
        settings: dict[str, Any] = {
            "pooling": self.pooling,
            "max_text_tokens": self.max_text_tokens,
            "is_lowered": self.is_lowered,
        }
        if self.prefixes != Prefixes():
            settings["prefixes"] = [self.prefixes.line, self.prefixes.query]
        return fingerprint_of(self.model, self.tokenizer, settings)

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 over the weights alone, whatever the device and the libraries' versions."""
        return weights_digest_of(self.model)

    @torch.no_grad()
    def embed_texts(self, texts: Texts) -> Tensor:
        """One vector a text, (n, H) float32 on the CPU, L2-normalised.

        A text longer than `max_text_tokens` is cut at its end.

        Raises:
            ModelError: where the tokenizer does not fit the model, or a vector is not finite.
        """
        texts = as_texts(texts)
        if len(texts) <= _FEW_TEXTS and self._layers is not None:
            return self._embed(texts, _cut(range(len(texts)), 1), self._question)
        # so that little is padded
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        return self._embed(texts, _cut(order), self.vectors)

    @torch.no_grad()
    def embed_each(self, texts: Texts) -> Tensor:
        """As `embed_texts`, each vector to the bit that of its text alone, on one kind of processor.

        Texts of as many tokens go through together and none is padded, so that a row's products are
        summed in one order whatever stands beside it; those of MPNet, of which that is not so, go
        through alone. On a GPU the library may take another kernel for another number of rows.

        Raises:
            ModelError: as `embed_texts`.
        """
        texts = as_texts(texts)
        alike: dict[int, list[int]] = {}
        for index, length in enumerate(self._lengths(texts)):
            alike.setdefault(length, []).append(index)
        size = 1 if self.model.config.model_type in _ONE_BY_ONE else BATCH_SIZE
        batches = [part for group in alike.values() for part in _cut(group, size)]
        return self._embed(texts, batches, self.vectors)

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text makes, within what the model takes."""
        if not texts:
            return []
        ids = self.tokenizer(
            self._given(texts), truncation=True, max_length=self.max_text_tokens, padding=False
        )["input_ids"]
        return [len(row) for row in ids]

    def _embed(
        self,
        texts: Sequence[str],
        batches: Sequence[Sequence[int]],
        of_batch: Callable[[Mapping[str, Tensor]], Tensor],
    ) -> Tensor:
        """The vectors of texts that go through in these batches of their numbers."""
        vectors = torch.zeros((len(texts), int(self.model.config.hidden_size)))
        for chosen in batches:
            batch = of_batch(self.text_inputs([texts[index] for index in chosen])).cpu()
            if not bool(batch.isfinite().all()):
                raise ModelError(
                    "gives vectors that are not finite; fetch its weights again", self.name
                )
            vectors[list(chosen)] = batch
        return vectors

    @cached_property
    def _layers(self) -> BertLayers | None:
        return layers_of(self.model)

    def _question(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """As `vectors`, of one text, by `_layers` where it is short."""
        if self._layers is None or inputs["input_ids"].numel() > _FEW_TOKENS:
            return self.vectors(inputs)
        hidden = _states(self.model, self._layers, inputs["input_ids"])
        vector = hidden.mean(0) if self.pooling == "mean" else hidden[0]
        return torch.nn.functional.normalize(vector[None], dim=-1)

    def _given(self, texts: Sequence[str]) -> list[str]:
        """The texts as the tokenizer takes them."""
        read = [as_text(text) for text in texts]
        return [text.lower() for text in read] if self.is_lowered else read

    def text_inputs(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the model takes for these texts, as one batch on the CPU.

        Raises:
            ModelError: where the tokenizer does not fit the model.
        """
        inputs = self.tokenizer(
            self._given(texts),
            padding=True,
            truncation=True,
            max_length=self.max_text_tokens,
            return_tensors="pt",
        )
        self._cut_notice.look_at(inputs, self.name)
        if int(inputs["input_ids"].max()) >= self._vocabulary_size:
            raise ModelError(
                "its tokenizer has ids that the model does not know; fetch both again", self.name
            )
        return {name: value for name, value in inputs.items() if name in self._arguments}

    def vectors(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors of a batch of `text_inputs`, (n, H) float32 on the model's device, normalised."""
        given = {name: value.to(self.device) for name, value in inputs.items()}
        hidden = self.model(**given).last_hidden_state.float()
        pooled = hidden[:, 0]
        if self.pooling == "mean":
            mask = given["attention_mask"][..., None].float()
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1)

    def embed_images(self, images: Pictures) -> Tensor:
        """Nothing but an error, where images are asked for.

        Raises:
            UsageError: always, but for no images at all.
        """
        if as_pictures(images):
            raise _no_images(self.name)
        return self.embed_texts([])

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Tensor:
        """One vector a fragment of texts, (n, H) float32 on the CPU, as `mean_of_parts` defines it.

        Raises:
            UsageError: where a fragment has no parts, or pictures.
            ModelError: as `embed_texts`.
        """
        read = as_fragments(fragments)
        check_parts(read)
        if any(not isinstance(part, str) for parts in read for part in parts):
            raise _no_images(self.name)
        return mean_of_parts(self, read)


def _no_images(name: str) -> UsageError:
    return UsageError(
        f"{name} encodes texts only and was asked for a picture; name an encoder of texts and "
        "images (the CLIP family, vlm:MODEL)"
    )


@one_thread()
def _states(model: Any, layers: BertLayers, ids: Tensor) -> Tensor:
    """(L, H) states of one text's tokens, (1, L)."""
    return layers(model.embeddings(input_ids=ids)[0])


def _cut(order: Sequence[int], size: int = BATCH_SIZE) -> list[Sequence[int]]:
    """Numbers of texts in batches."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def load_sentence_encoder(spec: str | Path, *, device: str = "cpu") -> SentenceEncoder:
    """Loads a sentence encoder, from safetensors only and without running code of its own.

    Of sentence-transformers' files these are read where they are there: `modules.json` (only a
    transformer, pooling and normalisation are known), the pooling's `config.json` (mean or cls;
    mean without it), `sentence_bert_config.json` (`max_seq_length`, `do_lower_case`) and
    `config_sentence_transformers.json` (the prompts of queries and of documents are the prefixes of
    queries and lines; one that goes before every text is refused). Vectors are normalised in any
    case.

    Args:
        spec: A folder, or a hub id.
        device: Where the weights go.

    Raises:
        ModelError: where files are missing, damaged, of another kind, not safetensors, or ask for
            what is not known.
        UsageError: where the device is not here.
    """
    from transformers import AutoConfig

    name = str(spec)
    check_device(device)
    with loading_explained(name, kind="a sentence encoder"):
        check_model_folder(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type not in SENTENCE_KINDS:
            raise ModelError(
                f"is a {config.model_type} model; name one of the kinds "
                f"{', '.join(SENTENCE_KINDS)}",
                name,
            )
        tokenizer = load_tokenizer(name)
        settings = _object(
            read_settings(name, "sentence_bert_config.json"), name, "sentence_bert_config.json"
        )
        prefixes = _read_prefixes(name)
        pooling = _read_pooling(name)
        max_text_tokens = _max_text_tokens(config, tokenizer, settings.get("max_seq_length"), name)
        # its own pooler is no part of any vector, and many folders lack it
        options = {} if config.model_type == "distilbert" else {"add_pooling_layer": False}
        model = load_weights(name, device=device, unused="pooler.", **options)
        return SentenceEncoder(
            model,
            tokenizer,
            name=name,
            pooling=pooling,
            max_text_tokens=max_text_tokens,
            is_lowered=settings.get("do_lower_case") is True,
            prefixes=prefixes,
        )


def _object(content: Any, name: str, file: str) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ModelError(f"{file} is no object; restore it", name)
    return content


def _read_prefixes(name: str) -> Prefixes:
    """What stands before lines and queries, by the names that sentence-transformers looks for."""
    file = "config_sentence_transformers.json"
    content = _object(read_settings(name, file), name, file)
    if content.get("default_prompt_name") is not None:
        raise ModelError(f"puts a prompt before every text ({file}), which is not known here", name)
    prompts = content.get("prompts") or {}
    if not isinstance(prompts, dict) or any(
        not isinstance(text, str) or len(text) > _MAX_PREFIX_CHARS for text in prompts.values()
    ):
        raise ModelError(
            f"{file} has prompts that are no texts of up to {_MAX_PREFIX_CHARS} characters; "
            "restore it",
            name,
        )
    line = next((prompts[key] for key in _LINE_PROMPTS if key in prompts), "")
    return Prefixes(line, prompts.get("query", ""))


def _read_pooling(name: str) -> Pooling:
    """The pooling that the files ask for; mean where they say nothing."""
    folder = "1_Pooling"
    modules = read_settings(name, "modules.json")
    if modules is not None:
        try:
            kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
            paths = [str(module["path"]) for module in modules]
        except (TypeError, KeyError):
            raise ModelError("modules.json is no list of modules; restore it", name) from None
        if unknown := [kind for kind in kinds if kind not in _MODULES]:
            raise ModelError(
                f"has a module {unknown[0]}, which is not known; known are {', '.join(_MODULES)}",
                name,
            )
        if "Pooling" in kinds:
            folder = paths[kinds.index("Pooling")]
    file = f"{folder}/config.json"
    content = _object(read_settings(name, file), name, file)
    modes = [
        found[1]
        for key, is_set in content.items()
        if is_set and (found := _POOLING_MODE.fullmatch(key))
    ]
    if "pooling_mode" in content:  # as sentence-transformers writes it from version 6
        modes = [one_line(content["pooling_mode"], 40)]
    if content and (len(modes) != 1 or modes[0] not in get_args(Pooling)):
        asked = " and ".join(modes) or "nothing known"
        raise ModelError(
            f"{file} asks for pooling by {asked}; known are {' and '.join(get_args(Pooling))}", name
        )
    return "cls" if modes == ["cls"] else "mean"


def _max_text_tokens(config: Any, tokenizer: Any, asked: Any, name: str) -> int:
    """Tokens of the longest text: what the settings ask for, within the model's positions."""
    positions = int(config.max_position_embeddings)
    if config.model_type in COUNTS_POSITIONS_FROM_PADDING:
        positions -= int(config.pad_token_id) + 1
    limit = min(positions, int(tokenizer.model_max_length))
    least = tokenizer.num_special_tokens_to_add() + 1
    if asked is not None:
        if not isinstance(asked, int) or asked < least:
            raise ModelError(
                f"sentence_bert_config.json sets max_seq_length to {asked!r}; restore it", name
            )
        limit = min(limit, asked)
    return limit
