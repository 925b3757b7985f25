"""Threads, signals, forks, a garbage collection at nearly every allocation and a switch of threads at nearly
every instruction, all at once, for ``SOUNDNESS_SECONDS``.

Worker threads take steps in any order, each of which knows what has to be current. The main thread takes them
too, and a signal handler raises in the middle. One thread forks, and the child traces; one switches tracing off,
on, and to another destination; one takes the records out of the ring and checks that none is lost, torn or there
twice. Nothing is imported once the threads run: a fork in the middle of an import leaves the child with a lock
of Python's own that nobody gives back.
"""

from __future__ import annotations

import contextvars
import dataclasses
import faulthandler
import gc
import glob
import itertools
import linecache  # noqa: F401  # what Python imports to show a warning or an exception
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
import tracemalloc  # noqa: F401  # see linecache
import types
import warnings

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.spool.folder import rings_prefix
from mlflow_fasttrace._internal.spool.records import (
    PHASE_COMPLETE,
    SPAN,
    SpanRecord,
    TraceInfoRecord,
)

os.environ.setdefault("MLFLOW_FASTTRACE_RING_BYTES", str(256 << 10))
SECONDS = float(os.environ.get("SOUNDNESS_SECONDS", "3"))
WORKERS = 3
HANG_SECONDS = 60.0  # a thread that takes longer to end hangs
SPOOL = os.environ["MLFLOW_FASTTRACE_SPOOL_DIR"]
RINGS = f"/dev/shm/mlflow-fasttrace-*/{rings_prefix(os.path.abspath(SPOOL))}-*"
SPOOLS = f"{SPOOL}/*"
BYTES_AT_ONCE = 64 << 10
TRACES_REMEMBERED = 20_000  # complete ones, which may still get a late span
GROWTH_BYTES = 16 << 20

# Python warns of the fork of a process with threads, and of a coroutine that is interrupted before it begins.
warnings.filterwarnings("ignore", category=DeprecationWarning)
warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)

stop, all_ended = threading.Event(), threading.Event()
errors: list[str] = []
steps_taken: dict[str, int] = {}


def failed(where: str) -> None:
    """Notes the exception that is being handled, and ends the run."""
    stack = "".join(traceback.format_stack(limit=30))
    errors.append(f"{where}: {stack}{traceback.format_exc()}")
    stop.set()


# ---- what is expected of the records ----

#: Spans that will end, whatever interrupts them: by id, the trace and the parent. They leave as they arrive.
expected: dict[str, tuple[str, str | None]] = {}


def begun(span) -> None:
    """Checks that what a program has just been given is current; a span that is recorded has to arrive."""
    current = _core.current()
    if type(span) is _core.LiveSpan:
        assert current is span, (current, span)
        will_end(span)
    else:
        assert type(current) is not _core.LiveSpan, current


def will_end(span) -> None:
    span.set_attribute("own id", span.span_id)
    expected[span.span_id] = (span.trace_id, span.parent_id)


def begun_function(name: str) -> bool:
    """As ``begun``, for the body of a traced function; whether it is recorded."""
    span = mlflow.get_current_active_span()
    is_recorded = span is not None and span.name == name and span.end_time_ns is None
    if is_recorded:
        will_end(span)
    return is_recorded


def is_current(before) -> None:
    current = _core.current()
    assert current is before, (current, before)


class Arriving:
    """A trace whose records arrive."""

    def __init__(self, spans: set[bytes]):
        self.spans = spans
        self.root_ended = False
        #: Of the best record of the trace: its phase, and the spans that it counts.
        self.rank = (-1, -1)

    def is_whole(self) -> bool:
        return self.rank == (PHASE_COMPLETE, len(self.spans))


