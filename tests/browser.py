"""A headless Chromium driven over a pipe by its DevTools protocol, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_SECONDS = 60
_CODES = {"Escape": 27, "Enter": 13, "Tab": 9}


def find_chromium() -> str:
    """The browser: the environment variable FFR_CHROMIUM, or one on the path; skips the test where there is none."""
    found = os.environ.get("FFR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine; install chromium, or set FFR_CHROMIUM to one")
    return found


class Page:
    """One page in one browser, as a context manager.

    Attributes:
        faults: What the page complained of: uncaught errors, console errors and warnings, refused by the content policy.
        requests: Addresses that the page asked for, but for itself and what it brings along (`data:`).
    """

    def __init__(
        self, profile: Path, *, width: int = 1280, height: int = 900, is_dark: bool = False
    ) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # the protocol's ends are descriptors 3 and 4 of the browser
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "chromium", find_chromium(), "--headless=new", "--no-sandbox", "--disable-gpu",
             "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking",
             "--disable-dev-shm-usage", "--hide-scrollbars", "about:blank"],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.faults: list[str] = []
        self.requests: list[str] = []
        self._is_loaded = False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def resize(self, width: int, height: int) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, path: Path, fragment: str = "") -> None:
        """Opens a file and waits until it is loaded."""
        self.open_address(path.resolve().as_uri(), fragment)

    def open_address(self, address: str, fragment: str = "") -> None:
        """Opens an address and waits until it is loaded."""
        self._call("Page.navigate", url="about:blank")
        self.faults.clear()
        self.requests.clear()
        self._is_loaded = False
        self._call("Page.navigate", url=address + fragment)
        end = time.monotonic() + TIMEOUT_SECONDS
        while self("document.readyState") != "complete" or not self._is_loaded:
            assert time.monotonic() < end, "the page does not finish loading"
            time.sleep(0.05)
        self.requests.remove(address)

    def __call__(self, expression: str) -> Any:
        """The value of an expression in the page."""
        done = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str) -> None:
        """A key, such as `j` or `ArrowRight`, where the focus is."""
        more: dict[str, Any] = {"text": key} if len(key) == 1 else {}
        if key in _CODES:  # what the browser itself does with a key, it does by its number
            more["windowsVirtualKeyCode"] = _CODES[key]
        if key == "Enter":
            more["text"] = "\r"
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def wait_for(self, expression: str) -> Any:
        """The value of an expression in the page, as soon as it is one that counts as true."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while not (found := self(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)
        return found

    def choose(self, selector: str, value: str) -> None:
        """Sets a field as a person would: its value, then the event."""
        self(
            f"(() => {{ const field = document.querySelector({json.dumps(selector)}); field.value = {json.dumps(value)};"
            "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(
            base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        )

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self._note(found)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._read, 1 << 16)
            assert piece, "the browser has ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.faults.append(" ".join(str(item.get("value")) for item in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.faults.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            if not (url := params["request"]["url"]).startswith(("data:", "about:")):
                self.requests.append(url)
        elif method == "Page.loadEventFired":
            self._is_loaded = True
        elif method == "Page.javascriptDialogOpening":
            self.faults.append(f"dialog: {params['message']}")
