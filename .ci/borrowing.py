"""Follows a function of C and finds what is borrowed for too long: see check_python_calls.py."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import cpython
from c_code import Function, Node
from c_flow import Flow
from c_values import HELD, NULL, RELEASED, Names, Summary, Value, join

if TYPE_CHECKING:
    from check_python_calls import Check


#: Names of functions whose first parameter nobody else reaches any more.
ENDS = re.compile(r"(^|_)(dealloc|free|release)(_|$)")


class Walk(Flow):
    """Follows one function, and reports what is borrowed for too long."""

    def __init__(self, check: Check, function: Function):
        super().__init__()
        self.check = check
        self.function = function
        self.parameters = frozenset(function.parameters)
        self.summary = Summary()
        for name in function.parameters:
            self.values[name] = Value(same=frozenset({name}))
            self.values["*" + name] = Value(target=frozenset({name}))

    @property
    def values(self) -> dict[str, Value]:
        assert self.state is not None
        return self.state.values

    def run(self) -> Summary:
        self.execute(self.function.body)
        self.leave(NULL, self.function.body.line)
        return self.summary

    def leave(self, result: Value, line: int, is_failure: bool = False) -> None:
        """A return, or the end of the body. A function that fails has no outputs."""
        if self.state is None:
            return
        local = frozenset(self.values) - self.kept_by_caller()
        self.summary.result |= result.without(local)
        for i, name in enumerate(self.function.parameters if not is_failure else []):
            pointed = self.values["*" + name].without(local)
            if pointed.stale:
                self.report_stale(line, f"*{name.split('@')[0]}, an output,", pointed)
                pointed = replace(pointed, source="", stale="")
            if pointed != Value(target=frozenset({name})):
                self.summary.outputs[i] = self.summary.outputs.get(i, pointed) | pointed
        self.state = None

    def report_stale(self, line: int, text: str, value: Value) -> None:
        reason = f"{value.stale}, which can run Python code, and {value.source} may have let it go"
        released = f"{value.stale} released it"
        self.report(
            line, f"{text} is used after {released if value.source == RELEASED else reason}"
        )

    def report(self, line: int, text: str) -> None:
        self.check.report(self.function.path, line, text)

    def returns(self, node: Node) -> None:
        children = node.children
        is_failure = self.function.returns_bool and children[0].name == "0"
        value = self.evaluate(children[0]) if children else NULL
        if any(self.state.taken.get(name) for name in value.same):
            value = HELD  # by a reference of its own
        self.leave(value, node.line, is_failure)

    # -- expressions --

    def evaluate(self, node: Node) -> Value:
        children = node.children
        if node.kind == "ref":
            return HELD if node.scalar else self.use(node.name, node)
        if node.kind == "member":
            return self.member(node)
        if node.kind == "call":
            return self.call(node)
        if node.kind == "assign":
            value = self.evaluate(children[1])
            self.assign(children[0], value, children[1])
            return value
        if node.kind == "address":
            return self.address(children[0])
        if node.kind in ("deref", "index"):
            value = self.evaluate(children[0]).part()
            for child in children[1:]:
                self.evaluate(child)
            cell = self.cell(node)
            if cell in self.values:
                value = self.use(cell, node).without(frozenset({cell}))
            return HELD if node.scalar else value
        if node.kind in ("equal", "unequal", "not", "and", "or"):
            self.state = join(*self.branch(node))
            return NULL
        if node.kind == "choose":
            self.state, no = self.branch(children[0])
            first = self.evaluate(children[1])
            after, self.state = self.state, no
            second = self.evaluate(children[2])
            self.state = join(after, self.state)
            return first | second
        values = [self.evaluate(child) for child in children]
        return reduce(Value.__or__, values) if values and not node.scalar else NULL

    def use(self, name: str, node: Node) -> Value:
        """The value of a variable, or (*name) of what it points to."""
        value = self.values.get(name, NULL)
        if value.stale:
            self.report_stale(node.line, node.text(), value)
            self.values[name] = value = replace(value, source="", stale="")
        self.summary.needs |= (value.held_by() | {name}) & self.state.exposed
        return replace(value, same=value.same | {name})

    def owner(self, node: Node) -> tuple[Node, bool]:
        """What a member is in, when embedded structures are left out, and whether others reach that."""
        records = {node.record}
        while not node.pointer and node.children[0].kind == "member":
            node = node.children[0]
            records.add(node.record)
        base = root = node.children[0]
        while root.kind == "index":
            root = root.children[0]
        if root.kind == "ref":
            by_value = not node.pointer if base is root else not root.pointer
            if by_value or (self.values.get(root.name, NULL).private and root.pointer):
                return base, False
        return base, bool(records & self.check.shared)

    def cell(self, node: Node) -> str:
        """The variable that a place is in, or (*name) the place that it points to; "" for none."""
        if node.kind == "ref":
            return node.name
        inner = node.children[0] if node.children else node
        if node.kind == "member" and node.pointer and self.owner(node)[1]:
            return ""
        if node.kind in ("member", "deref", "index"):
            through = node.pointer if node.kind == "member" else inner.pointer
            return "*" + inner.name if through and inner.kind == "ref" else self.cell(inner)
        return ""

    def member(self, node: Node) -> Value:
        base, is_shared = self.owner(node)
        if node.scalar and base.kind == "ref" and not base.pointer:
            return HELD  # a number in a local
        holder = self.evaluate(base)
        if node.scalar:
            return HELD
        if not is_shared:
            cell = self.cell(node)
            return self.use(cell, node).part() if cell in self.values else holder.part()
        target = (
            self.check.code.fields[node.usr].target if node.usr in self.check.code.fields else ""
        )
        if target.endswith(cpython.LASTING):
            return HELD
        if ENDS.search(self.function.name) and base.name == self.function.parameters[0]:
            return holder.part() if node.record.endswith(cpython.LASTING) else HELD
        if node.usr in self.check.unsettled:
            if self.check.is_exempt_field(node.usr) or node.text() in self.state.held:
                return HELD
            return Value(source=node.text())
        return holder.part()

    def address(self, place: Node) -> Value:
        if place.kind == "member":
            base, is_shared = self.owner(place)
            return replace(self.evaluate(base).part(), private=not is_shared)
        if place.kind == "index":
            self.evaluate(place.children[1])
            return self.evaluate(place.children[0]).part()
        if place.kind == "ref":
            return replace(self.evaluate(place).part(), private=True)
        return self.evaluate(place.children[0] if place.children else place)

    # -- assignments and references --

    def set(self, name: str, value: Value) -> None:
        gone = frozenset({name, "*" + name})
        for other in list(self.values):
            self.values[other] = self.values[other].without(gone)
        self.state.taken.pop(name, None)
        if name in self.parameters:
            self.state.exposed.discard(name)
            self.state.changed.add(name)
        if name not in self.parameters:
            self.values.pop("*" + name, None)
        self.values[name] = value.without(gone)

    def assign(self, place: Node, value: Value, source: Node) -> None:
        if place.kind == "ref":
            self.set(place.name, value)
        elif place.kind == "member" and self.owner(place)[1]:
            self.evaluate(self.owner(place)[0])
            if place.usr in self.check.unsettled and self.check.owns(place.usr):
                self.state.held.discard(place.text())
                self.move_out(place.text())
                self.give_away(source, place.text())
        elif cell := self.cell(place):
            if place.children[0].kind != "ref":
                self.evaluate(place.children[0])
            is_whole = place.kind == "deref"
            self.move_out(f"{place.children[0].text()}->", is_prefix=is_whole)
            self.values[cell] = value if is_whole else self.values.get(cell, NULL) | value

    def move_out(self, place: str, is_prefix: bool = False) -> None:
        """A place is written: what was read from it is the reader's own from here on."""
        for name, value in self.values.items():
            is_from = value.source.startswith(place) if is_prefix else value.source == place
            if is_from and not value.stale:
                self.values[name] = replace(value, source="", inside=NULL.inside)

    def group(self, name: str) -> Names:
        """The variables that are the same object."""
        same = {n for n, value in self.values.items() if name in value.same}
        return frozenset({name}) | self.values.get(name, NULL).same | same

    def give_away(self, node: Node, place: str) -> None:
        """The reference of a variable is another place's from here on."""
        if node.kind != "ref" or self.group(node.name) & self.kept_by_caller():
            return
        if self.values.get(node.name, NULL).source or self.state.taken.get(node.name):
            self.state.taken[node.name] = max(0, self.state.taken.get(node.name, 0) - 1)
            return
        for name in self.group(node.name) & self.values.keys():
            self.values[name] = replace(self.values[name], source=place)

    def take_reference(self, node: Node) -> Value:
        value = self.evaluate(node)
        self.state.held.add(node.text())
        self.move_out(node.text())
        cell = self.cell(node) if node.kind in ("ref", "deref") else ""
        old = self.values.get(cell, NULL)
        if old.source:
            for name in self.group(cell) & self.values.keys():
                self.values[name] = replace(
                    self.values[name], source="", stale="", inside=NULL.inside
                )
        elif cell:
            self.state.taken[cell] = self.state.taken.get(cell, 0) + 1
        return replace(value, source="")

    def release(self, node: Node, function: str) -> None:
        value = self.evaluate(node)
        if not value.plain:
            self.run_python(function)
        if node.kind != "ref":
            return
        if self.state.taken.get(node.name):
            self.state.taken[node.name] -= 1
            return
        for name, other in self.values.items():
            is_inside = node.name in other.inside and not self.state.taken.get(name)
            if is_inside or name in self.group(node.name):
                self.values[name] = replace(other, source=RELEASED, stale=f"{function}()")

    def run_python(self, function: str) -> None:
        self.summary.runs = True
        self.state.held.clear()
        self.state.exposed |= {n for n in self.kept_by_caller() if not self.is_taken(n)}
        for name, value in self.values.items():
            if value.source and not value.stale:
                self.values[name] = replace(value, stale=f"{function}()")

    def kept_by_caller(self) -> Names:
        return self.parameters - self.state.changed

    def is_taken(self, name: str) -> bool:
        return any(self.state.taken.get(other) for other in self.group(name))

    # -- calls --

    def call(self, node: Node) -> Value:
        name, arguments = node.name, node.children
        if name == "__builtin_expect":
            self.state = join(*self.branch(arguments[0]))
            return NULL
        if name in cpython.TAKES_REFERENCE:
            return self.take_reference(arguments[0])
        if name in ("Py_DECREF", "Py_XDECREF"):
            self.release(arguments[0], name)
            return HELD
        summary = self.check.summaries.get(node.usr)
        values = [self.argument(node, i, summary) for i in range(len(arguments))]
        for i in cpython.TAKES_OVER.get(name, ()):
            self.give_away(arguments[i], "the new owner")
        if self.can_run(node, summary):
            called = name or "a pointer's function"
            for i, (argument, value) in enumerate(zip(arguments, values, strict=True)):
                if not self.must_hold(node, i, summary):
                    continue
                of_caller = value.held_by() & self.kept_by_caller()
                self.summary.needs |= {held for held in of_caller if not self.is_taken(held)}
                if value.source and not value.stale:
                    self.report(
                        argument.line,
                        f"{argument.text()} is an argument of {called}(), which can run Python "
                        f"code, and only {value.source} holds it",
                    )
            self.run_python(called)
        result = HELD
        if name in cpython.FROM_CONSTANT:
            result = values[0].part()
        elif name in cpython.FROM_CONTAINER:
            own = values[0].private
            result = values[0].part() if own else Value(source=arguments[0].text())
        if node.api:
            for argument in arguments[1:]:
                self.output(
                    argument,
                    result if name in cpython.FROM_CONSTANT | cpython.FROM_CONTAINER else HELD,
                )
        elif summary is not None:
            for i, value in summary.outputs.items():
                output = self.mapped(value, node, values)
                self.output(arguments[i], output, self.parameter_name(node, i) in value.target)
            result = self.mapped(summary.result, node, values)
        plain = result.plain or bool(cpython.PLAIN_RESULT.match(name))
        return replace(
            result, plain=plain, private=result.private or name in cpython.PRIVATE_RESULT
        )

    def can_run(self, node: Node, summary: Summary | None) -> bool:
        if node.api:
            if node.name == "PyArg_ParseTuple" and cpython.PLAIN_FORMAT.fullmatch(
                node.text_argument
            ):
                return False
            return node.name not in cpython.NEVER_RUNS
        if not node.usr:
            return node.record not in cpython.PLAIN_POINTERS
        return summary is not None and summary.runs

    def must_hold(self, node: Node, i: int, summary: Summary | None) -> bool:
        """Whether a call uses an argument after it has run Python code, and takes no reference before."""
        if summary is None:
            return node.name not in cpython.HOLDS_FIRST
        return self.parameter_name(node, i) in summary.needs

    def parameter_name(self, node: Node, i: int) -> str:
        """The name of a called function's parameter."""
        parameters = self.check.code.functions[node.usr].parameters
        return parameters[i] if i < len(parameters) else ""

    def is_output(self, node: Node, i: int, summary: Summary | None) -> bool:
        """Whether a call only writes where an argument points to."""
        if summary is None:
            return node.api
        output = summary.outputs.get(i)
        return output is not None and self.parameter_name(node, i) not in output.target

    def argument(self, node: Node, i: int, summary: Summary | None) -> Value:
        argument = node.children[i]
        place = argument.children[0] if argument.kind == "address" else argument
        if argument.kind == "address" and place.kind == "ref":
            return NULL if self.is_output(node, i, summary) else self.evaluate(argument)
        value = self.evaluate(argument)
        cell = "*" + place.name
        if argument.kind == "ref" and cell in self.values and not self.is_output(node, i, summary):
            if node.api or summary is not None:
                value = value | self.use(cell, argument)
        return value

    def output(self, argument: Node, value: Value, is_part: bool = False) -> None:
        """A call writes where an argument points to: all of it, or a part."""
        if argument.kind == "address" and argument.children[0].kind == "ref":
            name = argument.children[0].name
            if is_part:
                self.values[name] = self.values.get(name, NULL) | value
            elif not argument.children[0].scalar:
                self.set(name, value)
        elif argument.kind == "ref" and argument.pointer and value is not HELD:
            cell = "*" + argument.name
            self.values[cell] = self.values.get(cell, NULL) | value if is_part else value

    def mapped(self, value: Value, node: Node, values: list[Value]) -> Value:
        """A value of a called function, by the arguments of the call."""
        result = Value(self.source_of(value, node.name), plain=value.plain, private=value.private)
        for i, argument in enumerate(node.children):
            name = self.parameter_name(node, i)
            if name in value.same:
                result |= values[i]
            if name in value.inside:
                result |= values[i].part()
            if name in value.target:
                result |= self.pointed(argument, values[i])
        return result

    def source_of(self, value: Value, function: str) -> str:
        is_plain = value.source and " of " not in value.source
        return f"{value.source} of {function}()" if is_plain else value.source

    def pointed(self, argument: Node, value: Value) -> Value:
        if argument.kind == "address":
            place = argument.children[0]
            return (
                self.values.get(place.name, NULL) if place.kind == "ref" else self.evaluate(place)
            )
        return self.values.get("*" + argument.name, value.part())
