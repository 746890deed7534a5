"""The address of a store on a server: a URL without a password, and the folder beside it here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ffr.data.home import data_home
from ffr.errors import UsageError
from ffr.text import one_line

_SCHEMES = ("postgresql://", "postgres://")
_DEFAULT_SCHEMA = "ffr"
_SCHEMA_NAME = re.compile("[a-z_][a-z0-9_]{0,48}")
_SECRETS = {"password", "sslpassword", "oauth_client_secret", "scram_client_key"}


def is_server(index: object) -> bool:
    """Whether what names a store is the URL of a server.

    >>> is_server("postgresql://db.example/chats"), is_server("kept/chats")
    (True, False)
    """
    return isinstance(index, str) and index.startswith(_SCHEMES)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store lies on a server.

    Args:
        url: As libpq takes it, without a password.
        schema: The tables' schema in the database.
        place: As people call it.
    """

    url: str
    schema: str
    place: str

    @property
    def folder(self) -> Path:
        """Keeps on this machine what no table holds: pictures out of archives, and small copies."""
        digest = hashlib.sha256(self.place.encode()).hexdigest()[:16]
        return data_home().parent / "servers" / digest

    @property
    def lock(self) -> int:
        """The number of the advisory lock that a writer holds."""
        digest = hashlib.sha256(f"ffr writes {self.schema}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def read_address(url: str) -> Address:
    """Takes a URL apart.

    Args:
        url: `postgresql://[USER@]HOST[:PORT]/DATABASE[?schema=NAME&…]`; what else stands behind the
            `?` is libpq's.

    Raises:
        UsageError: where it has a password, which would stay in the shell's history and in the
            list of processes, or is none.

    >>> address = read_address("postgresql://ann@db.example/chats?schema=work&sslmode=require")
    >>> address.url, address.schema
    ('postgresql://ann@db.example/chats?sslmode=require', 'work')
    """
    try:
        parts = urlsplit(url)
        asked = dict(
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        )
        has_password = bool(parts.password) or bool(_SECRETS & asked.keys())
    except ValueError as error:
        raise UsageError(
            f"--index is no URL of a server ({one_line(error)}); "
            "write postgresql://USER@HOST:PORT/DATABASE"
        ) from None
    if has_password:
        raise UsageError(
            "--index has a password in its URL, where shell history and other users see it; leave "
            "it out, and give it as PGPASSWORD or in ~/.pgpass"
        )
    schema = asked.pop("schema", _DEFAULT_SCHEMA)
    # what is forgotten whole is a schema with all that is in it
    is_shared = schema.startswith("pg_") or schema in ("public", "information_schema")
    if is_shared or not _SCHEMA_NAME.fullmatch(schema):
        raise UsageError(
            f"--index: schema {one_line(schema, 60)} cannot be a store's own; take another name, of small "
            "letters, digits and _"
        )
    plain = urlunsplit(parts._replace(query=urlencode(asked)))
    return Address(plain, schema, one_line(url, 300))
