"""Streams of Amazon Bedrock that do not come to their end, each of a question of its own. Run as
``bedrock_streams.py drop-in|installed STUB EXPERIMENT``; boto3 is in .venv-integrations-more."""

from __future__ import annotations

import sys

from integrations import bedrock_programs
from integrations.run import WAYS

kept = []


def left(stream):
    for event in stream:
        if "contentBlockDelta" in event:
            break


def closed(stream):
    for event in stream:
        if "contentBlockDelta" in event:
            stream.close()
            break


def closed_unread(stream):
    stream.close()


def kept_until_it_is_closed(stream):
    events = iter(stream)
    while "contentBlockDelta" not in next(events):
        pass
    kept.append(events)
    stream.close()


def broken(stream):
    class Broken:
        def __iter__(self):
            yield {"messageStart": {"role": "assistant"}}
            yield {"contentBlockDelta": {"delta": {"text": "You"}}}
            raise ConnectionError("gone")

    stream._stream = Broken()
    try:
        list(stream)
    except ConnectionError:
        pass


def whole(stream):
    assert len(list(stream)) > 3
    stream.close()


CALLS = (left, closed, closed_unread, kept_until_it_is_closed, broken, whole)


def main():
    how, stub, experiment = sys.argv[1:]
    mlflow = WAYS[how]()
    mlflow.set_experiment(experiment)
    bedrock_programs.enable(mlflow, stub)
    client = bedrock_programs._client(stub)
    for call in CALLS:
        request = bedrock_programs._request(f"one two {call.__name__}")
        call(client.converse_stream(**request)["stream"])
        assert mlflow.get_current_active_span() is None


if __name__ == "__main__":
    main()
