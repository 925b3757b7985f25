"""A language model's server on loopback, for real SDKs: OpenAI's, Anthropic's, Gemini's and Bedrock's
wire formats, the same answer to the same question.

    python tests/support/llm_stub.py [PORT]        prints its address, serves until it is killed

What it says follows from the last thing a user said:

* a tool whose name occurs there is called, arguments taken from the numbers and 'quoted' words;
  tools that the request requires are called too
* results of tools are summed up
* a JSON schema (structured output) is filled in the same way
* DSPy's fields ([[ ## name ## ]]) are answered as such
* anything else is echoed

and in it, ``[status 429]`` is answered with that status, ``[status 429 once]`` only until the SDK
tries again, ``[slow]`` sends 20 ms a token, ``[break]`` ends a stream with an error, ``[cut]`` closes the
connection in the middle of one.

Ids are made of the question, the clock stands still, a token is a word. A ``traceparent`` header comes
back in the answer (OpenAI: ``system_fingerprint``, Anthropic: ``traceparent``).
"""

from __future__ import annotations

import ast
import base64
import binascii
import contextlib
import dataclasses
import hashlib
import json
import re
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

CREATED = 1_700_000_000
_WORD = re.compile(r"\S+")
_DSPY_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")


@dataclasses.dataclass
class Question:
    """What a request asks, whatever its wire format."""

    model: str
    texts: list[str]  # everything said so far
    user: str  # the last thing that a user said
    results: list[str]  # of tools, since then
    tools: dict[str, dict]  # name -> JSON schema of its parameters
    required: bool = False  # a tool must be called
    forced: str | None = None  # this one
    schema: dict | None = None  # the answer has this form
    stream: bool = False
    traceparent: str | None = None
    retried: bool = False

    def id(self, prefix: str, *more: object) -> str:
        seed = json.dumps([prefix, self.model, self.user, self.results, len(self.texts), *more])
        return prefix + hashlib.sha1(seed.encode()).hexdigest()[:24]

    @property
    def pause(self) -> float:
        return 0.02 if "[slow]" in self.user else 0.0


@dataclasses.dataclass
class Answer:
    text: str
    calls: list[tuple[str, dict]]  # tools: name, arguments
    tokens_in: int
    tokens_out: int

    @property
    def pieces(self) -> list[str]:
        return re.findall(r"\S+\s*", self.text)


class Refusal(Exception):
    def __init__(self, status: int):
        self.status = status
        super().__init__(f"The stub was told to answer {status}")


# ---- what it says ----


