"""The page as a web application: what stands at which address.

browser ─► access (host, origin, key) ─► a page, its style and scripts
                                      └► a question ─► checked ─► api ─► JSON or JPEG
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ffr import __version__
from ffr.corpus.archive import Archive
from ffr.corpus.filters import HAS
from ffr.corpus.store import Store
from ffr.errors import FfrError, UsageError
from ffr.page.access import Access, Keys
from ffr.page.api import Api, File, NotThereError, Question, questions
from ffr.page.asked import raw_values
from ffr.page.assets import asset, template
from ffr.page.description import description
from ffr.text import one_line

_KINDS = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def make_app(archive: Archive, reading: Store, keys: Keys, chats: Collection[int] = ()) -> ASGIApp:
    """The application.

    Args:
        archive: Is searched.
        reading: A second connection to its store.
        keys: What opens the page.
        chats: Numbers of the chats that are served; none for all.
    """
    asked = questions(Api(archive, reading, chats))
    said = description(asked, version=__version__, cookie=keys.cookie)
    page = template("page.html").render(kinds=HAS)
    routes = [
        _fixed("/", page, "text/html; charset=utf-8"),
        *(
            _fixed(f"/static/{name}", asset(f"static/{name}"), _KINDS[name.rpartition(".")[2]])
            for name in _static_names()
        ),
        *(_route(item) for item in asked),
        Route("/api/openapi.json", lambda request: JSONResponse(said), methods=["GET"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _not_there, Exception: _fault},
    )
    # an address is right or wrong: none is corrected by sending the browser elsewhere
    app.router.redirect_slashes = False
    return Access(app, keys)


def _static_names() -> list[str]:
    folder = resources.files(__package__).joinpath("static")
    return sorted(item.name for item in folder.iterdir() if item.is_file())


def _fixed(path: str, content: str, media_type: str) -> Route:
    return Route(path, lambda request: Response(content, media_type=media_type), methods=["GET"])


def _route(item: Question) -> Route:
    makes_json: TypeAdapter[object] | None = (
        None if item.answer is None else TypeAdapter(item.answer)
    )

    async def answer(request: Request) -> Response:
        try:
            values = raw_values(request.query_params, item.asked)
            asked = item.asked.model_validate(values | request.path_params)
            found = await run_in_threadpool(item.call, asked)
        except ValidationError as error:
            return _error(400, _words_of(error))
        except NotThereError as error:
            return _error(404, str(error))
        except UsageError as error:
            # the command line's name for a filter is the page's with two strokes
            return _error(400, str(error).removeprefix("--"))
        except FfrError as error:
            return _error(503, str(error))
        if makes_json is not None:
            return Response(makes_json.dump_json(found), media_type="application/json")
        assert isinstance(found, File)
        headers = {"Content-Disposition": f'attachment; filename="{found.name}"'}
        return Response(
            found.data, media_type=found.media_type, headers=headers if found.name else None
        )

    return Route(item.path, answer, methods=["GET"])


def _words_of(error: ValidationError) -> str:
    """What is wrong with the first parameter that is, in a sentence."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    return one_line(f"{name}: {first['msg']}", 300)


def _error(status: int, words: str) -> Response:
    return JSONResponse({"error": one_line(words, 500)}, status)


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, "there is nothing at this address")


async def _fault(request: Request, error: Exception) -> Response:
    return _error(500, "this is a fault of ffr; the terminal in which it runs says more")