class Records:
    """What a process records, taken out of its ring.

    Args:
        pid: Of the process.
        others: Ids of traces that another process has begun.
        gives_back: Whether the ring gets room again.
    """

    def __init__(self, pid: int, others: set[str], gives_back: bool):
        # A finalizer that traces while a child is being made makes it a ring, and the child makes another one.
        self.rings = [_core.RingReader(path) for path in glob.glob(f"{RINGS}/{pid}-*.ring")]
        self.segments = f"spill-{pid}-*.seg"
        self.others = others
        self.gives_back = gives_back
        self.open: dict[bytes, Arriving] = {}
        #: The ids of the spans of the last traces that were whole.
        self.whole: dict[bytes, bytes] = {}
        self.spans = self.traces = self.spilled = 0

    def waiting(self) -> int:
        """Records that found no room in the ring, and have not been taken yet."""
        return sum(ring.spilled for ring in self.rings) - self.spilled

    def take(self, ended: bool = False) -> int:
        """Takes what is there; how many records it was.

        Args:
            ended: Nothing more is recorded.
        """
        taken = 0
        for ring in self.rings:
            items = ring.drain(BYTES_AT_ONCE)
            self._take_items(items)
            assert not ring.damaged and not ring.refused
            if items and self.gives_back:
                ring.release(items[-1][0])
                ring.set_delivered(items[-1][0])
            ring.heartbeat(False)
            taken += len(items)
            if self.waiting() > 0:
                taken += self._take_segments(ring, ended)
        return taken

    def _take_segments(self, ring, ended: bool) -> int:
        paths = [*glob.glob(f"{RINGS}/{self.segments}"), *glob.glob(f"{SPOOLS}/{self.segments}")]
        taken = 0
        for path in paths:
            sequence = int(path.removesuffix(".seg").rpartition("-")[2])
            if ended or sequence < ring.spill_sequence:
                segment = _core.SegmentReader(path)
                while items := segment.read(BYTES_AT_ONCE):
                    self._take_items(items)
                    taken += len(items)
                assert not segment.damaged
                os.unlink(path)
        self.spilled += taken
        ring.add_spill_delivered(taken)
        return taken

    def _take_items(self, items) -> None:
        for _end, kind, trace_id, record in items:
            trace = self.open.get(trace_id) or self._trace(trace_id)
            if kind == SPAN:
                self._take_span(trace, SpanRecord.of(record), record)
            else:
                info = TraceInfoRecord(record)
                trace.rank = max(trace.rank, (info.phase, info.spans))
            if trace.is_whole():
                self._keep(trace_id, self.open.pop(trace_id))

    def _trace(self, trace_id: bytes) -> Arriving:
        """A trace that is not open: a new one, or one of which there is more, late spans or what was spilled."""
        ids = self.whole.pop(trace_id, b"")
        trace = Arriving({ids[i : i + 8] for i in range(0, len(ids), 8)})
        if ids:
            trace.root_ended, trace.rank = True, (PHASE_COMPLETE, len(trace.spans))
        self.open[trace_id] = trace
        return trace

    def _keep(self, trace_id: bytes, trace: Arriving) -> None:
        self.traces += 1
        self.whole[trace_id] = b"".join(trace.spans)
        if len(self.whole) > TRACES_REMEMBERED:
            del self.whole[next(iter(self.whole))]

    def _take_span(self, trace: Arriving, span: SpanRecord, record: bytes) -> None:
        self.spans += 1
        assert span.span_id not in trace.spans, ("twice", span)
        trace.spans.add(span.span_id)
        trace.root_ended |= span.parent_id is None
        span_id, trace_id = span.span_id.hex(), "tr-" + span.trace_id.hex()
        assert span.attributes["mlflow.traceRequestId"] == trace_id, span
        assert span.attributes.get("own id", span_id) == span_id, span
        assert span.start_ns <= span.end_ns, span
        _core.span_json(record)  # refuses a record that is not whole
        where = expected.pop(span_id, None)
        parent = span.parent_id.hex() if span.parent_id else None
        assert where is None or where == (trace_id, parent), (where, span)

    def check_end(self) -> None:
        """Nothing more comes: every trace whose root has ended is whole, and every span has arrived."""
        while self.take(ended=True):
            pass
        assert self.spans and self.waiting() == 0, (self.spans, self.waiting())
        for trace_id, trace in self.open.items():
            if "tr-" + trace_id.hex() not in self.others:
                assert not trace.root_ended, (trace_id, trace.rank, len(trace.spans))
        lost = {trace_id for trace_id, _ in expected.values()} - self.others
        alive = [trace.trace_id for trace in _core.live_traces()]
        assert not lost, (len(lost), list(expected.items())[:5], "not complete:", alive[:5])


