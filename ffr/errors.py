"""The errors a user can meet.

Each carries one sentence that says where, what was found and what to do.
"""

from __future__ import annotations


class FfrError(Exception):
    """Base of all errors meant for the user.

    The command line prints the sentence and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(FfrError):
    """The call itself is wrong.

    An unknown option, name or setting, or something that is not installed.
    """

    exit_code = 2


class InUseError(UsageError):
    """What is to be written is written by another process, which may have ended a moment later."""


class DataError(FfrError):
    """A file or record from outside cannot be used as it is.

    Args:
        message: What was found and what to do.
        where: The place, such as `dev.jsonl:17`; it is put in front of the message.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where


class ModelError(FfrError):
    """A model folder or checkpoint cannot be used as it is.

    Args:
        message: What was found and what to do.
        where: The folder, file or hub id; it is put in front of the message.
    """

    def __init__(self, message: str, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where
