"""Feedback and expectations."""

from __future__ import annotations

import json

from programs import Programs
from programs.documentation import raised_by, read

PROGRAMS = Programs()
program = PROGRAMS.add


def traced(mlflow):
    """The id of a trace that has arrived."""
    with mlflow.start_span("answer") as span:
        span.set_inputs("how far?")
        with mlflow.start_span("find", span_type="RETRIEVER"):
            pass
        span.set_outputs("nine miles")
    mlflow.flush_trace_async_logging()
    return span.trace_id


def source(mlflow, kind, name):
    return mlflow.entities.AssessmentSource(
        source_type=getattr(mlflow.entities.AssessmentSourceType, kind), source_id=name
    )


def shown(one):
    return {
        "name": one.name,
        "value": one.value,
        "rationale": one.rationale,
        "source": [one.source.source_type, one.source.source_id],
        "metadata": one.metadata,
        "span": one.span_id,
        "valid": getattr(one, "valid", None),
        "overrides": getattr(one, "overrides", None),
        "error": one.error and [one.error.error_code, one.error.error_message]
        if hasattr(one, "error")
        else None,
        "type": type(one).__name__,
    }


def stored(mlflow, trace_id):
    found = read(mlflow, trace_id).info.assessments
    return sorted((shown(one) for one in found), key=lambda one: json.dumps(one, default=str))


@program
def feedback_of_a_user(mlflow):
    trace_id = traced(mlflow)
    made = mlflow.log_feedback(
        trace_id=trace_id,
        name="satisfied",
        value=True,
        rationale="The answer helped.",
        source=source(mlflow, "HUMAN", "user-12"),
    )
    return [shown(made), stored(mlflow, trace_id)]


@program
def feedback_of_every_value(mlflow):
    trace_id = traced(mlflow)
    for name, value in (
        ("thumb", False),
        ("stars", 4),
        ("score", 0.85),
        ("words", "Too short."),
        ("parts", {"clarity": 0.9, "depth": 0.5}),
        ("list", ["a", "b"]),
    ):
        mlflow.log_feedback(trace_id=trace_id, name=name, value=value)
    return stored(mlflow, trace_id)


@program
def feedback_of_every_source(mlflow):
    trace_id = traced(mlflow)
    for kind, name in (("HUMAN", "reader"), ("LLM_JUDGE", "tiny-judge"), ("CODE", "checks.py")):
        mlflow.log_feedback(
            trace_id=trace_id,
            name=f"seen by {kind}",
            value=1,
            source=source(mlflow, kind, name),
            metadata={"version": "v2", "criteria": ["a", "b"], "seconds": 120},
        )
    return [
        stored(mlflow, trace_id),
        raised_by(lambda: mlflow.entities.AssessmentSource(source_type="CAT", source_id="x")),
    ]


@program
def a_feedback_object(mlflow):
    trace_id = traced(mlflow)
    feedback = mlflow.entities.Feedback(
        name="coherent", value="somewhat", rationale="It wanders.", metadata={"judge": "j-1"}
    )
    mlflow.log_assessment(trace_id=trace_id, assessment=feedback)
    expectation = mlflow.entities.Expectation(name="wanted", value=["nine", "miles"])
    mlflow.log_assessment(trace_id, expectation)
    return stored(mlflow, trace_id)


@program
def a_judge_that_fails(mlflow):
    trace_id = traced(mlflow)

    def judge():
        raise ConnectionError("too many questions")

    try:
        judge()
    except ConnectionError as error:
        made = mlflow.log_feedback(
            trace_id=trace_id,
            name="quality",
            value=None,
            error=mlflow.entities.AssessmentError(
                error_code="JUDGE_FAILED", error_message=f"judge: {error}"
            ),
            source=source(mlflow, "LLM_JUDGE", "tiny-judge"),
        )
        mlflow.log_feedback(trace_id=trace_id, name="raw", error=error)
    return [shown(made), stored(mlflow, trace_id)]


@program
def expectations_of_every_kind(mlflow):
    trace_id = traced(mlflow)
    (retriever,) = read(mlflow, trace_id).search_spans(name="find")
    human = source(mlflow, "HUMAN", "surveyor")
    mlflow.log_expectation(
        trace_id=trace_id,
        name="answer",
        value="Nine miles.",
        source=human,
        metadata={"kind": "fact", "confidence": "high"},
    )
    mlflow.log_expectation(
        trace_id=trace_id, name="class", value={"topic": "roads", "follow_up": True}, source=human
    )
    mlflow.log_expectation(
        trace_id=trace_id,
        span_id=retriever.span_id,
        name="documents",
        value=["map 1", "map 4"],
        source=human,
        metadata={"threshold": 0.8, "count": 2},
    )
    return stored(mlflow, trace_id)