records: Records | None = None


def make_room() -> None:
    """Lets what has found no room in the ring be taken; not for ever, since a segment is taken when it has
    ended, which is when something is recorded again."""
    until = time.monotonic() + 0.1
    while records is not None and records.waiting() > 100 and time.monotonic() < until:
        time.sleep(0.001)


# ---- values whose own code traces, raises, lets other threads run ----

#: Ids of the cycles that are not collected yet.
cyclic_alive: set[int] = set()


class Cyclic:
    """Goes in a garbage collection, wherever that runs, and traces in its finalizer. There are so many at most,
    or what is dropped during a collection would take the next one longer than this one, and so on."""

    def __init__(self):
        if len(cyclic_alive) < 100:
            cyclic_alive.add(id(self))
            self.me = self

    @mlflow.trace
    def close(self):
        begun_function("close")
        time.sleep(0)
        with mlflow.start_span("in a finalizer") as span:
            begun(span)
            span.set_inputs({"closed": [1, {"a": 2}]})

    def __del__(self):
        cyclic_alive.discard(id(self))
        before = _core.current()
        self.close()
        is_current(before)


class Traces:
    def __str__(self):
        Cyclic()
        before = _core.current()
        try:
            with mlflow.start_span("in a value") as span:
                begun(span)
                time.sleep(0)
            is_current(before)
        except AssertionError:
            failed("a value")  # the core takes it for the value's own
        return "traces"


class Raises:
    def __str__(self):
        Cyclic()
        raise ValueError("a value's own")

    __repr__ = __str__


class Items(dict):
    def items(self):
        time.sleep(0)
        Cyclic()
        return super().items()


class Iterated(list):
    def __iter__(self):
        for item in super().__iter__():
            time.sleep(0)
            yield item


@dataclasses.dataclass
class Data:
    text: object = dataclasses.field(default_factory=Traces)
    more: object = dataclasses.field(default_factory=lambda: Items(a=1))


class Model:
    """What the package takes for a model of pydantic."""

    def model_dump(self):
        function(1)
        return {"dumped": Data()}


sys.modules["pydantic"] = types.ModuleType("pydantic")
sys.modules["pydantic"].BaseModel = Model


class Event:
    """What add_event() asks for."""

    name = "event"
    timestamp = 1

    @property
    def attributes(self):
        Cyclic()
        return {"value": [1, 2]}


VALUES = (Traces, Raises, Items, Data, Model, lambda: Iterated([1, Traces()]), lambda: "plain" * 20)
_counted = itertools.count()


def value():
    """One of the values in turn."""
    return VALUES[next(_counted) % len(VALUES)]()


# ---- what is traced ----


@mlflow.trace
def function(argument, depth=1):
    begun_function("function")
    return function(argument, depth - 1) if depth else [argument]


@mlflow.trace(name="fails")
def fails(argument):
    begun_function("fails")
    with mlflow.start_span("inside of what fails") as span:
        begun(span)
        raise LookupError(argument)


@mlflow.trace
def generator(n):
    is_recorded = begun_function("generator")
    before = _core.current()
    for _ in range(n):
        # What is open over a yield is the caller's business too, unless the generator is a span itself.
        with mlflow.start_span("item") as span:
            begun(span)
            if is_recorded:
                yield value()
        if not is_recorded:
            yield value()
        is_current(before)
    return n


class Pause:
    """Awaited, it goes back to whoever drives the coroutine."""

    def __await__(self):
        yield self


@mlflow.trace
async def coroutine(argument, depth=1):
    begun_function("coroutine")
    before = _core.current()
    await Pause()
    is_current(before)
    with mlflow.start_span("in a coroutine") as span:
        begun(span)
        await Pause()
        begun(span)
        if depth:
            await coroutine(argument, depth - 1)
    is_current(before)
    return [argument]


