"""What is wrong with a value, in our words: pydantic finds the fault, its words reach nobody."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from ffr.text import one_line

_MAX_SHOWN = 120
_IN_WORDS = "in_words"
_SYNONYMS = {
    "cuda": "gpu",
    "gpu": "cuda",
    # settings as the trainers of transformers, TRL, peft and ms-swift spell them
    "lr": "learning_rate",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulate",
    "warmup_ratio": "warmup_share",
    "max_norm": "max_grad_norm",
    "model_name_or_path": "model",
    "dataset_name": "dataset",
    "val_dataset_name": "val_dataset",
    "eval_dataset": "val_dataset",
    "eval_steps": "val_every_steps",
    "per_device_eval_batch_size": "val_batch_tokens",
    "save_steps": "checkpoint_every_steps",
    "save_total_limit": "keep_checkpoints",
    "lora_r": "lora_rank",
    "max_length": "max_tokens",
    "max_seq_length": "max_tokens",
    "max_completion_length": "max_new_tokens",
    "max_pixels": "max_image_pixels",
    "torch_dtype": "precision",
    "bf16": "precision",
    "torch_compile": "compile",
    "num_gpus": "devices",
    "nproc_per_node": "devices",
    "dataloader_num_workers": "num_workers",
    "wandb_project": "report_project",
    "beta": "kl_coefficient",
    "epsilon": "clip_low",
    "epsilon_high": "clip_high",
    "num_iterations": "updates_per_rollout",
    "num_speculative_tokens": "draft_tokens",
    "prompt_lookup_num_tokens": "draft_tokens",
    "scale_rewards": "scale_advantages",
    "reward_funcs": "rewards",
    "mask_truncated_completions": "mask_cut_off",
    "output_dir": "out",
    "resume_from_checkpoint": "resume",
}
"""What others call the same."""
_BOUNDS = {
    "greater_than_equal": ("small", "at least", "ge"),
    "greater_than": ("small", "more than", "gt"),
    "less_than_equal": ("large", "at most", "le"),
}


def nearest(word: str, words: Iterable[Any]) -> str:
    """`; did you mean …?` with the word that is most like this one; empty where none is.

    >>> nearest("widow", ["overlap", "window"])
    '; did you mean window?'
    """
    found = closest(word, map(str, words))
    return "" if found is None else f"; did you mean {found}?"


def closest(word: str, words: Iterable[str]) -> str | None:
    """The word that is meant: what others call this one, else the most like it; None for none.

    >>> closest("lr", ["learning_rate", "lora_rank"])
    'learning_rate'
    """
    words = list(words)
    if _SYNONYMS.get(word) in words:
        return _SYNONYMS[word]
    # what is much longer than any name is like none, and comparing it takes long
    found = difflib.get_close_matches(word[:_MAX_SHOWN], words, 1, 0.5)
    return found[0] if found else None


def shown(value: Any) -> str:
    r"""A value as a sentence shows it: texts in quotes, long ones cut.

    >>> shown("a\nb"), shown([1, True])
    ("'a\\nb'", '[1, True]')
    """
    text = repr(value[: _MAX_SHOWN + 1] if isinstance(value, str) else value)
    return one_line(text, _MAX_SHOWN)


def fault(message: str, *loc: str | int) -> ValidationError:
    """An error for pydantic that says `message` as it stands, about the part at `loc`."""
    kind = PydanticCustomError(_IN_WORDS, "{message}", {"message": message})
    details = InitErrorDetails(type=kind, loc=loc, input=None)
    return ValidationError.from_exception_data("", [details])


def sentence(details: ErrorDetails, subject: str, choices: Sequence[Any] = ()) -> str:
    """What is wrong with one value.

    Args:
        details: What pydantic found.
        subject: What the sentence is about, such as `setting seed`.
        choices: What may stand there, where it is one of few.
    """
    kind, value = details["type"], details["input"]
    if kind == _IN_WORDS:
        return str(details["ctx"]["message"])
    if kind in _BOUNDS:
        size, relation, key = _BOUNDS[kind]
        bound = details["ctx"][key]
        bound = int(bound) if float(bound).is_integer() else bound
        return f"{subject}: {one_line(str(value))} is too {size}; it must be {relation} {bound}"
    if kind == "literal_error":
        known = ", ".join(map(str, choices))
        return f"{subject}: {shown(value)} is not one of {known}{nearest(str(value), choices)}"
    if kind == "finite_number":
        return f"{subject}: {shown(value)} is not a finite number"
    for beginning, what in (
        ("int_", "is not a whole number"),
        ("float_", "is not a number"),
        ("bool_", "is neither true nor false"),
        ("path_", "is not a path"),
        ("string_", "is not a text"),
    ):
        if kind.startswith(beginning):
            return f"{subject}: {shown(value)} {what}"
    return f"{subject}: {shown(value)} cannot stand here"
