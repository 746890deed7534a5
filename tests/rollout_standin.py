"""A stand-in for vLLM's server: loads adapters by name, and answers by the model that it holds; faults can be put in its way."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from peft import PeftModel

from ffr.dialogue import FilePrompt
from ffr.images import LoadedPicture
from ffr.models.decoding.sampling import sample_answers
from ffr.models.loading import load_vlm
from ffr.prompt import IMAGE_MARK

BASE = "org/base"
Reply = tuple[int, bytes]
Fault = Callable[[str, dict[str, Any]], Reply | None]
"""From path and body to what is sent instead; None for the true answer."""


class RolloutStandin:
    """Holds the model of `folder`, and one adapter at a time; keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.vlm = load_vlm(str(folder))
        self.adapters: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.fault: Fault = lambda path, body: None
        self.lock = threading.Lock()
        self.url = ""

    def reply(self, path: str, body: dict[str, Any]) -> Reply:
        with self.lock:
            self.asked.append((path, body))
            return self.fault(path, body) or self._true_reply(path, body)

    def _true_reply(self, path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/load_lora_adapter":
            return self._load(body["lora_name"], body["lora_path"])
        if path == "/v1/unload_lora_adapter":
            if self.adapters.pop(body["lora_name"], None) is None:
                return refusal(404, "no such adapter")
            self.vlm.model = self.vlm.model.unload()
            return 200, b"Success: LoRA adapter removed successfully."
        if path != "/v1/chat/completions" or body["model"] not in (BASE, *self.adapters):
            return refusal(404, f"The model `{body.get('model')}` does not exist.")
        return 200, json.dumps(self._completion(body)).encode()

    def _load(self, name: str, folder: str) -> Reply:
        if self.adapters:
            return refusal(400, f"{list(self.adapters)} is still loaded")
        if not (Path(folder) / "adapter_config.json").is_file():
            return refusal(404, f"No adapter found for {folder}")
        self.adapters[name] = folder
        self.vlm.model = PeftModel.from_pretrained(self.vlm.base, folder).requires_grad_(False)
        return 200, b"Success: LoRA adapter added successfully."

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, pictures = _prompt_of(body["messages"])
        encoded = self.vlm.encode(prompt, pictures)
        answers = sample_answers(
            self.vlm,
            [encoded],
            num_samples=body["n"],
            max_new_tokens=body["max_tokens"],
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            generator=torch.Generator().manual_seed(body.get("seed", 0)),
        )[0]
        choices = [
            {
                "index": number,
                "finish_reason": "length" if answer.is_cut_off(self.vlm.stop_ids) else "stop",
                "message": {"role": "assistant", "content": answer.text},
                "logprobs": {
                    "content": [
                        {"token": f"token_id:{item}", "logprob": logprob}
                        for item, logprob in zip(answer.token_ids, answer.logprobs, strict=True)
                    ]
                },
            }
            for number, answer in enumerate(answers)
        ]
        return {"choices": choices, "usage": {"prompt_tokens": encoded.num_tokens}}


def refusal(status: int, message: str) -> Reply:
    return status, json.dumps({"error": {"message": message}}).encode()


def _prompt_of(messages: list[dict[str, Any]]) -> tuple[FilePrompt, list[Any]]:
    system = next((item["content"] for item in messages if item["role"] == "system"), None)
    content, pictures, text = messages[-1]["content"], [], ""
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if part["type"] == "text":
            text += part["text"]
            continue
        text += IMAGE_MARK
        data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
        pictures.append(LoadedPicture(PIL.Image.open(io.BytesIO(data))))
    return FilePrompt(text, system), pictures


@contextmanager
def rollout_standin(folder: Path) -> Iterator[RolloutStandin]:
    """A running server on a port of its own."""
    standin = RolloutStandin(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            sent = self.rfile.read(size)
            if len(sent) < size:
                return  # whoever asked has gone
            standin.headers.append(dict(self.headers))
            status, content = standin.reply(self.path, json.loads(sent))
            with suppress(OSError):  # whoever asked may have gone
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    standin.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()
