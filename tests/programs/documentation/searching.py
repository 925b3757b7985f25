"""Searching, reading and deleting traces."""

from __future__ import annotations

import time

from programs import Programs
from programs.documentation import next_millisecond, own_experiment_id, raised_by, read

PROGRAMS = Programs()
program = PROGRAMS.add


def some_traces(mlflow):
    """Five traces that differ in all that can be searched for."""
    for n, (name, kind, environment) in enumerate(
        (
            ("predict", "LLM", "production"),
            ("predict_2", "TOOL", "production"),
            ("inference_7", "LLM", "staging"),
            ("train", "CHAIN", "staging"),
            ("broken", "TOOL", "production"),
        )
    ):
        next_millisecond()
        try:
            with mlflow.start_span(name, span_type=kind) as span:
                span.set_inputs({"text": f"request number {n}"})
                span.set_attribute("model_version", f"v{n}.0")
                span.set_attribute("temperature", n / 10)
                mlflow.update_current_trace(
                    tags={"environment": environment, "version": f"v1.{n}"},
                    metadata={"user_id": f"user-{n % 2}"},
                    client_request_id=f"req-{n}",
                )
                with mlflow.start_span(f"llm_call {n}"):
                    pass
                if name == "broken":
                    raise TimeoutError("authentication error")
                span.set_outputs(f"answer number {n}")
        except TimeoutError:
            pass
    mlflow.flush_trace_async_logging()


def searcher(mlflow):
    def found(words=None, **more):
        traces = mlflow.search_traces(filter_string=words, return_type="list", **more)
        return [trace.info.tags["mlflow.traceName"] for trace in traces]

    return found


@program
def searches_for_text_and_names(mlflow):
    some_traces(mlflow)
    found = searcher(mlflow)
    return [
        sorted(found(words))
        for words in (
            "trace.text LIKE '%authentication error%'",
            "trace.text LIKE '%number 2%'",
            "trace.name = 'predict'",
            "trace.name LIKE '%inference%'",
            "trace.name ILIKE '%PREDICT%'",
            "trace.name RLIKE '^(predict|inference)_[0-9]+'",
        )
    ]


@program
def searches_for_states_and_times(mlflow):
    some_traces(mlflow)
    found = searcher(mlflow)
    now = int(time.time() * 1000)
    return [
        sorted(found(words))
        for words in (
            "trace.status = 'OK'",
            "trace.status = 'ERROR'",
            "trace.status != 'OK'",
            "status = 'ERROR'",
            "trace.execution_time_ms > 60000",
            "trace.execution_time_ms >= 0 AND trace.execution_time_ms <= 60000",
            f"trace.timestamp_ms > {now - 3_600_000}",
            f"trace.timestamp_ms > {now + 3_600_000}",
            f"trace.end_time_ms > {now - 3_600_000}",
            f"trace.end_time_ms < {now - 3_600_000}",
        )
    ]


@program
def searches_for_tags_metadata_and_requests(mlflow):
    some_traces(mlflow)
    found = searcher(mlflow)
    return [
        sorted(found(words))
        for words in (
            "tag.environment = 'production'",
            "tag.environment LIKE 'stag%'",
            "tag.environment ILIKE '%PROD%'",
            "tag.version RLIKE '^v1\\.[0-2]$'",
            "metadata.user_id = 'user-1'",
            "metadata.user_id LIKE 'user%'",
            "trace.client_request_id = 'req-3'",
            "trace.client_request_id LIKE 'req-%'",
        )
    ]


@program
def searches_for_spans(mlflow):
    some_traces(mlflow)
    found = searcher(mlflow)
    return [
        sorted(found(words))
        for words in (
            "span.name = 'llm_call 3'",
            "span.name LIKE '%call%'",
            "span.type = 'LLM'",
            "span.type RLIKE '^T'",
            "span.attributes.model_version LIKE '%v2%'",
            "span.attributes.model_version ILIKE '%V2%'",
            "span.attributes.temperature LIKE '%0.3%'",
        )
    ]


@program
def searches_for_assessments(mlflow):
    some_traces(mlflow)
    for trace in mlflow.search_traces(return_type="list"):
        name = trace.info.tags["mlflow.traceName"]
        if name.startswith("predict"):
            mlflow.log_feedback(trace_id=trace.info.trace_id, name="rating", value="positive")
            mlflow.log_feedback(trace_id=trace.info.trace_id, name="comment", value="very helpful")
        mlflow.log_expectation(
            trace_id=trace.info.trace_id, name="label", value="success" if "2" in name else "none"
        )
    found = searcher(mlflow)
    return [
        sorted(found(words))
        for words in (
            "feedback.rating = 'positive'",
            "feedback.comment LIKE '%helpful%'",
            "expectation.label = 'success'",
            "expectation.label ILIKE '%SUCC%'",
            "feedback.rating = 'positive' AND span.type = 'LLM'",
        )
    ]


@program
def searches_for_several_things(mlflow):
    some_traces(mlflow)
    found = searcher(mlflow)
    return [
        sorted(found(words))
        for words in (
            "trace.status = 'OK' AND tag.environment = 'production'",
            """
            tag.environment = 'production'
            AND trace.status = 'ERROR'
            AND trace.execution_time_ms >= 0
            """,
            "trace.name ILIKE '%inference%' AND trace.timestamp_ms > 1700000000000"
            " AND span.attributes.model_version LIKE '%v2%'",
        )
    ]


@program
def searches_for_runs_and_prompts(mlflow):
    with mlflow.start_run() as run, mlflow.start_span("in a run"):
        pass
    with mlflow.start_span("apart"):
        pass
    mlflow.flush_trace_async_logging()
    found = searcher(mlflow)
    return [
        found(f"trace.run_id = '{run.info.run_id}'"),
        found(run_id=run.info.run_id),
        found("prompt = 'no such prompt/4'"),
    ]


