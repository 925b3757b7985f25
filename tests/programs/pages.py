"""Programs whose traces are looked at in MLflow's UI: one for each thing that it shows in a way of its own."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import time
import wave
import zlib

from programs import Programs

PROGRAMS = Programs()
program = PROGRAMS.add

#: The side of the pictures that are recorded, in pixels.
SIDE = 96


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(red: int, green: int, blue: int) -> bytes:
    """A square of one colour, which fades to white."""
    rows = b"".join(
        b"\0" + bytes(c + (255 - c) * row // SIDE for _ in range(SIDE) for c in (red, green, blue))
        for row in range(SIDE)
    )
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def wav() -> bytes:
    """A tenth of a second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return file.getvalue()


def pdf() -> bytes:
    """A page that is empty."""
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>",
    )
    content, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj%sendobj\n" % (number, text)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(content)
    return content + b"xref\n0 4\n0000000000 65535 f \n" + table + trailer


def next_millisecond() -> None:
    """Returns in another millisecond: traces that begin in one have no order in the list."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        pass


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64_of(content)}"


# ---- chats ----

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def _openai(message: dict) -> dict:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}}],
    }


def _usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def _cost(cents_in: float, cents_out: float) -> dict[str, float]:
    return {
        "input_cost": cents_in / 100,
        "output_cost": cents_out / 100,
        "total_cost": (cents_in + cents_out) / 100,
    }


@program
def chats(mlflow):
    from mlflow.tracing import set_span_chat_tools

    @mlflow.trace(span_type="TOOL")
    def add(a, b):
        return a + b

    @mlflow.trace(span_type="CHAT_MODEL")
    def complete(messages):
        span = mlflow.get_current_active_span()
        span.set_attributes(
            {
                "mlflow.message.format": "openai",
                "mlflow.llm.model": "gpt-4o-mini",
                "mlflow.llm.provider": "openai",
                "mlflow.chat.tokenUsage": _usage(12 * len(messages), 7),
                "mlflow.llm.cost": _cost(1.25, 2.5),
                "temperature": 0.2,
                "stop": ["###", "the end"],
            }
        )
        set_span_chat_tools(span, [ADD])
        if messages[-1]["role"] == "tool":
            return _openai({"content": f"The sum is **{messages[-1]['content']}**."})
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": "add", "arguments": '{"a": 17, "b": 25}'},
        }
        return _openai({"content": None, "tool_calls": [call]})

    @mlflow.trace(span_type="AGENT")
    def agent(question):
        messages = [
            {"role": "system", "content": "You do sums.\n\n- with tools\n- and in words"},
            {"role": "user", "content": question},
        ]
        asked = complete(messages)["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": "call_1", "content": str(add(17, 25))}
        return complete([*messages, asked, result])["choices"][0]["message"]["content"]

    agent("What is 17 + 25?")

    with mlflow.start_span("Messages.create", span_type="CHAT_MODEL") as span:
        span.set_inputs(
            {
                "model": "claude",
                "system": "Be brief.",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi ☃"}]}],
            }
        )
        span.set_outputs(
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "claude",
                "content": [{"type": "text", "text": "Hello."}],
            }
        )
        span.set_attributes(
            {"mlflow.message.format": "anthropic", "mlflow.chat.tokenUsage": _usage(9, 2)}
        )

    with mlflow.start_span("Responses", span_type="CHAT_MODEL") as span:
        span.set_inputs({"model": "o", "input": [{"role": "user", "content": "Which day is it?"}]})
        text = {"type": "output_text", "text": "Tuesday.", "annotations": []}
        span.set_outputs(
            {"output": [{"type": "message", "id": "m", "role": "assistant", "content": [text]}]}
        )
        span.set_attribute("mlflow.message.format", "openai")


# ---- what is not text ----


@program
def contents(mlflow):
    from mlflow.tracing.attachments import Attachment

    @mlflow.trace(span_type="CHAT_MODEL")
    def look(messages):
        mlflow.get_current_active_span().set_attribute("mlflow.message.format", "openai")
        return _openai({"content": "A blue square that fades."})

    seen = {"type": "image_url", "image_url": {"url": data_uri("image/png", png(30, 80, 200))}}
    heard = {"type": "input_audio", "input_audio": {"data": base64_of(wav()), "format": "wav"}}
    question = {"type": "text", "text": "What is in this picture?"}
    look([{"role": "user", "content": [question, seen]}])
    look([{"role": "user", "content": [{"type": "text", "text": "What do you hear?"}, heard]}])

    @mlflow.trace(span_type="TOOL")
    def draw(prompt):
        return {"image": data_uri("image/png", png(200, 60, 30)), "prompt": prompt}

    draw("a red square")

    with mlflow.start_span("files", span_type="PARSER") as span:
        document = Attachment(content_type="application/pdf", content_bytes=pdf())
        span.set_inputs({"file": document, "page": 1})
        span.set_outputs([data_uri("audio/wav", wav()), "words"])

    with mlflow.start_span("retrieve", span_type="RETRIEVER") as span:
        span.set_inputs({"query": "grapes"})
        span.set_outputs(
            [
                {"page_content": f"The **{n}.** fable", "metadata": {"doc_uri": f"f{n}", "n": n}}
                for n in range(3)
            ]
        )

    with mlflow.start_span("values") as span:
        span.set_inputs(
            {
                "text": "two\nlines, `code` and <b>no html</b>",
                "numbers": [0, -1, 2**53 + 1, 1.5, 1e22],
                "nothing": None,
                "deep": {"a": {"b": {"c": [{"d": True}]}}},
            }
        )
        span.set_outputs("# A heading\n\nand | a | table")

    with mlflow.start_span("long") as span:
        span.set_inputs({"text": "word " * 2000})
        span.set_outputs([f"item {n}" for n in range(200)])


# ---- what goes wrong, and what happens meanwhile ----


@program
def faults(mlflow):
    @mlflow.trace(span_type="TOOL")
    def divide(a, b):
        return a / b

    @mlflow.trace(span_type="CHAIN")
    def average(numbers):
        return divide(sum(numbers), len(numbers))

    @mlflow.trace(span_type="AGENT")
    def report(numbers):
        try:
            return average(numbers)
        except ZeroDivisionError:
            return "nothing to report"

    try:
        average([])
    except ZeroDivisionError:
        pass
    assert report([]) == "nothing to report"

    with mlflow.start_span("noted") as span:
        event = mlflow.entities.SpanEvent("cache miss", attributes={"key": "k", "size": 3})
        span.add_event(event)
        span.add_event(mlflow.entities.SpanEvent("retry", attributes={"after": 1.5}))
        span.set_attributes({"attempts": 2, "cache": {"hit": False, "keys": ["k", None]}})
        span.set_status("OK")
    with mlflow.start_span("said to fail") as span:
        span.set_status(mlflow.entities.SpanStatus("ERROR", "the bank does not answer"))
        span.set_outputs({"paid": False})


# ---- what traces carry ----


@program
def labels(mlflow):
    @mlflow.trace(span_type="AGENT")
    def turn(session, user, text):
        mlflow.update_current_trace(
            tags={"team": "north" if user == "ada" else "south", "reviewed": "no"},
            metadata={"mlflow.trace.session": session, "mlflow.trace.user": user, "release": "7"},
            client_request_id=f"{session}-{len(text)}",
        )
        mlflow.get_current_active_span().set_attribute(
            "mlflow.chat.tokenUsage", _usage(len(text), 2)
        )
        if text == "fail":
            raise ValueError("asked to fail")
        return f"You said: {text}"

    for session, user, text in (
        ("monday", "ada", "good morning"),
        ("monday", "ada", "how are you"),
        ("tuesday", "ben", "good evening"),
        ("tuesday", "ben", "fail"),
    ):
        next_millisecond()
        try:
            turn(session, user, text)
        except ValueError:
            pass

    with mlflow.start_span("judged") as span:
        span.set_inputs({"q": "is it good?"})
        span.set_outputs("yes")
        mlflow.log_feedback(trace_id=span.trace_id, name="good", value=True, rationale="it says so")
        mlflow.log_expectation(trace_id=span.trace_id, name="answer", value="yes")
    with mlflow.start_span("shown otherwise") as span:
        span.set_inputs({"q": 1})
        mlflow.update_current_trace(request_preview="as asked", response_preview="as answered")


# ---- trees ----


@program
def shapes(mlflow):
    @mlflow.trace
    def down(levels):
        return down(levels - 1) if levels else "the ground"

    @mlflow.trace(span_type="TOOL")
    def leaf(n):
        return n

    @mlflow.trace(span_type="CHAIN")
    def wide(leaves):
        return sum(leaf(n) for n in range(leaves))

    @mlflow.trace(span_type="LLM")
    async def step(n):
        # The others have begun when one goes on.
        with mlflow.start_span(f"within {n}"):
            await asyncio.sleep(0.01 * (n + 1))
        return n

    @mlflow.trace(span_type="WORKFLOW")
    async def together():
        return await asyncio.gather(step(0), step(1), step(2))

    @mlflow.trace(span_type="LLM")
    def stream(words):
        for word in words.split():
            leaf(word)
            yield {"word": word}

    @mlflow.trace(output_reducer=lambda items: "".join(items))
    def joined():
        yield "one "
        yield "text"

    down(15)
    wide(40)
    asyncio.run(together())
    list(stream("a few words"))
    list(joined())

    kinds = (
        "LLM CHAIN AGENT TOOL CHAT_MODEL RETRIEVER PARSER EMBEDDING RERANKER MEMORY "
        "WORKFLOW TASK GUARDRAIL EVALUATOR UNKNOWN MINE"
    )
    with mlflow.start_span("of every type"):
        for kind in kinds.split():
            with mlflow.start_span(kind.lower(), span_type=kind):
                pass
