"""Images, audio and files in traces."""

from __future__ import annotations

import base64
import struct
import tempfile
import zlib
from pathlib import Path

from programs import Programs
from programs.documentation import last, of, openai_traced, tree

PROGRAMS = Programs()
program = PROGRAMS.add


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"\x00\xff\x80\x00"))
    + chunk(b"IEND", b"")
)
WAV = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(24) + b"data" + bytes(4)


def encoded(data):
    return base64.b64encode(data).decode()


def asked(mlflow, *parts, model="gpt-4o"):
    with openai_traced(mlflow) as client:
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": list(parts)}]
        )
    return last(mlflow)


def reference(text):
    return text.partition("?")[0].partition("://")[0]


@program
def an_image_by_its_address(mlflow):
    trace = asked(
        mlflow,
        {"type": "text", "text": "What is on it?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/bridge.png"}},
    )
    return [tree(trace), trace.data.spans[0].inputs["messages"][0]["content"]]


@program
def an_image_as_data(mlflow):
    url = f"data:image/png;base64,{encoded(PNG)}"
    trace = asked(
        mlflow,
        {"type": "text", "text": "Describe it."},
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
    )
    content = trace.data.spans[0].inputs["messages"][0]["content"]
    return [
        content[0],
        reference(content[1]["image_url"]["url"]),
        content[1]["image_url"]["detail"],
    ]


@program
def a_recording(mlflow):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recording.wav")
        path.write_bytes(WAV)
        trace = asked(
            mlflow,
            {"type": "text", "text": "What is said?"},
            {
                "type": "input_audio",
                "input_audio": {"data": encoded(path.read_bytes()), "format": "wav"},
            },
            model="gpt-4o-audio-preview",
        )
    content = trace.data.spans[0].inputs["messages"][0]["content"]
    return [reference(content[1]["input_audio"]["data"]), content[1]["input_audio"]["format"]]


@program
def parts_by_hand(mlflow):
    with mlflow.start_span(name="look", span_type="CHAT_MODEL") as span:
        span.set_inputs(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is on it?"},
                            {
                                "type": "image_url",
                                "image_url": {"url": "https://example.org/cat.png"},
                            },
                        ],
                    }
                ]
            }
        )
        span.set_outputs({"content": "A cat."})
    trace = last(mlflow)
    return [trace.data.spans[0].inputs, trace.info.request_preview, trace.info.response_preview]


@program
def attachments_by_hand(mlflow):
    Attachment = of(mlflow, "tracing.attachments").Attachment
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "map.png")
        path.write_bytes(PNG)
        with mlflow.start_span(name="draw") as span:
            file = Attachment.from_file(path)
            span.set_inputs({"map": file, "scale": 3})
            span.set_outputs([Attachment(content_type="text/plain", content_bytes=b"a note")])
    found = last(mlflow).data.spans[0]
    parse = Attachment.parse_ref
    kinds = [parse(found.inputs["map"]), parse(found.outputs[0])]
    return [
        file.content_type,
        [one["content_type"] for one in kinds],
        [one["trace_id"] == found.trace_id for one in kinds],
        found.inputs["scale"],
    ]


@program
def attachments_are_read_back(mlflow):
    Attachment = of(mlflow, "tracing.attachments").Attachment

    @mlflow.trace
    def render(words):
        return {"image": f"data:image/png;base64,{encoded(PNG)}", "words": words}

    render("a dot")
    trace = last(mlflow)
    kept = Attachment.parse_ref(trace.data.spans[0].outputs["image"])
    repository = (
        of(mlflow, "tracing.client").TracingClient()._get_artifact_repo_for_trace(trace.info)
    )
    stored = repository.download_trace_attachment(kept["attachment_id"])
    return [bytes(stored) == PNG, kept["content_type"], kept.get("size")]
