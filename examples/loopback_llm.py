"""A chat server on loopback that speaks OpenAI's and Anthropic's API, for running the examples offline.

Its "model" answers with the sentence of the prompt's context that shares the most words with the
question: enough to make a pipeline's traces worth looking at. Without a context it says what it heard.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_WORD = re.compile(r"[a-z]+")
#: When OpenAI's answers say that they were made: always then, so that two runs have equal traces.
_CREATED = 1_700_000_000


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if len(word) > 2]


def _answer(prompt: str) -> str:
    context, asked, question = prompt.removeprefix("Context:").rpartition("Question:")
    if not asked:
        return f"You wrote {len(prompt.split())} words: {prompt}"
    wanted = set(_words(question))
    sentences = [
        s.strip() for s in re.split(r'(?<=[.!?])\s+|(?<=[.!?]")\s+', context) if len(_words(s)) > 3
    ]
    if not sentences:
        return "I do not know."
    return max(sentences, key=lambda s: len(wanted & set(_words(s))) / len(_words(s)) ** 0.5)


def _text_of(content: str | list[dict]) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _openai(model: str, text: str, tokens_in: int, tokens_out: int) -> dict:
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": _CREATED,
        "model": model,
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


def _anthropic(model: str, text: str, tokens_in: int, tokens_out: int) -> dict:
    return {
        "id": "msg-loopback",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": tokens_in, "output_tokens": tokens_out},
    }


_APIS = {"/v1/chat/completions": _openai, "/v1/messages": _anthropic}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        api = _APIS.get(self.path.partition("?")[0])
        if api is None:
            self.send_error(404)
            return
        request = json.loads(body)
        prompt = _text_of(request["messages"][-1]["content"])
        text = _answer(prompt)
        answer = json.dumps(api(request["model"], text, len(prompt) // 4, len(text) // 4)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args) -> None:
        pass


def start() -> str:
    """Starts the server in a daemon thread and returns its base URL, as OpenAI's client takes it. Anthropic's
    takes it without ``/v1``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/v1"
