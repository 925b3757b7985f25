"""Amazon Bedrock by boto3."""

from __future__ import annotations

import json

import boto3
import pytest
from botocore.exceptions import ClientError

MODEL = "anthropic.claude-sonnet-4-5"


def enable(mlflow, stub):
    mlflow.bedrock.autolog()


def _client(stub):
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=stub,
        region_name="us-east-1",
        aws_access_key_id="stub",
        aws_secret_access_key="stub",
    )


def _request(words, **more):
    return {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": words}]}], **more}


def converse(mlflow, stub):
    answer = _client(stub).converse(**_request("Hello ☃", system=[{"text": "Be brief."}]))
    assert answer["output"]["message"]["content"] == [{"text": "You said 2 words: Hello ☃"}]


def converse_stream(mlflow, stub):
    events = list(_client(stub).converse_stream(**_request("a stream"))["stream"])
    assert "metadata" in events[-1]


def tools(mlflow, stub):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tool = {"toolSpec": {"name": "add", "description": "Adds.", "inputSchema": {"json": schema}}}
    answer = _client(stub).converse(**_request("add 1", toolConfig={"tools": [tool]}))
    assert answer["stopReason"] == "tool_use"


def invoke(mlflow, stub):
    body = {"max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}
    answer = _client(stub).invoke_model(modelId=MODEL, body=json.dumps(body))
    assert json.loads(answer["body"].read())["stop_reason"] == "end_turn"


def errors(mlflow, stub):
    with pytest.raises(ClientError):
        _client(stub).converse(**_request("[status 400]"))


def nested(mlflow, stub):
    @mlflow.trace
    def main():
        client = _client(stub)
        client.converse(**_request("first"))
        for _ in client.converse_stream(**_request("second"))["stream"]:
            with mlflow.start_span("between events"):
                pass

    main()
