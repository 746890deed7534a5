"""A folder of ours handed to a hub of models, by huggingface_hub: all that is ever sent there."""

from __future__ import annotations

import os
from pathlib import Path

from ffr.errors import DataError, UsageError
from ffr.text import one_line

_LITTER = (".*", "**/.*")
"""Files of a moment: locks, scratch."""
_HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests")
"""Of one of which the errors of a connection are."""


def push_folder(
    folder: Path,
    to: str,
    *,
    is_private: bool = False,
    message: str = "Upload by ffr",
) -> str:
    """Uploads a folder as a repository of models, which is made where it is not there.

    Token and address are those of huggingface_hub: `hf auth login` or `HF_TOKEN`, and `HF_ENDPOINT`.

    Args:
        folder: What is uploaded, whole, but for hidden files.
        to: `OWNER/NAME`.
        is_private: Whether a new repository is private.
        message: Of the commit.

    Returns:
        Where it is now.

    Raises:
        UsageError: where the name cannot be one, no token is there, or the hub is switched off.
        DataError: where the hub refuses it or cannot be reached; what was there before stays.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    if constants.is_offline_mode():
        raise UsageError(
            "the hub is switched off by HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE; unset it to push"
        )
    # the library reads the address once, when it is imported
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="ffr")
    try:
        hub.create_repo(to, private=is_private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=to, folder_path=folder, commit_message=message, ignore_patterns=list(_LITTER)
        )
    except HFValidationError as error:
        raise UsageError(f"{to} cannot be a name on the hub ({one_line(error)})") from None
    except LocalTokenNotFoundError:
        raise UsageError("no token for the hub; run `hf auth login`, or set HF_TOKEN") from None
    except OfflineModeIsEnabled as error:
        raise UsageError(f"the hub is switched off ({one_line(error)})") from None
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise UsageError(
                f"the hub does not let you write {to} ({status}); run `hf auth login` with a token "
                "that may write, or name a repository of yours"
            ) from None
        raise DataError(
            f"the hub refused it ({one_line(error)}); try again later", where=to
        ) from None
    except OSError as error:
        raise DataError(
            f"the hub cannot be reached ({one_line(error)}); nothing is there that was not before",
            where=to,
        ) from None
    except (LookupError, ValueError, TypeError) as error:
        raise DataError(
            f"{hub.endpoint} does not answer as a hub does ({one_line(error)}); see HF_ENDPOINT",
            where=to,
        ) from None
    except Exception as error:
        # the errors of its HTTP library, whichever that is
        if type(error).__module__.partition(".")[0] not in _HTTP_LIBRARIES:
            raise
        raise DataError(f"the hub cannot be reached ({one_line(error)})", where=to) from None
    return str(getattr(done, "repo_url", None) or f"{hub.endpoint}/{to}")
