"""Model folders from others.

What must lie in one, and what the libraries say of damaged ones in one sentence.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffr.errors import FfrError, ModelError
from ffr.files import CHECKSUMS_FILE, differing_files
from ffr.text import one_line

if TYPE_CHECKING:
    import torch

_HUB_ID = re.compile(r"\w[\w.-]{0,95}(/[\w.-]{1,96})?")


def check_model_folder(location: str) -> None:
    """A folder that exists must hold a configuration and safetensors.

    A name that is no path is left to the hub.

    Raises:
        ModelError: with what is missing.
    """
    folder = Path(location)
    if not folder.is_dir():
        if folder.exists() or not _HUB_ID.fullmatch(location):
            raise ModelError(
                "is no folder and no hub id; name a model's folder, a run, or a hub id", location
            )
        return
    if not (folder / "config.json").is_file():
        raise ModelError("holds no config.json; name the folder of a Hugging Face model", location)
    if not list(folder.glob("*.safetensors")):
        pickles = [path.name for path in folder.glob("*.bin")]
        found = (
            f"only {pickles[0]}, which can run code when it is opened" if pickles else "no weights"
        )
        raise ModelError(f"holds {found}; convert the weights to safetensors", location)
    check_checksums(folder)


def read_config(location: str) -> dict[str, Any]:
    """The config.json of a model, in a folder or on the hub; nothing else of it is fetched.

    Args:
        location: The folder, or a hub id.

    Raises:
        ModelError: where there is none, or it is no JSON object.
    """
    path = Path(location) / "config.json"
    if not Path(location).is_dir():
        from huggingface_hub import hf_hub_download

        with loading_explained(location, kind="a model"):
            path = Path(hf_hub_download(location, "config.json"))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            "holds no config.json; name the folder of a Hugging Face model", location
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot be read ({one_line(error)}); restore it", str(path)) from None
    if not isinstance(content, dict):
        raise ModelError("is no JSON object; restore it", str(path))
    return content


def check_weights_finite(model: torch.nn.Module, name: str) -> None:
    """Refuses a model that holds NaN or infinite weights: its answers would be noise with figures.

    Raises:
        ModelError: naming the first such weight.
    """
    for key, weight in model.named_parameters():
        # one pass, no copy; a sum of finite numbers that overflows is looked at again
        if (
            weight.is_floating_point()
            and not bool(weight.sum().isfinite())
            and not bool(weight.isfinite().all())
        ):
            raise ModelError(
                f"its weight {key} holds NaN or infinite numbers; train or fetch it again", name
            )


def check_checksums(folder: Path) -> None:
    """Sees that the files of a folder are those that its checksums were made of, if it has any.

    Raises:
        ModelError: where one is not.
    """
    if changed := differing_files(folder):
        raise ModelError(
            f"its {changed[0]} is not what was written (its {CHECKSUMS_FILE} says so): restore it, "
            "or delete "
            f"{CHECKSUMS_FILE} where it was changed on purpose",
            str(folder),
        )


@contextmanager
def loading_explained(name: str, *, kind: str) -> Iterator[None]:
    """Turns what the Hugging Face libraries raise on bad files into one sentence.

    Args:
        name: What the user called the model.
        kind: What it was to be: `an image-text-to-text model`.

    Raises:
        ModelError: in place of theirs.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    if "transformers" in sys.modules and not sys.stderr.isatty():
        # a log would get a line for every move of its bars
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    try:
        yield
    except FfrError:
        raise
    except SafetensorError as error:
        raise ModelError(
            f"its weights are damaged ({one_line(error)}); fetch them again", name
        ) from None
    except Exception as error:
        # tokenizers raises plain Exception; an error of another kind would be a fault of ours
        if type(error) is not Exception and not isinstance(
            error, (*_LOADING_ERRORS, StrictDataclassError)
        ):
            raise
        for mark, sentence in _KNOWN_REASONS.items():
            if mark in str(error):
                raise ModelError(sentence, name) from error
        raise ModelError(
            f"cannot be loaded as {kind} ({one_line(error)}); "
            "name the folder of a whole model, or a hub id that can be reached",
            name,
        ) from error


_KNOWN_REASONS = {
    "ignore_mismatched_sizes": "its weights have other shapes than its config.json says; fetch "
    "both again",
    "contains custom code": "comes with code of its own; set trust_remote_code if you trust it",
    **dict.fromkeys(
        ("couldn't connect to", "cannot find the requested files in the local cache"),
        "is not on this machine and the hub cannot be reached; name a folder, or fetch it when "
        "online",
    ),
}
"""Parts of the libraries' messages, and what they mean for the user."""

# what the libraries let out on damaged files; found by flipping bytes
# (tests/models/test_bad_models.py)
_LOADING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    re.error,
)
