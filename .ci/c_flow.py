"""Follows the statements of a C function in their order, branches apart and loops twice."""

from __future__ import annotations

from functools import reduce

from c_code import Node
from c_values import NULL, State, Value, join


class Flow:
    """What holds at a point of a function is its state: None where no way leads to."""

    def __init__(self) -> None:
        self.state: State | None = State()
        self._labels: dict[str, State | None] = {}
        self._breaks: list[list[State | None]] = []
        self._continues: list[list[State | None]] = []

    def evaluate(self, node: Node) -> Value:
        """Follows an expression."""
        raise NotImplementedError

    def set(self, name: str, value: Value) -> None:
        """Gives a variable a value."""
        raise NotImplementedError

    def returns(self, node: Node) -> None:
        """Follows a return, after which there is no state."""
        raise NotImplementedError

    def execute(self, node: Node) -> None:
        children = node.children
        if node.kind == "block":
            for child in children:
                self.execute(child)
        elif node.kind == "label":
            self.state = join(self.state, self._labels.pop(node.name, None))
            self.execute(children[0])
        elif node.kind == "case":
            (entry, *_) = self._breaks[-1]
            self.state = join(self.state, entry.copy() if entry is not None else None)
            self.execute(children[-1])
        elif node.kind == "switch":
            self.branch(children[0])
            self._breaks.append([self.copy()])
            self.state = None
            self.execute(children[-1])
            self.state = reduce(join, self._breaks.pop(), self.state)
        elif node.kind == "if":
            self.state, no = self.branch(children[0])
            self.execute(children[1])
            after, self.state = self.state, no
            for otherwise in children[2:]:
                self.execute(otherwise)
            self.state = join(after, self.state)
        elif node.kind in ("while", "do", "for"):
            self.loop(node)
        elif self.state is None:
            return
        elif node.kind == "declare":
            self.set(node.name, self.evaluate(children[0]) if children else NULL)
        elif node.kind == "return":
            self.returns(node)
        elif node.kind == "goto":
            self._labels[node.name] = join(self._labels.get(node.name), self.state)
            self.state = None
        elif node.kind in ("break", "continue"):
            (self._breaks if node.kind == "break" else self._continues)[-1].append(self.state)
            self.state = None
        else:
            self.evaluate(node)

    def loop(self, node: Node) -> None:
        *parts, body = node.children if node.kind != "do" else node.children[::-1]
        if node.kind == "for" and parts and parts[0].kind in ("block", "assign"):
            self.execute(parts.pop(0))
        is_step = len(parts) == 2 or (parts and parts[-1].kind in ("update", "assign"))
        steps = [parts.pop()] if node.kind == "for" and is_step else []
        once = node.kind == "do" and parts[0].kind == "number"  # a macro's
        self._breaks.append([])
        for _ in range(1 if once else 2):
            if node.kind != "do":
                self.test(parts)
            self._continues.append([])
            self.execute(body)
            self.state = reduce(join, self._continues.pop(), self.state)
            for step in steps if self.state is not None else []:
                self.evaluate(step)
            if node.kind == "do":
                self.test(parts)
        if node.kind != "do":
            self.test(parts)
        self.state = reduce(join, self._breaks.pop(), None)

    def test(self, conditions: list[Node]) -> None:
        """A loop's condition; where it fails, the loop ends as by a break."""
        for node in conditions:
            self.state, no = self.branch(node)
            self._breaks[-1].append(no)

    def branch(self, node: Node) -> tuple[State | None, State | None]:
        """Evaluates a condition: the states where it holds, and where not. A pointer that is only compared is
        not used, and NULL where it is compared with that."""
        if self.state is None:
            return None, None
        if node.kind == "call" and node.name == "__builtin_expect":
            return self.branch(node.children[0])
        if node.kind == "not":
            yes, no = self.branch(node.children[0])
            return no, yes
        if node.kind in ("and", "or"):
            yes, no = self.branch(node.children[0])
            self.state = yes if node.kind == "and" else no
            yes_too, no_too = self.branch(node.children[1])
            if node.kind == "and":
                return yes_too, join(no, no_too)
            return join(yes, yes_too), no_too
        operands = node.children if node.kind in ("equal", "unequal") else [node]
        for operand in operands:
            if operand.kind != "ref":
                self.evaluate(operand)
        yes, no = self.state.copy(), self.state.copy()
        if operands[0].kind == "ref" and all(operand.kind == "number" for operand in operands[1:]):
            (yes if node.kind == "equal" else no).values[operands[0].name] = NULL
        return yes, no

    def copy(self) -> State | None:
        return None if self.state is None else self.state.copy()
