"""Which recipe a training takes where none is named: the one that was made for its model."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from ffr.errors import UsageError
from ffr.model_files import read_config
from ffr.runs import READER, ModelSource, RunRecord
from ffr.settings import SCRATCH, EmbeddingConfig, SftConfig, StageConfig, load_config, recipes
from ffr.settings.yaml import read_yaml

TINY = "tiny"
"""The recipe of the embedded model, whose rates are for no other."""
_SHAPE = ("model_type", "hidden_size", "num_hidden_layers")
_RUN_NAME = re.compile(r"(?:sft|grpo|reader|embedding)-(.+)-\d{3,}")
_MAX_NAME = 40


def recipe_of(stage: str, source: ModelSource) -> str:
    """The recipe for a model: by its architecture and size, else that of the run that made it.

    Args:
        stage: `sft`, `grpo`, `reader` or `embedding`.
        source: The model that training starts from.

    Raises:
        UsageError: where no recipe is made for it; the sentence names those there are.
        ModelError: where its config.json cannot be read.

    >>> from ffr.runs import resolve_model
    >>> recipe_of("sft", resolve_model("tiny"))
    'tiny'
    >>> recipe_of("grpo", resolve_model("Qwen/Qwen2.5-VL-3B-Instruct"))
    'qwen2.5-vl-3b'
    """
    known = recipes(stage)
    if stage == EmbeddingConfig.stage:
        return "sentence"
    if stage == READER:
        return SCRATCH if source.label == SCRATCH else READER
    if source.is_reader:
        if READER in known:
            return READER
        raise UsageError(
            f"{source.label} is a reader, and `ffr train {stage}` trains vision-language models; "
            f"train it by `ffr train reader --from {source.label}`"
        )
    shape = None
    fitting = _recipe_of_hub_id(source.location)
    if fitting is None:
        shape = _shape_of(read_config(source.location))
        fitting = _recipe_of_shape(shape)
    if fitting in known:
        return fitting
    if source.run is not None:
        # a run of another architecture goes on with what it was begun with
        begun = RunRecord.load(source.run).recipe
        if begun in known and begun != TINY:
            return begun
    found = "" if shape is None else f" ({_in_words(shape)})"
    raise UsageError(
        f"{source.label}: no recipe is made for this model{found}; name one that suits it with "
        f"--config ({', '.join(_of_vlms(known))}), or a YAML file of your "
        "own"
    )


def _of_vlms(names: Iterable[str]) -> list[str]:
    """Recipes of vision-language models that one may name for another of its size."""
    return [name for name in names if name not in (TINY, READER)]


def refuse_rates_of_tiny(config: StageConfig, source: ModelSource, recipe: str) -> None:
    """Sees that no other model is trained with the learning rate of the embedded one.

    Args:
        config: The settings.
        source: The model that training starts from.
        recipe: The recipe that the settings come from; empty for none.

    Raises:
        UsageError: where it would be.
    """
    if recipe != TINY:
        return
    if not source.is_reader and _recipe_of_shape(_shape_of(read_config(source.location))) == TINY:
        return
    if config.learning_rate == load_config(type(config), source=TINY).learning_rate:
        others = ", ".join(_of_vlms(recipes(config.stage)))
        raise UsageError(
            f"{source.label}: the recipe {TINY} is made for the embedded model, and its learning "
            f"rate of {config.learning_rate:g} for no other; name another recipe ({others}), a "
            "YAML file of your own, or a --learning-rate"
        )


def model_name(source: ModelSource) -> str:
    """What a run's folder calls the model that it starts from.

    That is its recipe's name where there is one for it, the name that a run's folder has, else the
    last part of its path or hub id.

    >>> model_name(ModelSource("OpenGVLab/InternVL3-1B-hf", "OpenGVLab/InternVL3-1B-hf"))
    'internvl3-1b-hf'
    """
    if source.label == SCRATCH:
        return SCRATCH
    if source.is_reader:
        return READER
    fitting = _recipe_of_hub_id(source.location)
    if fitting is None and source.has_files:
        fitting = _recipe_of_shape(_shape_of(read_config(source.location)))
    if fitting is not None:
        return fitting
    name = source.run.resolve().name if source.run is not None else source.label
    if source.run is not None and (found := _RUN_NAME.fullmatch(name)):
        name = found[1]
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
    return re.sub(r"[^a-z0-9.]+", "-", last).strip("-.")[:_MAX_NAME] or "model"


@functools.cache
def _models() -> dict[str, dict[str, Any]]:
    file = resources.files("ffr.shipped.recipes") / "models.yaml"
    found: dict[str, dict[str, Any]] = read_yaml(
        file.read_text(encoding="utf-8"), "models.yaml"
    ).value
    return found


@functools.cache
def _recipe_of_hub_id(location: str) -> str | None:
    """The recipe that names this very model, so that nothing need be fetched to find it."""
    for name in recipes("sft"):
        if load_config(SftConfig, source=name).model.lower() == location.lower() and name != TINY:
            return name
    return None


def _shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture and size of the language model, as a config.json has them."""
    # older files have the language model's settings beside the others
    text = config.get("text_config")
    sizes = text if isinstance(text, dict) else config
    return {name: (config if name == "model_type" else sizes).get(name) for name in _SHAPE}


def _recipe_of_shape(shape: Mapping[str, Any]) -> str | None:
    return next((name for name, its_shape in _models().items() if its_shape == shape), None)


def _in_words(shape: Mapping[str, Any]) -> str:
    return (
        f"{shape['model_type']}, {shape['num_hidden_layers']} layers of width "
        f"{shape['hidden_size']}"
    )