@mlflow.trace
async def async_generator(n):
    begun_function("async_generator")
    for _ in range(n):
        before = _core.current()
        await Pause()
        is_current(before)
        yield value()


async def exhaust(n, at_most):
    items = async_generator(n)
    before = _core.current()
    count = 0
    async for _ in items:
        is_current(before)
        count += 1
        if count == at_most:
            break
    await items.aclose()
    is_current(before)


def drive(*coroutines) -> None:
    """Drives coroutines side by side, each in a context of its own, as tasks are."""
    running = [(contextvars.copy_context(), one) for one in coroutines]
    while running:
        for pair in list(running):
            try:
                pair[0].run(pair[1].send, None)
            except StopIteration:
                running.remove(pair)


# ---- steps ----

#: Spans and contexts for the other threads, one of each for a place.
PLACES = 4
spans_shown: list = [None] * PLACES
contexts_shown: list = [None] * PLACES


def calls() -> None:
    function(value())
    with mlflow.start_span("around calls") as span:
        begun(span)
        function(value(), depth=2)
        begun(span)


def failures() -> None:
    for _ in range(2):
        try:
            fails(value())
        except LookupError:
            pass
    try:
        with mlflow.start_span("left with an exception") as span:
            begun(span)
            raise LookupError("here")
    except LookupError:
        pass


def generators() -> None:
    before = _core.current()
    first, second = generator(3), generator(3)
    for _ in zip(first, second, strict=True):
        is_current(before)
    first.close()
    third = generator(2)
    next(third)
    third.close()
    is_current(before)
    fourth = generator(1)
    try:
        next(fourth)
        fourth.throw(LookupError("thrown in"))
    except LookupError:
        pass
    is_current(before)


def coroutines() -> None:
    drive(coroutine(value()), coroutine(1, depth=2))
    with mlflow.start_span("around coroutines") as span:
        begun(span)
        drive(coroutine(1), exhaust(2, 2))
        begun(span)


def async_generators() -> None:
    drive(exhaust(3, 3), exhaust(3, 1))


def scopes() -> None:
    before = _core.current()
    with mlflow.start_span("outer", attributes={"value": value()}) as outer:
        begun(outer)
        with mlflow.start_span("inner") as inner:
            begun(inner)
            inner.set_inputs({"value": value()})
            inner.set_attributes({"one": value(), "two": Cyclic()})
            inner.set_outputs([value()])
            begun(inner)
            if type(inner) is _core.LiveSpan:
                inner.add_event(Event())
                assert isinstance(inner.inputs, (dict, str)), inner.inputs
                assert len(inner._event_tuples) == 1
                inner._trace.tags["value"] = value()
                inner._trace.metadata["value"] = value()
                inner._trace.request_preview = "preview"
        begun(outer)
    is_current(before)
    with mlflow.tracing.context(tags={"a": "b"}, metadata={"c": "d"}):
        function(1)
    is_current(before)


def without_context() -> None:
    before = _core.current()
    root = mlflow.start_span_no_context("without context", inputs=value(), tags={"a": "b"})
    try:
        child = mlflow.start_span_no_context("child", parent_span=root, attributes={"a": value()})
        try:
            is_current(before)
            if threading.get_ident() != main_thread and type(child) is _core.LiveSpan:
                will_end(child)
        finally:
            child.end(outputs=value())
    finally:
        root.end()
    is_current(before)


def show() -> None:
    """Other threads read and set this span, and go on in copies of its context."""
    place = next(_counted) % PLACES
    with mlflow.start_span("shown") as span:
        begun(span)
        span.set_inputs({"value": [1] * 20})
        spans_shown[place] = span
        contexts_shown[place] = contextvars.copy_context()
        function(value())
        work_on_what_is_shown()
        begun(span)


