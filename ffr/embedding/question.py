"""The vector of a question, without the library that has loaded every line's: BERT's forward pass.

To import transformers and to load a model with it costs some two seconds, which is most of what a
question in a fresh process takes when all lines have their vectors already. This is the same
arithmetic on the same file, of which only the rows of the question's own words are read. Who asks
again is answered by ONNX Runtime where that knows the model's layers: to open it takes longer than
one question, and each takes half as long then.

Shapes: L tokens, H hidden size, A heads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ffr.embedding.bert_layers import BertLayers, has_these_layers
from ffr.errors import ModelError
from ffr.text import one_line
from ffr.threads import one_thread

_KINDS = ("bert",)


class QuestionEncoder:
    """A sentence encoder for a few short texts: mean-pooled BERT (Devlin et al. 2019).

    Args:
        folder: As sentence-transformers lays it out, with `tokenizer.json` and weights in one
            safetensors file.

    Raises:
        ModelError: where it is of another kind, or a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        from ffr.embedding.pieces import Pieces

        try:
            config = _read(folder / "config.json")
            settings = _read(folder / "sentence_bert_config.json")
            pooling = _read(folder / "1_Pooling" / "config.json")
            if (
                config.get("model_type") not in _KINDS
                or config.get("hidden_act") != "gelu"
                or pooling.get("pooling_mode_mean_tokens") is not True
                or settings.get("do_lower_case") is not False
            ):
                raise ModelError("is no mean-pooled BERT", str(folder))
            self._num_layers = int(config["num_hidden_layers"])
            self._num_heads = int(config["num_attention_heads"])
            self._epsilon = float(config["layer_norm_eps"])
            self._words = Pieces(
                folder / "tokenizer.json",
                min(int(settings["max_seq_length"]), int(config["max_position_embeddings"])),
            )
            opened: Any = safe_open
            self._file: Any = opened(folder / "model.safetensors", framework="pt")
            self._names: frozenset[str] = frozenset(self._file.keys())
            self._layers: BertLayers | None = None
            self._can_ask_again = has_these_layers(config)
            self._was_asked = False
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(f"cannot be read ({one_line(error)})", str(folder)) from None
        except Exception as error:  # tokenizers raise nothing narrower
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"tokenizer.json: {one_line(error)}", str(folder)) from None

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """(n, H) float32, L2-normalised, each text by itself.

        Raises:
            ModelError: where a weight is missing, or a vector is not finite.
        """
        if self._was_asked and self._can_ask_again and self._layers is None:
            self._layers = BertLayers(self._weight, self._num_layers)
        self._was_asked = True
        with one_thread():
            rows = [self._vector(self._words.ids(text)) for text in texts]
        vectors = torch.stack(rows)
        if not bool(vectors.isfinite().all()):
            raise ModelError("gives vectors that are not finite; fetch its weights again")
        return vectors

    def _vector(self, ids: list[int]) -> Tensor:
        table = self._file.get_slice("embeddings.word_embeddings.weight")
        words = torch.cat([table[item : item + 1] for item in ids]).float()
        positions = self._file.get_slice("embeddings.position_embeddings.weight")[: len(ids)]
        kinds = self._file.get_slice("embeddings.token_type_embeddings.weight")[0:1]
        hidden = self._norm(words + positions.float() + kinds.float(), "embeddings.LayerNorm")
        hidden = self._by_torch(hidden) if self._layers is None else self._layers(hidden)
        return functional.normalize(hidden.mean(0), dim=-1)

    def _by_torch(self, hidden: Tensor) -> Tensor:
        """(L, H) behind the last layer."""
        for number in range(self._num_layers):
            name = f"encoder.layer.{number}"
            queries, keys, values = (
                self._linear(hidden, f"{name}.attention.self.{part}")
                .view(len(hidden), self._num_heads, -1)
                .transpose(0, 1)
                for part in ("query", "key", "value")
            )
            seen = functional.scaled_dot_product_attention(queries[None], keys[None], values[None])
            joined = seen[0].transpose(0, 1).reshape(len(hidden), -1)
            attended = self._linear(joined, f"{name}.attention.output.dense")
            hidden = self._norm(attended + hidden, f"{name}.attention.output.LayerNorm")
            inner = functional.gelu(self._linear(hidden, f"{name}.intermediate.dense"))
            outer = self._linear(inner, f"{name}.output.dense")
            hidden = self._norm(outer + hidden, f"{name}.output.LayerNorm")
        return hidden

    def _linear(self, hidden: Tensor, name: str) -> Tensor:
        weight, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return functional.linear(hidden, weight, bias)

    def _norm(self, hidden: Tensor, name: str) -> Tensor:
        weight, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return functional.layer_norm(hidden, weight.shape, weight, bias, self._epsilon)

    def _weight(self, name: str) -> Tensor:
        if name not in self._names:
            raise ModelError(f"lacks the weight {name}; fetch its files again")
        weight: Tensor = self._file.get_tensor(name)
        return weight.float()


def _read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no object")
    return found


def weights_state(folder: Path) -> str:
    """What tells that the weights of a folder are those that were looked at before.

    >>> weights_state(Path("no/such/folder"))
    ''
    """
    try:
        status = (folder / "model.safetensors").stat()
    except OSError:
        return ""
    return f"{folder.absolute()} {status.st_size} {status.st_mtime_ns}"
