"""Finds what C code borrows and still uses after a call that can run Python code, which may release it.

    python .ci/check_python_calls.py [--verbose] [--annotate] [ROOT]

A function can run Python code when it calls a function of CPython that is not in NEVER_RUNS, calls through a
pointer, or calls a function that can. Its declaration in a header begins with RUNS_PYTHON (base/compat.h), and
no other declaration does; static functions of .c files carry nothing. ``--annotate`` puts the macro where it
belongs, and takes it away elsewhere.

A local is borrowed when it was read from a pointer field of a structure that others reach, from a container
that may change, or from a buffer that may grow. Taking a reference ends that; moving a new reference into such a
field begins it. What is borrowed may not be used after a call that can run Python code. Nor may it be an
argument of one, for a parameter is the caller's business and counts as kept, unless the called function takes a
reference, or is through with it, before it runs Python code. A field that is written only where its owner is
made and unmade (c_code.MAKES) holds its object as long as the owner is held; so does one whose comment says
"borrowed from `other`", where `other` is such a field of the same structure.

A comment "... kept over Python code, because ..." exempts its own lines and the next one, and all
uses of a field beside whose declaration it stands. One that exempts nothing is a fault.

Statements are followed in their order, branches apart and loops twice; conditions that exclude each other are
not known. Prints a line a fault, and exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from borrowing import Walk
from c_code import Code, read_code
from c_values import Summary

MACRO = "RUNS_PYTHON"
ANNOTATION = "runs_python"
LENDER = re.compile(r"borrowed from `(\w+)`")
COMMENT = re.compile(r"/\*.*?\*/", re.S)
LINE_BREAK = re.compile(r"\s*\n[ \t]*\*?(?!/)[ \t]*")  # in a comment
EXEMPTION = re.compile(r"kept over Python code,? because \w")


class Check:
    """The faults of the C files below a folder."""

    def __init__(self, ext: Path):
        self.code: Code = read_code(ext)
        self.shared = self.code.shared_records()
        self.summaries: dict[str, Summary] = {usr: Summary() for usr in self.code.functions}
        self.texts: dict[Path, str] = {}
        paths = {function.path for function in self.code.functions.values()}
        paths |= {field.path for field in self.code.fields.values()}
        for path in paths | {path for path, _ in self.code.declarations}:
            self.texts[path] = path.read_text()
        self.unsettled = self._unsettled_fields()
        self.exemptions = {
            (path, text.count("\n", 0, comment.start()) + 1): comment[0]
            for path, text in self.texts.items()
            for comment in COMMENT.finditer(text)
            if EXEMPTION.search(LINE_BREAK.sub(" ", comment[0]))
        }
        self.exempted: set[tuple[Path, int]] = set()
        self.faults: set[tuple[Path, int, str]] = set()
        self._follow()

    def _follow(self) -> None:
        """Follows every function until what is known of those that it calls changes no more."""
        before: dict[str, Summary] = {}
        while before != self.summaries:
            before = dict(self.summaries)
            self.faults.clear()
            self.exempted.clear()
            for usr, function in self.code.functions.items():
                self.summaries[usr] = Walk(self, function).run()
        for path, line in self.exemptions.keys() - self.exempted:
            self.faults.add((path, line, "this exemption exempts nothing"))

    def _unsettled_fields(self) -> set[str]:
        """The fields that may let go what they hold while their owner lives: not what they borrow from a settled
        one beside them."""
        settled = self.code.settled_fields()
        for usr in self.code.fields.keys() - settled:
            if found := LENDER.search(self._line_of(usr)):
                structure, _, _ = usr.rpartition("@FI@")
                if f"{structure}@FI@{found[1]}" in settled:
                    settled.add(usr)
        return self.code.fields.keys() - settled

    def _line_of(self, usr: str) -> str:
        field = self.code.fields[usr]
        return self.texts[field.path].splitlines()[field.line - 1]

    def report(self, path: Path, line: int, text: str) -> None:
        if not self._exempt(path, line):
            self.faults.add((path, line, text))

    def _exempt(self, path: Path, line: int) -> bool:
        for (where, first), comment in self.exemptions.items():
            if where == path and first <= line <= first + comment.count("\n") + 1:
                self.exempted.add((where, first))
                return True
        return False

    def is_exempt_field(self, usr: str) -> bool:
        return self._exempt(self.code.fields[usr].path, self.code.fields[usr].line)

    def owns(self, usr: str) -> bool:
        """Whether a field owns what it points to: links among structures of a kind do only where they say so."""
        line = self._line_of(usr)
        return "owned" in line or not (self.code.fields[usr].is_link or "borrowed" in line)

    def wrong_declarations(self) -> list[tuple[Path, int, bool]]:
        """The declarations in headers whose macro is missing (True) or too much (False)."""
        wrong = []
        for declaration in self.code.declarations.values():
            if declaration.usr in self.summaries:
                runs = self.summaries[declaration.usr].runs
                if runs != (ANNOTATION in declaration.annotations):
                    wrong.append((declaration.path, declaration.line, runs))
        return wrong

    def annotate(self) -> None:
        """Puts the macro before the declarations that lack it, and takes it from the others."""
        changed = set()
        for path, line, runs in self.wrong_declarations():
            lines = path.read_text().splitlines(keepends=True)
            bare = lines[line - 1].removeprefix(f"{MACRO} ")
            lines[line - 1] = f"{MACRO} {bare}" if runs else bare
            path.write_text("".join(lines))
            changed.add(path)
        if changed:
            formatter = Path(sys.executable).with_name("clang-format")
            subprocess.check_call([formatter, "-i", *sorted(changed)])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verbose", action="store_true", help="list the exemptions")
    parser.add_argument("--annotate", action="store_true", help=f"put {MACRO} where it belongs")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parent.parent)
    options = parser.parse_args(arguments)
    check = Check(options.root / "ext")
    faults = sorted(check.faults)
    if options.annotate:
        check.annotate()
    else:
        for path, line, runs in check.wrong_declarations():
            text = "can run Python code and lacks" if runs else "runs no Python code and has"
            faults.append((path, line, f"the function {text} {MACRO}"))
    for path, line, text in faults:
        print(f"{_shown(path)}:{line}: {text}")
    if options.verbose:
        for (path, line), comment in sorted(check.exemptions.items()):
            print(f"{_shown(path)}:{line}: exempt: {LINE_BREAK.sub(' ', comment)}")
    return 1 if faults else 0


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