def work_on_what_is_shown() -> None:
    for span in list(spans_shown):
        if type(span) is not _core.LiveSpan:
            continue
        span.set_attribute(f"attribute {next(_counted) % 5}", value())
        span.set_outputs([value()])
        if len(span._event_tuples) < 20:
            span.add_event(Event())
        assert isinstance(span.attributes, dict) and isinstance(span._attribute_texts, dict)
        assert isinstance(span.inputs, dict), span.inputs
        span.set_inputs({"value": value() if next(_counted) % 2 else 1})
        span.outputs, span._status_pair, repr(span), span.get_attribute("attribute 1")
    context = contexts_shown[next(_counted) % PLACES]
    if context is not None:
        before = _core.current()
        context.copy().run(in_context_of_another)
        is_current(before)


def in_context_of_another() -> None:
    before = _core.current()
    function(value())
    with mlflow.start_span("in the context of another thread") as span:
        begun(span)
        if type(before) is _core.LiveSpan and type(span) is _core.LiveSpan:
            assert span.parent_id == before.span_id, (span, before)
    is_current(before)


def drops() -> None:
    """Leaves behind what nobody ends. Python calls the code of what is dropped where nothing can be raised, so
    the main thread, which is interrupted, leaves this step to the others."""
    before = _core.current()
    next(generator(3))
    is_current(before)
    coroutine(1).send(None)
    is_current(before)
    asend = async_generator(2).asend(None)
    asend.send(None)
    del asend
    is_current(before)
    mlflow.start_span("never left").__enter__()
    is_current(before)
    mlflow.start_span_no_context("never ended")
    root = mlflow.start_span_no_context("root of what is dropped")
    mlflow.start_span_no_context("dropped child", parent_span=root)
    root.end()
    circle = mlflow.start_span_no_context("on itself")
    if type(circle) is _core.LiveSpan:
        circle.me = circle
    in_circle = [generator(2)]
    in_circle.append(in_circle)
    next(in_circle[0])
    is_current(before)


STEPS = (
    calls,
    failures,
    generators,
    coroutines,
    async_generators,
    scopes,
    without_context,
    show,
    work_on_what_is_shown,
)


def take_steps(seed: int, steps=STEPS + (drops,), times: float = float("inf")) -> None:
    choice = random.Random(seed).choice
    try:
        while times > 0 and not stop.is_set():
            times -= 1
            step = choice(steps)
            step()
            assert _core.current() is None, step
            steps_taken[step.__name__] = steps_taken.get(step.__name__, 0) + 1
            make_room()
    except BaseException:
        failed("a worker")


# ---- tracing is switched ----


def process_span(span) -> None:
    time.sleep(0)
    span.set_attribute("processed", Iterated([1, 2]))


def switch() -> None:
    try:
        choice = random.Random(1).choice
        while not stop.wait(0.02):
            kind = choice(("off", "processors", "destination"))
            if kind == "off":
                mlflow.tracing.disable()
                time.sleep(0.001)
                mlflow.tracing.enable()
            elif kind == "processors":
                with mlflow.tracing.configure(span_processors=[process_span]):
                    time.sleep(0.005)
            else:
                mlflow.tracing.reset()
            make_room()
    except BaseException:
        failed("the switching thread")


# ---- forks ----

forks = 0


def fork_and_wait() -> None:
    global forks
    pid = os.fork()
    if pid == 0:
        in_child()
    forks += 1
    until = time.monotonic() + HANG_SECONDS / 2
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < until:
        time.sleep(0.002)
    if ended[0] == 0:
        os.kill(pid, signal.SIGABRT)  # faulthandler shows where it hangs
        os.waitpid(pid, 0)
    for name in (f"{pid}-*", f"spill-{pid}-*"):
        for path in [*glob.glob(f"{RINGS}/{name}"), *glob.glob(f"{SPOOLS}/{name}")]:
            os.unlink(path)
    assert ended == (pid, 0), ("a child", ended)