@program
def expectations_in_a_batch(mlflow):
    ids = [traced(mlflow) for _ in range(2)]
    lines = []
    for trace_id in [*ids, "tr-" + "0" * 32]:
        try:
            mlflow.log_expectation(
                trace_id=trace_id,
                name="answer",
                value="nine",
                source=source(mlflow, "HUMAN", "reader"),
                metadata={"batch": "b-1", "checked": True},
            )
            lines.append("done")
        except Exception as error:
            lines.append(f"{type(error).__name__}: {error}")
    return [lines, [stored(mlflow, trace_id) for trace_id in ids]]


@program
def an_assessment_is_read(mlflow):
    trace_id = traced(mlflow)
    made = mlflow.log_feedback(trace_id=trace_id, name="kind", value=2, rationale="Polite.")
    found = mlflow.get_assessment(trace_id=trace_id, assessment_id=made.assessment_id)
    return [
        shown(found),
        found.trace_id == trace_id,
        found.create_time_ms > 0,
        raised_by(lambda: mlflow.get_assessment(trace_id, "a-" + "0" * 32)),
    ]


@program
def an_assessment_is_changed(mlflow):
    trace_id = traced(mlflow)
    made = mlflow.log_expectation(trace_id=trace_id, name="answer", value="eight miles")
    changed = mlflow.update_assessment(
        trace_id=trace_id,
        assessment_id=made.assessment_id,
        assessment=mlflow.entities.Expectation(name="answer", value="nine miles"),
    )
    return [shown(changed), stored(mlflow, trace_id)]


@program
def an_assessment_is_deleted(mlflow):
    trace_id = traced(mlflow)
    made = mlflow.log_feedback(trace_id=trace_id, name="wrong", value=1)
    mlflow.log_feedback(trace_id=trace_id, name="right", value=2)
    mlflow.delete_assessment(trace_id=trace_id, assessment_id=made.assessment_id)
    return stored(mlflow, trace_id)


@program
def a_judge_is_overridden(mlflow):
    trace_id = traced(mlflow)
    first = mlflow.log_feedback(
        trace_id=trace_id,
        name="relevant",
        value=0.4,
        rationale="Not about roads.",
        source=source(mlflow, "LLM_JUDGE", "tiny-judge"),
    )
    second = mlflow.override_feedback(
        trace_id=trace_id,
        assessment_id=first.assessment_id,
        value=0.9,
        rationale="It is about roads.",
        source=source(mlflow, "HUMAN", "reader"),
        metadata={"why": "metaphor"},
    )
    overridden = second.overrides == first.assessment_id
    both = stored(mlflow, trace_id)
    mlflow.delete_assessment(trace_id=trace_id, assessment_id=second.assessment_id)
    return [overridden, both, stored(mlflow, trace_id)]


@program
def feedback_while_the_trace_runs(mlflow):
    def rules(text):
        found = []
        if "no advice" not in text:
            found.append("no disclaimer")
        if len(text) < 20:
            found.append(f"only {len(text)} letters")
        return found

    with mlflow.start_span(name="advise") as span:
        text = "Buy rope."
        problems = rules(text)
        mlflow.log_feedback(
            trace_id=span.trace_id,
            name="rules",
            value={"score": 1 - len(problems) / 3, "problems": len(problems)},
            rationale="; ".join(problems),
            source=source(mlflow, "CODE", "rules-2.1"),
        )
        span.set_outputs(text)
    return stored(mlflow, span.trace_id)


@program
def feedback_right_after_the_trace(mlflow):
    @mlflow.trace
    def answer(question):
        return "yes"

    answer("really?")
    trace_id = mlflow.get_last_active_trace_id()
    mlflow.flush_trace_async_logging()
    mlflow.log_feedback(trace_id=trace_id, name="liked", value=True)
    return stored(mlflow, trace_id)


@program
def feedback_without_a_value(mlflow):
    trace_id = traced(mlflow)
    return [
        raised_by(lambda: mlflow.log_feedback(trace_id=trace_id, name="empty")),
        raised_by(lambda: mlflow.log_expectation(trace_id=trace_id, name="empty", value=None)),
        raised_by(lambda: mlflow.log_feedback(trace_id="tr-" + "0" * 32, value=1)),
        raised_by(lambda: mlflow.log_assessment(trace_id, "no assessment")),
    ]


@program
def a_judge_that_is_a_model(mlflow):
    import openai

    trace_id = traced(mlflow)
    with openai.OpenAI() as client:
        answer = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": '{"helpful": 0.5, "why": "brief"}'}],
            temperature=0.0,
        )
    text = answer.choices[0].message.content
    verdict = json.loads(text[text.index("{") : text.rindex("}") + 1])
    mlflow.log_feedback(
        trace_id=trace_id,
        name="judged",
        value=verdict,
        rationale=verdict["why"],
        source=source(mlflow, "LLM_JUDGE", "gpt-4o-mini"),
    )
    return stored(mlflow, trace_id)
