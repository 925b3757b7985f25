"""docs/troubleshooting.md has every message of the package, and no other.

A message is what somebody reads who has not read the code: a log line, a warning, the text of an exception, an error
of the command line, a line of ``doctor`` that needs attention, and the reasons that such lines quote. They are found
where the code writes them, in Python's syntax tree and in the text of the C files. A part that varies is an ellipsis.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.processes import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
PACKAGE = ROOT / "python" / "mlflow_fasttrace"

VARIES = "…"

#: Methods of loggers, and ``warn`` of ``base/log.py`` and of ``warnings``. Nobody sees what ``debug`` says.
LOGGING = {"warn", "warning", "error", "info", "critical", "exception"}
LOGGERS = re.compile(r"(log|log\.logger|_?logger|warnings)\.\w+|warn")
#: Other calls that say what they are given, or make an exception or an answer of it.
SPEAKING = {
    *("_give_up", "_refuse", "_set_aside", "fail", "invalid", "refused_records", "say"),
    *("ClickException", "Outcome", "Unanswered", "Unreadable", "UsageError"),
    *("Forbidden", "InAnotherExperiment", "Rejected", "TooLarge", "TransientError", "Unavailable"),
    *("MovedSeam", "notes.append", "status.error", "stderr.write"),
}
#: Functions that return a reason, for a message that quotes it.
GIVING_REASONS = re.compile(
    r"_*(why|when_it|cannot|mixed|moved_text|_last_error|not_covered|reason|server$|unfit|writable)"
)
#: Variables and constants that hold a reason.
REASONS = {
    "reason",
    "why_not",
    "what",
    "message",
    "told",
    "_SIGN_IN_HINT",
    "_NEVER_CAME",
    "_no_core",
}

#: What is never said to anybody: where it stands, what it begins with, and why.
NOT_SAID = {
    ("_internal/base/parameters.py", "…() takes at most"): "Python's own words",
    ("_internal/base/parameters.py", "…() got an unexpected"): "Python's own words",
    ("_internal/sender/store.py", "a trace is there already"): "caught where it is raised from",
    ("_internal/seams/openai.py", "it waits for something"): "caught: MLflow's own code goes on",
    ("_internal/spool/files.py", "… is no spilled segment"): "of a path that was found by its name",
    ("_internal/spool/traces.py", "the record was not kept"): "who asks has had it kept",
    ("_internal/spans/values.py", "<unprintable"): "a value of a span",
    ("_internal/spans/entities.py", "'LiveSpan' object has no"): "Python's own words",
}
#: Exceptions that are no message: what does not happen, and what stands in no program's way.
NO_MESSAGE = {"AssertionError", "NotImplementedError"}

#: C files whose exceptions reach programs: of objects that these hold, and what they stand on. Functions of
#: ``api/`` and ``spool/`` have this package as their only caller.
C_FOLDERS = (".", "objects", "trace", "base")
#: Exceptions of methods and classes that this package alone calls.
OF_PRIVATE_METHODS = {
    "Traced takes no keyword arguments",
    "SpanScope takes no keyword arguments",
    "a span's kind is a number from 0 to 4",
    "a span's name is a str",
    "a str is needed",
    "a trace's state is 0 to 3",
    "an attribute's key is a str",
    "these are not the arguments of a step of a coroutine",
    "… must be a tuple",
    "Python is shutting down: … cannot be called",
    "__exit__() takes exactly 3 arguments (… given)",
    # Python's own words.
    "LiveSpan.…() got an unexpected keyword argument '…'",
    "LiveSpan.…() got multiple values for argument '…'",
    "LiveSpan.…() takes … positional arguments but … were given",
    "LiveSpan.…() missing 1 required positional argument: '…'",
    "LiveSpan.…() missing 2 required positional arguments: '…' and '…'",
}


class Message(NamedTuple):
    """A text of the code."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def plain(text: str) -> str:
    """A text on one line, with one ellipsis where something varies."""
    text = " ".join(text.split())
    while (shorter := re.sub(r"…[ .:]*…", VARIES, text)) != text:
        text = shorter
    return text


def constant_parts(text: str) -> list[str]:
    """The parts of a text that do not vary, without the signs and spaces around them."""
    parts = [part.strip(" .,:;()'`\"") for part in text.split(VARIES)]
    return [part for part in parts if re.search("[A-Za-z]", part)]


# ---- Python ----


