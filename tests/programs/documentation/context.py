"""What is said of a trace as a whole: tags, metadata, users, sessions, requests' ids, previews, destinations."""

from __future__ import annotations

import os

from programs import Programs
from programs.documentation import (
    last,
    of,
    openai_traced,
    own_experiment,
    own_experiment_id,
    raised_by,
    read,
    tree,
)

PROGRAMS = Programs()
program = PROGRAMS.add


def own_tags(trace):
    return {key: value for key, value in sorted(trace.info.tags.items()) if "mlflow" not in key}


def own_metadata(trace):
    return {
        key: value
        for key, value in sorted(trace.info.trace_metadata.items())
        if not key.startswith("mlflow.") or key in ("mlflow.trace.user", "mlflow.trace.session")
    }


@program
def tags_of_a_trace_in_flight(mlflow):
    @mlflow.trace
    def add_one(x):
        mlflow.update_current_trace(tags={"fruit": "apple", "colour": "red"})
        mlflow.update_current_trace(tags={"fruit": "pear"})
        return x + 1

    add_one(5)
    return own_tags(last(mlflow))


@program
def tags_of_a_trace_that_has_ended(mlflow):
    with mlflow.start_span("span") as span:
        pass
    mlflow.flush_trace_async_logging()
    mlflow.set_trace_tag(trace_id=span.trace_id, key="reviewed", value="no")
    mlflow.set_trace_tag(trace_id=span.trace_id, key="reviewed", value="yes")
    mlflow.set_trace_tag(trace_id=span.trace_id, key="wrong", value="x")
    mlflow.delete_trace_tag(trace_id=span.trace_id, key="wrong")
    client = mlflow.MlflowClient()
    client.set_trace_tag(span.trace_id, "by", "client")
    print(own_tags(mlflow.get_trace(trace_id=span.trace_id)))
    return raised_by(lambda: mlflow.delete_trace_tag(trace_id=span.trace_id, key="never there"))


@program
def tags_of_other_types(mlflow):
    with mlflow.start_span("span"):
        mlflow.update_current_trace(tags={"n": 3, "b": True, "f": 1.5, "none": None, "l": [1]})
    return own_tags(last(mlflow))


@program
def tags_by_topic(mlflow):
    @mlflow.trace
    def handle():
        mlflow.update_current_trace(
            tags={"business.tenant_id": "t-4", "business.department": "paper"}
        )
        mlflow.update_current_trace(
            tags={"deployment.region": "north-1", "deployment.version": "v2.3.1"}
        )
        with mlflow.start_span("inner"):
            mlflow.update_current_trace(tags={"feature.experimental": "true"})

    handle()
    return own_tags(last(mlflow))


@program
def searching_by_tags(mlflow):
    for environment, topic in (
        ("production", "mlflow tracing"),
        ("test", "tea"),
        ("production", "tea"),
    ):
        with mlflow.start_span(topic):
            mlflow.update_current_trace(tags={"environment": environment, "topic": topic})
    mlflow.flush_trace_async_logging()

    def found(words):
        traces = mlflow.search_traces(filter_string=words, return_type="list")
        return sorted(trace.info.tags["mlflow.traceName"] for trace in traces)

    return [found("tags.environment = 'production'"), found("tags.topic LIKE '%mlflow%'")]


@program
def users_and_sessions_in_metadata(mlflow):
    @mlflow.trace
    def chat(messages: list[dict], user_id: str, session_id: str):
        mlflow.update_current_trace(
            metadata={"mlflow.trace.user": user_id, "mlflow.trace.session": session_id}
        )
        return f"heard {len(messages)}"

    chat([{"role": "user", "content": "hello"}], "u-1", "s-1")
    return own_metadata(last(mlflow))


@program
def users_and_sessions_by_name(mlflow):
    @mlflow.trace
    def chat(words):
        mlflow.update_current_trace(user="u-2", session_id="s-2")
        return words

    chat("hello")
    return own_metadata(last(mlflow))


@program
def what_users_did(mlflow):
    @mlflow.trace
    def chat(user, session):
        mlflow.update_current_trace(user=user, session_id=session)
        return "yes"

    for user, session in (("u-1", "s-1"), ("u-1", "s-1"), ("u-1", "s-2"), ("u-2", "s-3")):
        chat(user, session)
    mlflow.flush_trace_async_logging()
    frame = mlflow.search_traces(filter_string="metadata.`mlflow.trace.user` = 'u-1'")
    sessions = frame["trace_metadata"].map(lambda data: data["mlflow.trace.session"])
    both = mlflow.search_traces(
        filter_string="metadata.`mlflow.trace.user` = 'u-1' AND metadata.`mlflow.trace.session` = 's-2'",
        return_type="list",
    )
    print(f"{len(frame)} interactions in {sessions.nunique()} sessions")
    return [frame["state"].value_counts().to_dict(), len(both), sorted(frame.columns)]


