"""A hub of models on this machine: the part of its protocol that an upload speaks, with faults on wish."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What a stand-in was asked and holds.

    Args:
        address: Where it listens.
        refuses: Status that every request gets in place of an answer; None for none.
        requests: Method and path of each request.
        tokens: What stood in `Authorization`.
        files: Path → content, of the one repository.
        created: What it was asked to create.
        messages: Of the commits.
    """

    address: str = ""
    refuses: int | None = None
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    created: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A stand-in that listens while the block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, content: Any, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self) -> None:
            hub.requests.append(f"GET {self.path}")
            self._answer({"error": "not here"}, 404)

        def do_POST(self) -> None:
            body = self._body()
            hub.requests.append(f"POST {self.path}")
            hub.tokens.add(self.headers.get("Authorization", ""))
            if hub.refuses is not None or not self.headers.get("Authorization"):
                self._answer({"error": "refused"}, hub.refuses or 401)
            elif self.path == "/api/repos/create":
                hub.created = json.loads(body)
                name = f"{hub.created.get('organization', 'ann')}/{hub.created['name']}"
                self._answer({"url": f"{hub.address}/{name}"})
            elif self.path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                self._answer({"files": [{"path": file["path"], **mode} for file in files]})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "header":
                        hub.messages.append(line["value"]["summary"])
                    elif line["key"] == "file":
                        value = line["value"]
                        hub.files[value["path"]] = base64.b64decode(value["content"])
                repository = self.path.split("/commit/")[0].removeprefix("/api/models/")
                url = f"{hub.address}/{repository}/commit/abc"
                self._answer({"commitUrl": url, "commitOid": "abc"})
            else:
                self._answer({"error": "not here"}, 404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