class _Reader(ast.NodeVisitor):
    """Collects the messages of a module.

    Args:
        tree: The module.
    """

    def __init__(self, tree: ast.Module):
        self.found: list[tuple[int, str]] = []
        self._functions: list[str] = []
        self._constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._functions.append(node.name)
        self.generic_visit(node)
        self._functions.pop()

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        if name in LOGGING and node.args:
            self._say(node.args[0], is_format=name != "warn")
        elif name == "log" and LOGGERS.fullmatch(called):
            self._say(node.args[1], is_format=True)
        elif (
            called.endswith(tuple("." + each for each in SPEAKING))
            or called in SPEAKING
            or (
                called in ("print", "click.echo")
                and any(keyword.arg in ("err", "file") for keyword in node.keywords)
            )
        ):
            self._say_all(node.args)
        elif called.endswith(("out.line", "out.print")) and self._is_constant(node.args, "red"):
            self._say(node.args[0])
        elif called == "Finding" and self._has_bad(node.args):
            self._say(node.args[2])
        elif name in ("_status", "error") and called.startswith("self."):
            self._say_all(node.args)
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        if isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            if name.endswith(("Error", "Exception")) and name not in NO_MESSAGE | SPEAKING:
                self._say_all(node.exc.args)
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if self._functions and GIVING_REASONS.match(self._functions[-1]) and value is not None:
            if isinstance(value, ast.Tuple):
                value = value.elts[0] if self._has_bad(value.elts) else None
            if value is not None:
                self._say(value)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {ast.unparse(target) for target in node.targets}
        if names & REASONS:
            self._say(node.value)
        elif "error.args" in names:
            self._say_all(node.value.elts if isinstance(node.value, ast.Tuple) else [])
        elif any(name.startswith("self._silent[") for name in names):
            self._say(node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if ast.unparse(node.target) in REASONS and node.value is not None:
            self._say(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if ast.unparse(node.target).endswith(".damaged") and isinstance(node.value, ast.ListComp):
            self._say(node.value.elt)
        self.generic_visit(node)

    @staticmethod
    def _is_constant(nodes: list[ast.expr], value: str) -> bool:
        return any(isinstance(node, ast.Constant) and node.value == value for node in nodes)

    @staticmethod
    def _has_bad(nodes: list[ast.expr]) -> bool:
        return any(isinstance(node, ast.Name) and node.id == "BAD" for node in nodes)

    def _say_all(self, nodes: list[ast.expr]) -> None:
        for node in nodes:
            self._say(node)

    def _say(self, node: ast.expr, *, is_format: bool = False) -> None:
        if isinstance(node, ast.IfExp):
            self._say(node.body, is_format=is_format)
            self._say(node.orelse, is_format=is_format)
            return
        text = self._text(node)
        if is_format:
            text = re.sub(r"%[sdr]", VARIES, text).replace("%%", "%")
        text = plain(text)
        # A short word alone stands between the words of others: "… is …".
        words = re.findall("[A-Za-z]+", text)
        if len(words) > 1 or any(len(word) > 2 for word in words):
            self.found.append((node.lineno, text))

    def _text(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else VARIES
        if isinstance(node, ast.JoinedStr):
            return "".join(map(self._text, node.values))
        if isinstance(node, ast.FormattedValue):
            return self._text(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._text(node.left) + self._text(node.right)
        if isinstance(node, ast.Name) and node.id in self._constants:
            known = self._constants[node.id]
            return self._text(known) if isinstance(known, (ast.Constant, ast.JoinedStr)) else VARIES
        return VARIES


def of_python() -> Iterator[Message]:
    for path in sorted(PACKAGE.rglob("*.py")):
        file = str(path.relative_to(PACKAGE))
        for line, text in _Reader(ast.parse(path.read_text())).found:
            if not any(file == where and text.startswith(start) for where, start in NOT_SAID):
                yield Message(file, line, text)


# ---- C ----

_C_CALL = re.compile(
    r"\b(?:warn|PyErr_Format|PyErr_SetString|raise_invalid)\((?P<arguments>"
    r'(?:"(?:[^"\\]|\\.)*"|[^;"])*);'
    r'|static const char \*const lines\[\] = \{(?P<lines>(?:"(?:[^"\\]|\\.)*"|[^;"])*);'
)
#: String literals, one behind another, are one text.
_C_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"(?:\s*"(?:[^"\\]|\\.)*")*')
_C_FORMAT = re.compile(r"%(?:zd|llu|[sdUSR])")


def of_c() -> Iterator[Message]:
    for folder in C_FOLDERS:
        for path in sorted((ROOT / "ext" / folder).glob("*.c")):
            source = path.read_text()
            for call in _C_CALL.finditer(source):
                line = source.count("\n", 0, call.start()) + 1
                for text in _C_TEXT.findall(call["arguments"] or call["lines"]):
                    joined = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text))
                    joined = plain(_C_FORMAT.sub(VARIES, joined))
                    if joined not in OF_PRIVATE_METHODS and " " in joined:
                        yield Message(str(path.relative_to(ROOT)), line, joined)


# ---- the page ----

_CODE = re.compile(r"(`+) ?(.+?) ?\1(?!`)")
#: An entry begins with its messages, and a colon.
_ENTRY = re.compile(r"^- ((?:(`+)[^\n]+?\2(?!`)[,\s]*)+):$", re.MULTILINE)


def entries(page: str) -> Iterator[tuple[list[str], str]]:
    """The entries of the page: their messages, and what it says of them."""
    found = list(_ENTRY.finditer(page))
    for entry, following in zip(found, [*found[1:], None], strict=True):
        rest = page[entry.end() : following.start() if following else len(page)]
        rest = rest.split("\n- ")[0].split("\n#")[0]
        yield [plain(text) for _ticks, text in _CODE.findall(entry[1])], rest.strip()


def covers(shown: str, message: Message) -> bool:
    """Whether a message of the page is one of the code: each has the longest part of the other, or more words."""

    def has(text: str, parts: list[str]) -> bool:
        longest = max(parts, key=len, default="")
        position = 0
        for part in parts:
            if part == longest or len(part.split()) >= 2:
                found = text.find(part, position)
                if found < 0:
                    return False
                position = found + len(part)
        return bool(parts)

    return has(shown, constant_parts(message.text)) and has(message.text, constant_parts(shown))


def all_messages() -> list[Message]:
    return [*of_python(), *of_c()]


def shown_messages() -> list[str]:
    return [text for texts, _said in entries(PAGE.read_text()) for text in texts]


def test_every_message_is_on_the_page():
    shown = shown_messages()
    missing = [each for each in all_messages() if not any(covers(text, each) for text in shown)]
    assert not missing, "\n".join(["not in docs/troubleshooting.md:", *map(str, missing)])


def test_every_message_of_the_page_is_one_of_the_code():
    known = all_messages()
    foreign = [text for text in shown_messages() if not any(covers(text, each) for each in known)]
    assert not foreign, "\n".join(["said by nothing in the code:", *foreign])


def test_the_page_says_something_of_every_message():
    found = list(entries(PAGE.read_text()))
    assert len(found) > 60
    silent = [texts for texts, said in found if len(said.split()) < 4]
    assert not silent
    shown = [text for texts, _said in found for text in texts]
    assert sorted(shown) == sorted(set(shown)), "a message is there twice"


def test_the_messages_that_are_found_are_those_of_each_kind():
    """Nothing of the above would notice a kind that is not found any more."""
    texts = {each.text for each in all_messages()}
    assert len(texts) > 180
    assert {
        "Traces are not recorded (…). It is tried again.",  # base/log.py's warn()
        "Tag '…' is immutable and cannot be set on a trace.",  # a logger's, with %
        "Tracing runs on MLflow itself: ….",  # Logger.log()
        "delivery waits: …",  # the sender's log
        "Parameter '…' is deprecated. Please use '…' instead.",  # warnings.warn()
        "sampling_ratio_override must be between 0.0 and 1.0, got …",  # MlflowException
        "Give a trace, a file, or --last.",  # the command line's
        "mlflow-fasttrace: not installed (…); MLflow runs by itself.",  # stderr
        "MLFLOW_FASTTRACE_DISABLE is set",  # a reason
        "does not answer yet",  # with a constant of its module
        "this span has been started already",  # C, an exception
        "Attributes must be a dictionary; these are not recorded.",  # C, a log line
        "… is not a valid SpanStatusCode value. Please use one of ['UNSET', 'OK', 'ERROR']",
    } <= texts
    assert any(text.startswith("A span could not be recorded: neither") for text in texts)


def test_what_is_left_out_is_in_the_code():
    for (file, start), _why in NOT_SAID.items():
        found = _Reader(ast.parse((PACKAGE / file).read_text())).found
        assert any(text.startswith(start) for _line, text in found), (file, start)
    source = "\n".join(
        path.read_text() for folder in C_FOLDERS for path in Path(ROOT, "ext", folder).glob("*.c")
    )
    for text in OF_PRIVATE_METHODS:
        for part in constant_parts(text):
            assert part in source, text


if __name__ == "__main__":
    print(*all_messages(), sep="\n")