@program
def sessions_are_found(mlflow):
    @mlflow.trace
    def turn(n, session):
        mlflow.update_current_trace(session_id=session)
        return n

    for n, session in enumerate(("s-1", "s-2", "s-1")):
        turn(n, session)
    mlflow.flush_trace_async_logging()
    found = mlflow.search_sessions()
    return sorted([session.id, len(session)] for session in found)


@program
def metadata_of_an_application(mlflow):
    @mlflow.trace
    def handle(message):
        mlflow.update_current_trace(
            client_request_id="req-7",
            metadata={
                "mlflow.source.type": "staging",
                "environment": "production",
                "app_version": os.getenv("APP_VERSION_THAT_IS_NOT_SET", "1.0.0"),
                "region": "north-1",
            },
        )
        return message

    handle("hello")
    trace = last(mlflow)
    print(own_metadata(trace))
    return [trace.info.client_request_id, trace.info.trace_metadata["mlflow.source.type"]]


@program
def metadata_that_is_set_by_itself(mlflow):
    with mlflow.start_span("span"):
        pass
    data = last(mlflow).info.trace_metadata
    wanted = ("mlflow.source.name", "mlflow.source.type", "mlflow.user")
    return [sorted(data), [bool(data.get(key)) for key in wanted]]


@program
def metadata_of_other_types(mlflow):
    with mlflow.start_span("span"):
        mlflow.update_current_trace(metadata={"n": 3, "b": False, "none": None, "d": {"a": 1}})
    return own_metadata(last(mlflow))


@program
def searching_by_metadata(mlflow):
    for environment in ("production", "test"):
        with mlflow.start_span(environment):
            mlflow.update_current_trace(metadata={"environment": environment, "app": "1.0.0"})
    mlflow.flush_trace_async_logging()

    def found(words):
        traces = mlflow.search_traces(filter_string=words, return_type="list")
        return sorted(trace.info.tags["mlflow.traceName"] for trace in traces)

    return [found("metadata.environment = 'production'"), found("metadata.app = '1.0.0'")]


@program
def previews_of_ones_own(mlflow):
    @mlflow.trace(name="Summarise")
    def summarise(document: str, wish: str):
        mlflow.update_current_trace(request_preview=f"{document[:12]}... ({wish})")
        summary = f"{len(document)} letters"
        mlflow.update_current_trace(response_preview=f"Summary: {summary}")
        return summary

    summarise("A very long document about lichen. " * 20, "briefly")
    info = last(mlflow).info
    return [info.request_preview, info.response_preview]


@program
def a_preview_of_messages(mlflow):
    @mlflow.trace
    def predict(messages):
        mlflow.update_current_trace(
            request_preview=f"{messages[0]['content'][:6]} ... {messages[-1]['content'][:6]}"
        )
        result = "ninety-nine"
        mlflow.update_current_trace(response_preview=f"Result: {result[:6]}...")
        return result

    predict([{"role": "user", "content": f"message {n}"} for n in range(4)])
    info = last(mlflow).info
    return [info.request_preview, info.response_preview]


@program
def an_update_of_what_is_no_text(mlflow):
    with mlflow.start_span("span"):
        found = [
            raised_by(lambda: mlflow.update_current_trace(request_preview={"a": 1})),
            raised_by(lambda: mlflow.update_current_trace(response_preview=3)),
            raised_by(lambda: mlflow.update_current_trace(client_request_id=7)),
            raised_by(lambda: mlflow.update_current_trace(state="IN_PROGRESS")),
            raised_by(lambda: mlflow.update_current_trace(state="DONE")),
            # The page about the small SDK passes it.
            raised_by(lambda: mlflow.update_current_trace(attributes={"length": 3})),
        ]
    info = last(mlflow).info
    return [found, info.request_preview, info.client_request_id]


@program
def an_update_without_a_trace(mlflow):
    return raised_by(lambda: mlflow.update_current_trace(tags={"a": "b"}))


@program
def a_state_of_ones_own(mlflow):
    @mlflow.trace
    def half():
        mlflow.update_current_trace(state="ERROR")
        return "half"

    half()
    trace = last(mlflow)
    return [str(trace.info.state), tree(trace)]