def answer_to(question: Question) -> Answer:
    told = re.search(r"\[status (\d+)( once)?\]", question.user)
    if told and not (told[2] and question.retried):
        raise Refusal(int(told[1]))
    calls = _calls(question)
    if calls:
        text = ""
    elif question.schema is not None:
        text = json.dumps(_filled(question.schema, _Source(question)))
    elif question.results:
        text = "The tools say: " + "; ".join(question.results)
    elif "Respond with the corresponding output fields" in question.user:
        text = _dspy_fields(question)
    else:
        text = f"You said {len(_words(question.user))} words: {question.user[:200]}"
    said = text + "".join(json.dumps(arguments) for _, arguments in calls)
    return Answer(
        text, calls, sum(len(_words(part)) for part in question.texts), len(_words(said)) or 1
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


class _Source:
    """The numbers and quoted words of a question, one after the other."""

    def __init__(self, question: Question):
        said = re.sub(r"\[[^]]*\]", "", question.user)
        self.numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", said)]
        self.quoted = re.findall(r"'([^']+)'", said)
        self.rest = "; ".join(question.results) or (_words(said) or ["nothing"])[-1]

    def number(self) -> float:
        return self.numbers.pop(0) if self.numbers else 7.0

    def text(self) -> str:
        return self.quoted.pop(0) if self.quoted else self.rest


def _filled(schema: dict, source: _Source, root: dict | None = None) -> Any:
    """A value of that schema."""
    root = root if root is not None else schema
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _filled(target, source, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return _filled(schema[several][0], source, root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    kind = kind.lower()
    if kind == "object":
        return {
            name: _filled(part, source, root) for name, part in schema.get("properties", {}).items()
        }
    if kind == "array":
        return [_filled(schema.get("items", {}), source, root)]
    if kind == "integer":
        return int(source.number())
    if kind == "number":
        return source.number()
    if kind == "boolean":
        return True
    return None if kind == "null" else source.text()


def _calls(question: Question) -> list[tuple[str, dict]]:
    if question.results and not question.required:
        return []
    source = _Source(question)
    names = [question.forced] if question.forced else []
    if not names and not question.results:
        found = [
            (match.start(), name)
            for name in question.tools
            if (match := re.search(rf"(?<!\w){re.escape(name)}(?!\w)", question.user))
        ]
        names = [name for _, name in sorted(found)]
    if not names and question.required:
        names = [name for name in question.tools if name.startswith("final")] or [*question.tools][
            :1
        ]
    return [(name, _filled({"type": "object", **question.tools[name]}, source)) for name in names]


def _dspy_fields(question: Question) -> str:
    """DSPy's chat format; of a ReAct module, the first tool once, then ``finish``."""
    wanted = _DSPY_FIELD.findall(question.user.rpartition("Respond with the corresponding")[2])
    system = question.texts[0]
    asked = re.search(
        r"\[\[ ## question ## \]\]\s*(.*?)\s*(?=\n\[\[|\nRespond)", question.user, re.S
    )
    said = dataclasses.replace(question, user=asked[1] if asked else "nothing")
    tool = re.search(r"\(1\) (\w+)\b.*?It takes arguments (\{.*?\})\.", system, re.S)
    finished = "[[ ## observation_0 ## ]]" in question.user
    lines = []
    for name in wanted:
        if name == "completed":
            value = ""
        elif name == "next_tool_name":
            value = "finish" if finished or not tool else tool[1]
        elif name == "next_tool_args":
            properties = {} if finished or not tool else ast.literal_eval(tool[2])
            value = json.dumps(_filled({"properties": properties}, _Source(said)))
        else:
            value = f"{name} of: {said.user[:100]}"
        lines.append(f"[[ ## {name} ## ]]\n{value}")
    return "\n\n".join(lines)


# ---- OpenAI ----


def _text_of(content: Any) -> str:
    """The text of a message's content: a string, or parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _text_of(content.get("text") or content.get("content"))
    return " ".join(filter(None, map(_text_of, content or [])))


@dataclasses.dataclass
class Turns:
    """What a question takes from a conversation, turn by turn."""

    texts: list[str]
    user: str = ""  # the user's last words
    results: list[str] = dataclasses.field(default_factory=list)  # the tools', since then

    def add(self, text: str, results: Sequence[str] = (), *, of_user: bool) -> None:
        self.texts += [text, *results]
        if results:
            self.results += results
        elif of_user:
            self.user, self.results = text, []


def chat_question(body: dict) -> Question:
    turns = Turns([])
    for message in body["messages"]:
        text = _text_of(message.get("content"))
        turns.add(text, of_user=message["role"] == "user")
        if message["role"] in ("tool", "function"):
            turns.results.append(text)
    choice = body.get("tool_choice")
    response_format = body.get("response_format") or {}
    return Question(
        model=body["model"],
        **vars(turns),
        tools={
            tool["function"]["name"]: tool["function"].get("parameters") or {}
            for tool in body.get("tools") or []
            if tool.get("type", "function") == "function"
        },
        required=choice in ("required", "any") or isinstance(choice, dict),
        forced=choice["function"]["name"] if isinstance(choice, dict) else None,
        schema={"json_object": {"properties": {"answer": {}}}}.get(
            response_format.get("type"), response_format.get("json_schema", {}).get("schema")
        ),
        stream=bool(body.get("stream")),
    )


def _chat_usage(answer: Answer) -> dict:
    return {
        "prompt_tokens": answer.tokens_in,
        "completion_tokens": answer.tokens_out,
        "total_tokens": answer.tokens_in + answer.tokens_out,
        "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _chat_calls(question: Question, answer: Answer) -> list[dict]:
    return [
        {
            "id": question.id("call_", number),
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(answer.calls)
    ]


def _fingerprint(question: Question) -> str:
    return f"fp_{question.traceparent or 'stub'}"


def chat(question: Question, answer: Answer) -> dict:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.calls:
        message["tool_calls"] = _chat_calls(question, answer)
    return {
        "id": question.id("chatcmpl-"),
        "object": "chat.completion",
        "created": CREATED,
        "model": question.model,
        "system_fingerprint": _fingerprint(question),
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls" if answer.calls else "stop",
                "logprobs": None,
                "message": message,
            }
        ],
        "usage": _chat_usage(answer),
    }


def chat_stream(question: Question, answer: Answer, body: dict) -> Iterator[Any]:
    def chunk(delta: dict | None, finish: str | None = None, **more: Any) -> dict:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return {
            "id": question.id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": question.model,
            "system_fingerprint": _fingerprint(question),
            "choices": [] if delta is None else choices,
            **more,
        }

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in answer.pieces:
        yield chunk({"content": piece})
    for index, call in enumerate(_chat_calls(question, answer)):
        arguments = call["function"].pop("arguments")
        yield chunk({"tool_calls": [{"index": index, **call}]})
        for part in (arguments[:5], arguments[5:]):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, "tool_calls" if answer.calls else "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        yield chunk(None, usage=_chat_usage(answer))
    yield "[DONE]"


def completion(question: Question, answer: Answer) -> dict:
    return {
        "id": question.id("cmpl-"),
        "object": "text_completion",
        "created": CREATED,
        "model": question.model,
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "text": answer.text}],
        "usage": _chat_usage(answer),
    }


def completion_stream(question: Question, answer: Answer) -> Iterator[Any]:
    whole = completion(question, answer)
    for piece in answer.pieces:
        choice = {"index": 0, "finish_reason": None, "logprobs": None, "text": piece}
        yield {**whole, "choices": [choice], "usage": None}
    yield "[DONE]"


def embeddings(body: dict) -> dict:
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = []
    for index, text in enumerate(inputs):
        vector: Any = vector_of(text)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(len(_words(str(text))) for text in inputs)
    return {
        "id": "embedding",
        "object": "list",
        "model": body["model"],
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector_of(text: Any) -> list[float]:
    return [byte / 256 for byte in hashlib.sha1(str(text).encode()).digest()[:8]]


def responses_question(body: dict) -> Question:
    items = body["input"]
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    turns = Turns([body.get("instructions") or ""])
    for item in items:
        text = _text_of(item.get("content") or item.get("output"))
        turns.add(text, of_user=item.get("role") == "user")
        if item.get("type") == "function_call_output":
            turns.results.append(text)
    choice = body.get("tool_choice")
    form = (body.get("text") or {}).get("format") or {}
    return Question(
        model=body["model"],
        **vars(turns),
        tools={
            tool["name"]: tool.get("parameters") or {}
            for tool in body.get("tools") or []
            if tool["type"] == "function"
        },
        required=choice == "required" or isinstance(choice, dict),
        forced=choice["name"] if isinstance(choice, dict) else None,
        schema=form.get("schema"),
        stream=bool(body.get("stream")),
    )


def responses(question: Question, answer: Answer, body: dict) -> dict:
    output: list[dict] = [
        {
            "type": "function_call",
            "id": question.id("fc_", number),
            "call_id": question.id("call_", number),
            "name": name,
            "arguments": json.dumps(arguments),
            "status": "completed",
        }
        for number, (name, arguments) in enumerate(answer.calls)
    ]
    if answer.text:
        part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        output.append(
            {
                "type": "message",
                "id": question.id("msg_"),
                "status": "completed",
                "role": "assistant",
                "content": [part],
            }
        )
    return {
        "id": question.id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "model": question.model,
        "output": output,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {"traceparent": question.traceparent} if question.traceparent else {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "usage": {
            "input_tokens": answer.tokens_in,
            "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
            "output_tokens": answer.tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.tokens_in + answer.tokens_out,
        },
    }


def responses_stream(question: Question, answer: Answer, body: dict) -> Iterator[Any]:
    whole = responses(question, answer, body)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}

    def events() -> Iterator[dict]:
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        for index, item in enumerate(whole["output"]):
            place = {"output_index": index, "item_id": item["id"]}
            if item["type"] == "message":
                part = item["content"][0]
                bare = {**item, "status": "in_progress", "content": []}
                content = {**place, "content_index": 0}
                yield {"type": "response.output_item.added", "output_index": index, "item": bare}
                yield {
                    "type": "response.content_part.added",
                    **content,
                    "part": {**part, "text": ""},
                }
                for piece in answer.pieces:
                    yield {
                        "type": "response.output_text.delta",
                        **content,
                        "delta": piece,
                        "logprobs": [],
                    }
                yield {
                    "type": "response.output_text.done",
                    **content,
                    "text": part["text"],
                    "logprobs": [],
                }
                yield {"type": "response.content_part.done", **content, "part": part}
            else:
                bare = {**item, "status": "in_progress", "arguments": ""}
                arguments = item["arguments"]
                yield {"type": "response.output_item.added", "output_index": index, "item": bare}
                yield {
                    "type": "response.function_call_arguments.delta",
                    **place,
                    "delta": arguments,
                }
                yield {
                    "type": "response.function_call_arguments.done",
                    **place,
                    "name": item["name"],
                    "arguments": arguments,
                }
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        yield {"type": "response.completed", "response": whole}

    for number, event in enumerate(events()):
        yield (event["type"], {**event, "sequence_number": number})


# ---- Anthropic ----


def messages_question(body: dict) -> Question:
    turns = Turns([_text_of(body.get("system"))])
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        found = [_text_of(part.get("content")) for part in parts if part["type"] == "tool_result"]
        text = _text_of([part for part in parts if part["type"] == "text"])
        turns.add(text, found, of_user=message["role"] == "user")
    choice = body.get("tool_choice") or {}
    return Question(
        model=body["model"],
        **vars(turns),
        tools={
            tool["name"]: tool.get("input_schema") or {}
            for tool in body.get("tools") or []
            if "input_schema" in tool
        },
        required=choice.get("type") in ("any", "tool"),
        forced=choice.get("name"),
        stream=bool(body.get("stream")),
    )


def messages(question: Question, answer: Answer) -> dict:
    content: list[dict] = [{"type": "text", "text": answer.text}] if answer.text else []
    content += [
        {"type": "tool_use", "id": question.id("toolu_", number), "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(answer.calls)
    ]
    return {
        "id": question.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": question.model,
        "content": content,
        "stop_reason": "tool_use" if answer.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": answer.tokens_in,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 3,
            "output_tokens": answer.tokens_out,
        },
        **({"traceparent": question.traceparent} if question.traceparent else {}),
    }


def messages_stream(question: Question, answer: Answer) -> Iterator[Any]:
    whole = messages(question, answer)
    usage = whole["usage"]
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}

    def events() -> Iterator[dict]:
        yield {"type": "message_start", "message": begun}
        for index, block in enumerate(whole["content"]):
            if block["type"] == "text":
                bare = {**block, "text": ""}
                deltas = [{"type": "text_delta", "text": piece} for piece in answer.pieces]
            else:
                bare = {**block, "input": {}}
                deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
            yield {"type": "content_block_start", "index": index, "content_block": bare}
            for delta in deltas:
                yield {"type": "content_block_delta", "index": index, "delta": delta}
            yield {"type": "content_block_stop", "index": index}
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": usage["output_tokens"]},
        }
        yield {"type": "message_stop"}

    for event in events():
        yield (event["type"], event)


# ---- Gemini ----


def gemini_question(body: dict, model: str, stream: bool) -> Question:
    system = body.get("systemInstruction") or {}
    turns = Turns([_text_of(system.get("parts"))])
    for content in body["contents"]:
        parts = content["parts"]
        found = [
            json.dumps(part["functionResponse"]["response"], sort_keys=True)
            for part in parts
            if "functionResponse" in part
        ]
        text = _text_of([part for part in parts if "text" in part])
        turns.add(text, found, of_user=content.get("role", "user") == "user")
    tools = {
        function["name"]: function.get("parameters") or function.get("parameters_json_schema") or {}
        for tool in body.get("tools") or []
        for function in tool.get("functionDeclarations") or []
    }
    config = body.get("generationConfig") or {}
    schema = config.get("responseSchema") or config.get("responseJsonSchema")
    return Question(model, **vars(turns), tools=tools, schema=schema, stream=stream)


def gemini(question: Question, answer: Answer) -> dict:
    parts: list[dict] = [{"text": answer.text}] if answer.text else []
    parts += [{"functionCall": {"name": name, "args": args}} for name, args in answer.calls]
    return {
        "candidates": [
            {"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": parts}}
        ],
        "modelVersion": question.model,
        "responseId": question.id("g"),
        "usageMetadata": {
            "promptTokenCount": answer.tokens_in,
            "candidatesTokenCount": answer.tokens_out,
            "totalTokenCount": answer.tokens_in + answer.tokens_out,
        },
    }


def gemini_stream(question: Question, answer: Answer) -> Iterator[Any]:
    if answer.calls:
        yield gemini(question, answer)
    for piece in answer.pieces:
        yield gemini(question, dataclasses.replace(answer, text=piece))


# ---- Bedrock ----


def converse_question(body: dict, model: str, stream: bool) -> Question:
    turns = Turns([_text_of(body.get("system"))])
    for message in body["messages"]:
        parts = message["content"]
        found = [_text_of(part["toolResult"]["content"]) for part in parts if "toolResult" in part]
        text = _text_of([part for part in parts if "text" in part])
        turns.add(text, found, of_user=message["role"] == "user")
    tools = {
        tool["toolSpec"]["name"]: tool["toolSpec"]["inputSchema"]["json"]
        for tool in (body.get("toolConfig") or {}).get("tools") or []
        if "toolSpec" in tool
    }
    return Question(model, **vars(turns), tools=tools, stream=stream)


def _converse_usage(answer: Answer) -> dict:
    return {
        "inputTokens": answer.tokens_in,
        "outputTokens": answer.tokens_out,
        "totalTokens": answer.tokens_in + answer.tokens_out,
    }


def converse(question: Question, answer: Answer) -> dict:
    content: list[dict] = [{"text": answer.text}] if answer.text else []
    content += [
        {
            "toolUse": {
                "toolUseId": question.id("tooluse_", number),
                "name": name,
                "input": arguments,
            }
        }
        for number, (name, arguments) in enumerate(answer.calls)
    ]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use" if answer.calls else "end_turn",
        "usage": _converse_usage(answer),
        "metrics": {"latencyMs": 5},
    }


def converse_stream(question: Question, answer: Answer) -> Iterator[Any]:
    yield ("messageStart", {"role": "assistant"})
    for piece in answer.pieces:
        yield ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}})
    if answer.text:
        yield ("contentBlockStop", {"contentBlockIndex": 0})
    whole = converse(question, answer)
    for index, block in enumerate(whole["output"]["message"]["content"]):
        if use := block.get("toolUse"):
            place = {"contentBlockIndex": index}
            arguments = json.dumps(use.pop("input"))
            yield ("contentBlockStart", {**place, "start": {"toolUse": use}})
            yield ("contentBlockDelta", {**place, "delta": {"toolUse": {"input": arguments}}})
            yield ("contentBlockStop", place)
    yield ("messageStop", {"stopReason": whole["stopReason"]})
    yield ("metadata", {"usage": whole["usage"], "metrics": whole["metrics"]})


def amazon_event(kind: str, payload: dict) -> bytes:
    """One message of AWS's binary event stream."""
    headers = b""
    for name, value in (
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ):
        headers += bytes([len(name)]) + name.encode()
        headers += b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + body
    return message + struct.pack(">I", binascii.crc32(message))


# ---- the server ----


def _error(path: str, status: int, words: str) -> dict:
    if path.endswith("/messages"):
        return {"type": "error", "error": {"type": f"error_{status}", "message": words}}
    if "/models/" in path:
        return {"error": {"code": status, "message": words, "status": "STUB"}}
    if path.startswith("/model/"):
        return {"message": words}
    return {"error": {"message": words, "type": f"error_{status}", "param": None, "code": None}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            model = {"id": "stub", "object": "model", "created": CREATED, "owned_by": "stub"}
            self._json({"object": "list", "data": [model]})
        else:
            self._json({"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        path = unquote(self.path.partition("?")[0])
        try:
            self._answer(path, body)
        except Refusal as refusal:
            self._json(_error(path, refusal.status, str(refusal)), refusal.status)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has enough

    def _answer(self, path: str, body: dict) -> None:
        if path.endswith("/embeddings"):
            self._json(embeddings(body))
        elif path.endswith("/chat/completions"):
            question = self._asked(chat_question(body))
            answer = answer_to(question)
            if question.stream:
                self._events(path, question, chat_stream(question, answer, body))
            else:
                self._json(chat(question, answer))
        elif path.endswith("/completions"):
            prompt = _text_of(body["prompt"])
            question = self._asked(
                Question(body["model"], [prompt], prompt, [], {}, stream=bool(body.get("stream")))
            )
            answer = answer_to(question)
            if question.stream:
                self._events(path, question, completion_stream(question, answer))
            else:
                self._json(completion(question, answer))
        elif path.endswith("/responses"):
            question = self._asked(responses_question(body))
            answer = answer_to(question)
            if question.stream:
                self._events(path, question, responses_stream(question, answer, body))
            else:
                self._json(responses(question, answer, body))
        elif path.endswith("/messages"):
            question = self._asked(messages_question(body))
            answer = answer_to(question)
            if question.stream:
                self._events(path, question, messages_stream(question, answer))
            else:
                self._json(messages(question, answer))
        elif path.endswith("/messages/count_tokens"):
            self._json({"input_tokens": answer_to(messages_question(body)).tokens_in})
        elif path.endswith("Content") and "/models/" in path:
            model, _, method = path.rpartition("/")[2].partition(":")
            self._gemini(path, model, method, body)
        elif path.endswith(":countTokens"):
            question = gemini_question(body, "", False)
            self._json({"totalTokens": answer_to(question).tokens_in})
        elif path.endswith(":batchEmbedContents"):
            texts = [_text_of(request["content"]["parts"]) for request in body["requests"]]
            self._json({"embeddings": [{"values": vector_of(text)} for text in texts]})
        elif path.startswith("/model/") and "/converse" in path:
            model, _, method = path.removeprefix("/model/").rpartition("/")
            stream = method == "converse-stream"
            question = self._asked(converse_question(body, model, stream))
            answer = answer_to(question)
            if stream:
                self._events(path, question, converse_stream(question, answer))
            else:
                self._json(converse(question, answer))
        elif path.startswith("/model/") and path.endswith("/invoke"):
            question = self._asked(messages_question({"model": path.split("/")[2], **body}))
            self._json(messages(question, answer_to(question)))
        else:
            self._json(_error(path, 404, f"The stub knows no {path}"), 404)

    def _gemini(self, path: str, model: str, method: str, body: dict) -> None:
        if method == "embedContent":
            self._json({"embedding": {"values": vector_of(_text_of(body["content"]["parts"]))}})
            return
        stream = method == "streamGenerateContent"
        question = self._asked(gemini_question(body, model, stream))
        answer = answer_to(question)
        if stream:
            self._events(path, question, gemini_stream(question, answer))
        else:
            self._json(gemini(question, answer))

    def _asked(self, question: Question) -> Question:
        question.traceparent = self.headers.get("traceparent")
        question.retried = self.headers.get("x-stainless-retry-count", "0") != "0"
        return question

    def _json(self, value: dict, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("x-request-id", "req_stub")
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _events(self, path: str, question: Question, events: Iterator[Any]) -> None:
        amazon = path.startswith("/model/")
        self.send_response(200)
        self.send_header(
            "Content-Type",
            "application/vnd.amazon.eventstream" if amazon else "text/event-stream",
        )
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("x-request-id", "req_stub")
        self.end_headers()
        for number, event in enumerate(events):
            if number == 3 and "[cut]" in question.user:
                self.wfile.flush()
                self.close_connection = True
                return
            if number == 3 and "[break]" in question.user:
                words = _error(path, 500, "The stub was told to break off")
                event = ("error", words) if path.endswith(("/messages", "/responses")) else words
                if path.endswith("/responses"):
                    event = ("error", {"type": "error", "sequence_number": 3, **words["error"]})
                self._chunk(event, amazon)
                break
            if question.pause:
                self.wfile.flush()
                time.sleep(question.pause)
            self._chunk(event, amazon)
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _chunk(self, event: Any, amazon: bool) -> None:
        kind, data = event if isinstance(event, tuple) else (None, event)
        if amazon:
            content = amazon_event(kind or "error", data)
        else:
            text = data if isinstance(data, str) else json.dumps(data)
            content = (f"event: {kind}\n" if kind else "").encode() + f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(CREATED)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def running(port: int = 0) -> Iterator[str]:
    """The stub in threads of this process; its address, without a path."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    with running(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as address:
        print(address, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
