"""Who may ask the page's server: this machine's browser that has the key, and nobody else.

A page of another site can make a browser ask any address, and can give its own name the address of
this machine (DNS rebinding). So whose name is asked for (Host), who asks (Origin, Sec-Fetch-Site)
and the key are looked at before anything else, and only questions are answered, no orders.
"""

from __future__ import annotations

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    # what chats say stays out of the browser's cache on the disk
    "Cache-Control": "no-store",
}
"""What every answer carries."""

_METHODS = ("GET", "HEAD")
_SITES = ("none", "same-origin")


class Keys:
    """What opens the page: a key for its address, one for a single use, and a cookie's value.

    Args:
        port: The server's; cookies of a machine are shared by all its ports, so it is in the name.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.token = secrets.token_urlsafe(32)
        self.cookie = f"ffr-{port}"
        self._session = secrets.token_urlsafe(32)
        self._once: list[str] = []

    @property
    def address(self) -> str:
        """Where the page is, with its key; for the eyes of its owner alone."""
        return self._address(self.token)

    def address_for_once(self) -> str:
        """As `address`, with a key that opens once.

        For starting a browser: its command line can be read by everyone on the machine.
        """
        self._once.append(secrets.token_urlsafe(32))
        return self._address(self._once[-1])

    def _address(self, token: str) -> str:
        return f"http://127.0.0.1:{self.port}/?token={token}"

    def opens(self, token: str) -> bool:
        """Whether a key of an address is right; one for a single use is used up."""
        if _equal(token, self.token):
            return True
        for known in self._once:
            if _equal(token, known):
                self._once.remove(known)
                return True
        return False

    def is_known(self, cookies: str) -> bool:
        """Whether the header of cookies holds ours."""
        try:
            found = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        return found is not None and _equal(found.value, self._session)

    def let_in(self, response: Response) -> None:
        """Gives the cookie to the browser: not to scripts, not to other sites."""
        response.set_cookie(
            self.cookie, self._session, path="/", httponly=True, samesite="strict", secure=False
        )


def _equal(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), known.encode())


class Access:
    """Lets through to an app what may be answered, and puts `HEADERS` on every answer.

    Args:
        app: The app.
        keys: What opens it.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys
        self._hosts = tuple(f"{name}:{keys.port}" for name in ("127.0.0.1", "localhost"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or hands it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._answer(scope)
        await (self._app if answer is None else answer)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """A refusal, or the way in; None where the app may answer."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return _refused("this server answers to 127.0.0.1 and localhost alone")
        if any(origin != f"http://{hosts[0]}" for origin in headers.getlist("origin")):
            return _refused("another site asked; only this page itself may")
        if any(site not in _SITES for site in headers.getlist("sec-fetch-site")):
            return _refused(
                "another site led here; type or paste the address that `ffr serve` printed"
            )
        if not self._keys.is_known("; ".join(headers.getlist("cookie"))):
            return self._door(scope)
        if scope["method"] not in _METHODS:
            return PlainTextResponse(
                "this page is only read\n", 405, headers={"Allow": ", ".join(_METHODS)}
            )
        if scope["path"] == "/" and scope["query_string"]:
            # the key goes out of the address, and with it out of the browser's history
            return RedirectResponse("/", 303)
        return None

    def _door(self, scope: Scope) -> Response:
        token = QueryParams(scope["query_string"]).get("token", "")
        is_way_in = scope["path"] == "/" and scope["method"] in _METHODS
        if not is_way_in or not self._keys.opens(token):
            return _refused("open the address that `ffr serve` printed: it holds the key")
        response = RedirectResponse("/", 303)
        self._keys.let_in(response)
        return response


def _refused(why: str) -> Response:
    return PlainTextResponse(f"{why}\n", 403)
