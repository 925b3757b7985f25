"""What is known of the values of a C function's variables while it is followed: see borrowing.py."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

Names = frozenset[str]
NONE: Names = frozenset()


@dataclass(frozen=True)
class Value:
    """Where a value comes from, by the variables of the function."""

    source: str = ""  # the place that holds it, which may let it go; "" where it is held
    stale: str = ""  # the call that may have let it go
    same: Names = NONE  # variables that are the same object
    inside: Names = NONE  # variables that hold it
    target: Names = NONE  # variables (parameters) that point to what it was read from
    plain: bool = False  # no Python code runs when it is released
    private: bool = False  # nobody else reaches it

    def held_by(self) -> Names:
        return self.same | self.inside

    def part(self) -> Value:
        """A part of it: as long as it is held, the part is."""
        return Value(self.source, self.stale, NONE, self.held_by(), self.target)

    def __or__(self, other: Value) -> Value:
        return Value(
            self.source or other.source,
            self.stale or other.stale,
            self.same | other.same,
            self.inside | other.inside,
            self.target | other.target,
            self.plain and other.plain,
            self.private and other.private,
        )

    def without(self, names: Names) -> Value:
        return replace(
            self,
            same=self.same - names,
            inside=self.inside - names,
            target=self.target - names,
        )


HELD = Value()
NULL = Value(plain=True, private=True)
RELEASED = "its release"


@dataclass
class State:
    """What holds at one point of a function."""

    values: dict[str, Value] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)  # references beyond the first
    held: set[str] = field(default_factory=set)  # places to whose objects a reference was taken
    exposed: set[str] = field(default_factory=set)  # parameters that only the caller holds by now

    changed: set[str] = field(
        default_factory=set
    )  # parameters that have a value of the function's own

    def copy(self) -> State:
        sets = (set(self.held), set(self.exposed), set(self.changed))
        return State(dict(self.values), dict(self.taken), *sets)

    def __or__(self, other: State) -> State:
        names = self.values.keys() | other.values.keys()
        values = {n: self.values.get(n, NULL) | other.values.get(n, NULL) for n in names}
        both = self.taken.keys() & other.taken.keys()
        taken = {n: min(self.taken[n], other.taken[n]) for n in both}
        sets = (self.held & other.held, self.exposed | other.exposed, self.changed | other.changed)
        return State(values, taken, *sets)


def join(one: State | None, other: State | None) -> State | None:
    return other if one is None else one if other is None else one | other


@dataclass
class Summary:
    """What a function does, by the names of its parameters."""

    runs: bool = False
    needs: set[str] = field(default_factory=set)  # parameters that the caller must hold for it
    result: Value = NULL
    outputs: dict[int, Value] = field(default_factory=dict)
