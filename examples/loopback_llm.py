"""A one-endpoint, OpenAI-compatible chat server on loopback, for running the example offline.

Its "model" answers with the sentence of the prompt's context that shares the most words with the
question: enough to make a pipeline's traces worth looking at.
"""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_WORD = re.compile(r"[a-z]+")


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if len(word) > 2]


def _answer(prompt: str) -> str:
    context, _, question = prompt.removeprefix("Context:").rpartition("Question:")
    wanted = set(_words(question))
    sentences = [
        s.strip() for s in re.split(r'(?<=[.!?])\s+|(?<=[.!?]")\s+', context) if len(_words(s)) > 3
    ]
    if not sentences:
        return "I do not know."
    return max(sentences, key=lambda s: len(wanted & set(_words(s))) / len(_words(s)) ** 0.5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.path.endswith("/chat/completions"):
            self.send_error(404)
            return
        request = json.loads(body)
        prompt = request["messages"][-1]["content"]
        text = _answer(prompt)
        tokens_in, tokens_out = len(prompt) // 4, len(text) // 4
        answer = json.dumps(
            {
                "id": "chatcmpl-loopback",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": request["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": text},
                    }
                ],
                "usage": {
                    "prompt_tokens": tokens_in,
                    "completion_tokens": tokens_out,
                    "total_tokens": tokens_in + tokens_out,
                },
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args) -> None:
        pass


def start() -> str:
    """Starts the server in a daemon thread and returns its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/v1"