def in_child() -> None:
    """The other threads are gone, wherever they were. What of their traces is open, or still held somewhere,
    is not for this process to end; what it begins itself is recorded as ever."""
    global records, stop
    status = 1
    try:
        records = None
        stop = threading.Event()  # a thread that is gone may have been inside of the other
        errors.clear()
        others = {trace.trace_id for trace in _core.live_traces()}
        others |= {trace_id for trace_id, _ in list(expected.values())}
        expected.clear()
        cyclic_alive.clear()
        spans_shown[:] = contexts_shown[:] = [None] * PLACES
        before = _core.current()
        for step in STEPS:
            step()
            is_current(before)
        mlflow.tracing.enable()
        threads = [threading.Thread(target=take_steps, args=(i, STEPS, 3)) for i in range(2)]
        for thread in threads:
            thread.start()
        contextvars.Context().run(take_steps, 3, STEPS, 3)
        for thread in threads:
            thread.join(HANG_SECONDS / 3)
            assert not thread.is_alive(), "a thread of a child hangs"
        assert not errors, errors
        spans_shown[:] = contexts_shown[:] = [None] * PLACES
        _core.end_abandoned()
        Records(os.getpid(), others, gives_back=False).check_end()
        status = 0
    except BaseException:
        os.write(2, f"a child: {traceback.format_exc()} {''.join(errors)}\n".encode())
    finally:
        os._exit(status)


def fork_again_and_again() -> None:
    try:
        while not stop.wait(0.2):
            fork_and_wait()
            with mlflow.start_span("around a fork") as span:
                begun(span)
                fork_and_wait()
                begun(span)
            assert _core.current() is None
    except BaseException:
        failed("the forking thread")


# ---- signals ----


class Alarm(Exception):
    pass


KINDS = (Alarm, TimeoutError, KeyboardInterrupt, SystemExit)
kind: type[BaseException] = Alarm
raised = 0
raised_at = ""
pause = 0.0  # seconds until the handler looks again
main_thread = threading.get_ident()
collecting_thread = 0
OWN_FOLDERS = (os.path.dirname(mlflow.__file__), os.path.dirname(__file__))


def note_collection(phase, info) -> None:
    """One of gc.callbacks."""
    global collecting_thread
    collecting_thread = threading.get_ident() if phase == "start" else 0


def may_be_interrupted(frame) -> bool:
    """Whether an exception of a handler leaves from here to ``interrupted_work``. Python itself swallows it in
    finalizers, and its library here and there."""
    if collecting_thread == main_thread:
        return False
    while frame is not None:
        code = frame.f_code
        if code is interrupted_work.__code__:
            return True
        is_own = code.co_filename.startswith(OWN_FOLDERS)
        if not is_own or code.co_name in ("__del__", "note_collection"):
            return False
        frame = frame.f_back
    return False


def handler(number, frame) -> None:
    global raised, raised_at, pause
    if not may_be_interrupted(frame):
        signal.setitimer(signal.ITIMER_REAL, pause)
        pause = min(2 * pause, 0.02)  # or the thread would get no further than here
        return
    raised += 1
    raised_at = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    raise kind(raised)


def interrupted_work(steps, before: int) -> None:
    for step in steps:
        step()
    # Functions of their own: the jump of a loop in a try block is not covered by the block in Python 3.13.
    while raised == before:
        settle()


def settle() -> None:
    """A call, at which Python looks for signals."""


def moment(choose: random.Random) -> None:
    """A signal handler raises once, somewhere in the steps; that arrives here, once."""
    global kind, pause
    pause = 50e-6
    kind = choose.choice(KINDS)
    before, caught = raised, []
    steps = choose.sample(STEPS, 3)
    delay = choose.choice((1e-4, 1e-3, 1e-2, 5e-2)) * choose.random() + 1e-6
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        interrupted_work(steps, before)
    except kind as error:
        caught.append(error.args)
    assert (raised - before, caught) == (1, [(raised,)]), (raised - before, caught, raised_at)
    assert _core.current() is None, (steps, raised_at)


# ---- all of it ----


def take_records() -> None:
    try:
        while not all_ended.is_set():
            if not records.take():
                time.sleep(0.001)
    except BaseException:
        failed("the records")


