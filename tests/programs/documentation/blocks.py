"""Manual tracing of a block of code: ``start_span`` as a context manager."""

from __future__ import annotations

from programs import Programs
from programs.documentation import last, openai_traced, read, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def a_block_with_inputs_and_outputs(mlflow):
    x, y = 3, 4
    with mlflow.start_span(name="hypotenuse") as span:
        span.set_inputs({"x": x, "y": y})
        z = (x * x + y * y) ** 0.5
        span.set_outputs(z)
    found = last(mlflow).data.spans[0]
    return [found.inputs, found.outputs, found.name]


@program
def a_block_without_a_name(mlflow):
    with mlflow.start_span():
        pass
    return [last(mlflow).data.spans[0].name, last(mlflow).info.tags["mlflow.traceName"]]


@program
def a_chat_at_a_prompt(mlflow):
    said = iter(["Which bird sings at night?", "And at noon?", "BYE"])

    @mlflow.trace(span_type=mlflow.entities.SpanType.CHAIN)
    def session(client):
        messages = [{"role": "system", "content": "You know birds."}]
        while True:
            with mlflow.start_span(name="User") as span:
                span.set_inputs(messages)
                words = next(said)
                span.set_outputs(words)
            if words == "BYE":
                return
            messages.append({"role": "user", "content": words})
            answer = client.chat.completions.create(
                model="gpt-4o-mini", max_tokens=100, messages=messages
            )
            text = answer.choices[0].message.content
            print(text)
            messages.append({"role": "assistant", "content": text})

    with openai_traced(mlflow) as client:
        session(client)
    return tree(last(mlflow))


@program
def blocks_in_blocks(mlflow):
    with mlflow.start_span("bake", span_type="CHAIN") as bake:
        with mlflow.start_span("mix") as mix:
            mix.set_outputs("dough")
        with mlflow.start_span("heat", attributes={"degrees": 210}) as heat:
            with mlflow.start_span("wait"):
                pass
        parents = [bake.parent_id, mix.parent_id == bake.span_id, heat.parent_id == bake.span_id]
    return [parents, tree(last(mlflow))]


@program
def an_exception_in_a_block(mlflow):
    try:
        with mlflow.start_span("carry") as span:
            span.set_inputs("a crate")
            raise MemoryError("too heavy")
    except MemoryError as error:
        caught = str(error)
    found = last(mlflow).data.spans[0]
    names = sorted(found.events[0].attributes)
    return [caught, found.status.status_code, found.status.description, names, found.outputs]


@program
def a_block_inside_of_a_function(mlflow):
    @mlflow.trace
    def sort_and_pick(names):
        with mlflow.start_span(name="sort", span_type="TASK") as span:
            span.set_inputs(names)
            names = sorted(names)
            span.set_outputs(names)
        with mlflow.start_span(name="pick") as span:
            span.set_inputs({"names": names, "position": 1})
            span.set_outputs(names[1])
        return names[1]

    return [sort_and_pick(["c", "a", "b"]), tree(last(mlflow))]


@program
def ids_that_can_be_kept(mlflow):
    with mlflow.start_span("root") as span:
        trace_id = span.trace_id
        same = [mlflow.get_active_trace_id() == trace_id, span.request_id == trace_id]
        with mlflow.start_span("child") as child:
            same.append(child.trace_id == trace_id)
    same.append(mlflow.get_last_active_trace_id() == trace_id)
    same.append(mlflow.get_active_trace_id())
    return [same, tree(read(mlflow, trace_id))]


@program
def outputs_that_are_set_twice(mlflow):
    with mlflow.start_span("twice") as span:
        span.set_inputs({"a": 1})
        span.set_inputs({"b": 2})
        span.set_outputs([1])
        span.set_outputs({"c": 3})
    found = last(mlflow).data.spans[0]
    return [found.inputs, found.outputs]


@program
def attributes_in_a_block(mlflow):
    with mlflow.start_span("room", span_type="CHAIN", attributes={"floor": 2}) as span:
        span.set_attribute("window", True)
        span.set_attributes({"chairs": ["oak", "ash"], "floor": 3})
    found = last(mlflow).data.spans[0]
    mine = {k: v for k, v in found.attributes.items() if not k.startswith("mlflow.")}
    return mine