@program
def searches_that_are_refused(mlflow):
    found = searcher(mlflow)
    return [
        raised_by(lambda: found("trace.status = OK")),
        raised_by(lambda: found("trace.nothing = 'OK'")),
        raised_by(lambda: found("trace.status = 'OK' OR trace.status = 'ERROR'")),
        raised_by(lambda: found(order_by=["nothing DESC"])),
        raised_by(lambda: found(max_results=-1)),
        raised_by(lambda: mlflow.search_traces(return_type="set")),
        raised_by(lambda: mlflow.search_traces(experiment_ids=["1"], locations=["1"])),
        found(locations=["999999"]),
    ]


@program
def searches_that_are_ordered_and_cut(mlflow):
    some_traces(mlflow)
    found = searcher(mlflow)
    return [
        found(order_by=["timestamp_ms ASC"])[:1],
        found(order_by=["timestamp_ms DESC", "status ASC"])[:1],
        len(found(max_results=2)),
        len(found(order_by=["execution_time_ms DESC"])),
        len(found(locations=[own_experiment_id(mlflow)])),
        len(found(experiment_ids=[own_experiment_id(mlflow)])),
    ]


@program
def a_frame_of_traces(mlflow):
    some_traces(mlflow)
    frame = mlflow.search_traces(order_by=["timestamp_ms ASC"])
    errors = mlflow.search_traces(filter_string="status = 'ERROR'")
    states = frame["state"].value_counts().to_dict()
    print(f"{len(errors)} errors of {len(frame)}")
    return [
        list(frame.columns),
        states,
        [frame["request"].tolist(), frame["response"].tolist()],
        frame["client_request_id"].tolist(),
        [type(spans).__name__ for spans in frame["spans"]],
        [sorted(span) for span in frame["spans"].iloc[0]],
        frame["tags"].map(lambda tags: tags["environment"]).tolist(),
        bool((frame["execution_duration"] >= 0).all()),
    ]


@program
def fields_of_traces(mlflow):
    some_traces(mlflow)
    frame = mlflow.search_traces(
        extract_fields=["predict.inputs", "predict.inputs.text", "predict.outputs"],
        order_by=["timestamp_ms ASC"],
    )
    columns = [name for name in frame.columns if name.startswith("predict")]
    return [columns, frame[columns].iloc[0].tolist()]


@program
def pages_of_traces(mlflow):
    some_traces(mlflow)
    client = mlflow.MlflowClient()
    found, token, pages = [], None, 0
    while True:
        page = client.search_traces(
            locations=[own_experiment_id(mlflow)],
            filter_string="status = 'OK'",
            max_results=2,
            page_token=token,
            order_by=["timestamp_ms ASC"],
        )
        pages += 1
        found += [trace.info.tags["mlflow.traceName"] for trace in page]
        token = page.token
        if not token:
            return [pages, found]


@program
def traces_without_spans(mlflow):
    some_traces(mlflow)
    bare = mlflow.search_traces(include_spans=False, return_type="list")
    return [len(bare), sum(len(trace.data.spans) for trace in bare)]


@program
def how_a_user_fared(mlflow):
    some_traces(mlflow)
    frame = mlflow.search_traces(
        filter_string="metadata.user_id = 'user-0'", order_by=["timestamp_ms ASC"]
    )
    failed = len(frame[frame["state"] == "ERROR"])
    print(f"{len(frame)} requests, {failed} of them failed")
    return frame["response"].tolist()


@program
def a_search_that_may_fail(mlflow):
    import pandas as pd

    def safely(words):
        try:
            return mlflow.search_traces(filter_string=words)
        except Exception as error:
            print(f"not searched: {error}")
            return pd.DataFrame()

    some_traces(mlflow)
    return [len(safely("status = 'ERROR'")), safely("status ~ 'ERROR'").empty]


@program
def traces_are_deleted_by_id(mlflow):
    some_traces(mlflow)
    client = mlflow.MlflowClient()
    traces = mlflow.search_traces(order_by=["timestamp_ms ASC"], return_type="list")
    gone = [trace.info.trace_id for trace in traces[:2]]
    count = client.delete_traces(experiment_id=own_experiment_id(mlflow), trace_ids=gone)
    left = searcher(mlflow)(order_by=["timestamp_ms ASC"])
    return [count, left, mlflow.get_trace(gone[0], silent=True)]


@program
def traces_are_deleted_by_time(mlflow):
    some_traces(mlflow)
    client = mlflow.MlflowClient()
    here = own_experiment_id(mlflow)
    week = int((time.time() - 7 * 86400) * 1000)
    soon = int(time.time() * 1000) + 60_000
    print("old:", client.delete_traces(experiment_id=here, max_timestamp_millis=week))
    print("new:", client.delete_traces(experiment_id=here, max_timestamp_millis=soon, max_traces=2))
    return [
        len(searcher(mlflow)()),
        raised_by(lambda: client.delete_traces(experiment_id=here)),
        raised_by(
            lambda: client.delete_traces(
                experiment_id=here, max_timestamp_millis=1, trace_ids=["tr-1"]
            )
        ),
    ]


@program
def a_trace_is_read_in_several_ways(mlflow):
    with mlflow.start_span("root") as span, mlflow.start_span("child"):
        pass
    trace = read(mlflow, span.trace_id)
    client = mlflow.MlflowClient()
    return [
        client.get_trace(span.trace_id).info.trace_id == trace.info.trace_id,
        mlflow.get_trace(trace_id=span.trace_id, flush=True) is not None,
        len(mlflow.search_traces(return_type="list", flush=True)),
        len(client.get_trace(span.trace_id).data.spans),
    ]
