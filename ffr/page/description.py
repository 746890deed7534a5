"""The API in the words of OpenAPI, made of what its questions and answers declare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from ffr.page.api import Question

_REFERENCE = "#/components/schemas/{model}"
_REFUSALS = {
    "400": "A parameter is not as it must be",
    "403": "The key is missing, or another site asks",
    "404": "There is no such thing here",
    "503": "The store or the model cannot answer",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no answer, in a sentence."""

    error: str


def description(asked: Sequence[Question], *, version: str, cookie: str) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        asked: The questions.
        version: Of this package.
        cookie: The name of the cookie that holds the key.
    """
    schemas: dict[str, Any] = {}
    paths = {item.path: {"get": _operation(item, schemas)} for item in asked}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ffr serve",
            "version": version,
            "description": "Chats of a store: search, read, look at pictures. Nothing is changed.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "apiKey", "in": "cookie", "name": cookie}},
        },
        "security": [{"key": []}],
    }


def _operation(item: Question, schemas: dict[str, Any]) -> dict[str, Any]:
    if item.answer is None:
        # 3.1 has no word for bytes but the media type itself
        content: dict[str, Any] = {kind: {} for kind in item.media_types}
    else:
        content = {"application/json": {"schema": _schema(item.answer, schemas)}}
    error = {"application/json": {"schema": _schema(Refusal, schemas)}}
    return {
        "summary": item.summary,
        "operationId": item.path.strip("/").replace("/", "_").translate({123: None, 125: None}),
        "parameters": _parameters(item),
        "responses": {
            "200": {"description": item.summary, "content": content},
            **{
                code: {
                    "description": words,
                    "content": {"text/plain": {}} if code == "403" else error,
                }
                for code, words in _REFUSALS.items()
            },
        },
    }


def _parameters(item: Question) -> list[dict[str, Any]]:
    schema = item.asked.model_json_schema()
    found = []
    for name, its in schema["properties"].items():
        is_in_path = f"{{{name}}}" in item.path
        said = {key: value for key, value in its.items() if key not in ("title", "description")}
        found.append(
            {
                "name": name,
                "in": "path" if is_in_path else "query",
                "required": is_in_path or name in schema.get("required", ()),
                "description": its["description"],
                "schema": said,
            }
        )
    return found


def _schema(kind: type, schemas: dict[str, Any]) -> dict[str, str]:
    """A reference to a type's schema, which is put among the others with all that it names."""
    made = TypeAdapter(kind).json_schema(ref_template=_REFERENCE, mode="serialization")
    for name, its in made.pop("$defs", {}).items():
        schemas.setdefault(name, its)
    schemas.setdefault(kind.__name__, made)
    return {"$ref": _REFERENCE.format(model=kind.__name__)}