@program
def a_context_around_traces(mlflow):
    context = of(mlflow, "tracing").context

    @mlflow.trace
    def answer(question):
        return question

    with context(metadata={"release": "r-3"}, tags={"team": "blue"}):
        answer("a")
        inside = last(mlflow)
    with context(session_id="s-5", user="u-5"):
        answer("b")
        session = last(mlflow)
    answer("c")
    outside = last(mlflow)
    return [[own_tags(one), own_metadata(one)] for one in (inside, session, outside)]


@program
def contexts_in_contexts(mlflow):
    context = of(mlflow, "tracing").context
    with context(tags={"a": "1", "b": "1"}, metadata={"m": "1"}):
        with context(tags={"b": "2"}, metadata={"n": "2"}), mlflow.start_span("span"):
            mlflow.update_current_trace(tags={"a": "3"})
    trace = last(mlflow)
    return [own_tags(trace), own_metadata(trace)]


@program
def a_context_around_a_client(mlflow):
    context = of(mlflow, "tracing").context
    with openai_traced(mlflow) as client, context(session_id="s-6", tags={"turn": "1"}):
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Good night"}]
        )
    trace = last(mlflow)
    return [own_tags(trace), own_metadata(trace), tree(trace)]


@program
def a_context_without_tracing(mlflow):
    context = of(mlflow, "tracing").context

    @mlflow.trace
    def quiet(n):
        return n

    before = mlflow.get_last_active_trace_id()
    with context(enabled=False):
        result = quiet(3)
    return [result, mlflow.get_last_active_trace_id() == before]


@program
def destinations_of_functions(mlflow):
    Location = of(mlflow, "entities.trace_location").MlflowExperimentLocation
    math_id = own_experiment_id(mlflow, "-math")

    @mlflow.trace(trace_destination=Location(experiment_id=math_id))
    def math_agent(x):
        with mlflow.start_span("inner"):
            return x + 1

    math_agent(1)
    with mlflow.start_span("there", trace_destination=Location(experiment_id=math_id)):
        pass
    return [tree(last(mlflow)), last(mlflow).info.experiment_id == math_id]


@program
def the_former_name_of_a_destination(mlflow):
    destination = of(mlflow, "tracing.destination")
    target = destination.MlflowExperiment(experiment_id=own_experiment_id(mlflow, "-former"))

    @mlflow.trace(trace_destination=target)
    def agent():
        return 1

    agent()
    return [last(mlflow).info.experiment_id == target.experiment_id, target.type]


@program
def destinations_of_requests(mlflow):
    import contextvars

    tracing = of(mlflow, "tracing")
    Location = of(mlflow, "entities.trace_location").MlflowExperimentLocation
    ids = {name: own_experiment_id(mlflow, f"-{name}") for name in ("one", "two")}

    def handle(name):
        tracing.set_destination(Location(experiment_id=ids[name]), context_local=True)
        with mlflow.start_span(name=name):
            pass
        return last(mlflow).info.experiment_id == ids[name]

    found = [contextvars.copy_context().run(handle, name) for name in ids]
    with mlflow.start_span("own"):
        pass
    return [found, last(mlflow).info.experiment_id == own_experiment_id(mlflow)]


@program
def experiments_one_after_another(mlflow):
    results = []
    for suffix in ("-first", "-second", ""):
        name = own_experiment(suffix)
        mlflow.set_experiment(name)
        with mlflow.start_span("span"):
            pass
        found = mlflow.MlflowClient().get_experiment(last(mlflow).info.experiment_id)
        results.append(found.name == name)
    return results


@program
def traces_of_a_run(mlflow):
    with mlflow.start_run() as run:
        with mlflow.start_span(name="in a run") as span:
            span.set_inputs({"input": "a"})
            span.set_outputs({"response": "b"})
    with mlflow.start_span(name="after it"):
        pass
    mlflow.flush_trace_async_logging()
    frame = mlflow.search_traces(run_id=run.info.run_id)
    trace = read(mlflow, span.trace_id)
    return [
        len(frame),
        trace.info.trace_metadata["mlflow.sourceRun"] == run.info.run_id,
        frame["request"].tolist() if "request" in frame else None,
    ]


@program
def an_active_model(mlflow):
    model = mlflow.set_active_model(name="agent-v1")

    @mlflow.trace
    def predict(x):
        return x

    predict(1)
    mlflow.flush_trace_async_logging()
    traces = mlflow.search_traces(model_id=model.model_id, return_type="list")
    mlflow.clear_active_model()
    same = [trace.info.trace_metadata["mlflow.modelId"] == model.model_id for trace in traces]
    return [same, mlflow.get_active_model_id()]