class Warned(logging.Handler):
    """Takes the package's warnings: nothing that happens here is a reason for one but what other threads do to a
    span that has ended meanwhile."""

    def emit(self, record):
        if "on a span that has ended" not in record.getMessage():
            errors.append(f"a warning: {record.getMessage()}")


def unraisable(what) -> None:
    if (
        isinstance(what.object, types.CoroutineType)
        and repr(what.exc_value) == "KeyError('__import__')"
    ):
        # Python's own warning of a coroutine that was never awaited and is collected while the constructor of a
        # named tuple runs, which has no builtins to import `warnings` by.
        return
    shown = traceback.format_exception(what.exc_type, what.exc_value, what.exc_traceback)
    errors.append(f"swallowed in {what.object!r}, raised at {raised_at}: {''.join(shown)}")
    stop.set()


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def check_growth(sizes: list[int]) -> None:
    """Compares the second and the last quarter of a run that is long enough to have become steady."""
    quarter = len(sizes) // 4
    if SECONDS >= 60:
        middle, last = sorted(sizes[quarter : 2 * quarter]), sorted(sizes[-quarter:])
        grown = last[quarter // 2] - middle[quarter // 2]
        assert grown < GROWTH_BYTES, (grown, sizes[:: max(1, len(sizes) // 20)])


def join(thread) -> None:
    thread.join(HANG_SECONDS)
    if thread.is_alive():
        faulthandler.dump_traceback()
        raise AssertionError(("a thread hangs", thread, errors))


def main() -> None:
    global records
    logging.getLogger("mlflow_fasttrace").addHandler(Warned())
    for step in (*STEPS, drops):
        step()  # what is imported late is imported now
    switching = mlflow.tracing.configure(span_processors=[process_span])
    with switching:
        calls()
    mlflow.tracing.reset()
    records = Records(os.getpid(), set(), gives_back=True)
    sys.unraisablehook = unraisable
    signal.signal(signal.SIGALRM, handler)
    gc.collect()
    gc.freeze()  # the collections that follow look at what the steps make
    gc.callbacks.append(note_collection)
    gc.set_threshold(5, 2, 2)
    sys.setswitchinterval(1e-6)
    taking = threading.Thread(target=take_records, daemon=True)
    threads = [
        threading.Thread(target=target, daemon=True) for target in (switch, fork_again_and_again)
    ]
    threads += [threading.Thread(target=take_steps, args=(i,), daemon=True) for i in range(WORKERS)]
    for thread in (taking, *threads):
        thread.start()
    began = time.monotonic()
    choose, sizes = random.Random(0), []
    try:
        while time.monotonic() < began + SECONDS and not stop.is_set():
            moment(choose)
            make_room()
            if len(sizes) < time.monotonic() - began:
                sizes.append(resident_bytes())
    except BaseException:
        failed("the main thread")
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    stop.set()
    for thread in threads:
        join(thread)
    gc.set_threshold(700, 10, 10)
    sys.setswitchinterval(0.005)
    gc.callbacks.remove(note_collection)
    spans_shown[:] = contexts_shown[:] = [None] * PLACES
    # What is collected may drop spans, whose end may make garbage; and gc.collect() does nothing while a
    # finalizer of another collection is at work in the thread that takes records.
    until = time.monotonic() + HANG_SECONDS
    while _core.live_traces() and time.monotonic() < until:
        gc.collect()
        _core.end_abandoned()
        time.sleep(0.001)
    all_ended.set()
    join(taking)
    print(
        f"{raised} interruptions, {forks} forks, {records.traces} traces, {records.spans} spans, "
        f"{sum(steps_taken.values())} steps {steps_taken}, {sizes[:1]} {sizes[-1:]} bytes"
    )
    assert not errors, "\n".join(errors[:5])
    records.check_end()
    assert not _core.live_traces()
    assert raised and forks and records.traces
    assert len(steps_taken) == len(STEPS) + 1, steps_taken
    check_growth(sizes)


faulthandler.dump_traceback_later(SECONDS + 2 * HANG_SECONDS, exit=True)
main()
faulthandler.cancel_dump_traceback_later()
