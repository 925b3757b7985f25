"""The pages of docs/ are listed, and the code on them is that of files that tests run."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from support.processes import ROOT

DOCS = ROOT / "docs"
FIRST_TRACE = ROOT / "examples/first_trace.py"
CHAPTERS = sorted((ROOT / "examples/tutorial").glob("[0-9][0-9]_*"))


def code_of(document: str) -> list[str]:
    """The blocks of Python of a document."""
    return re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)


def test_the_first_program_is_the_examples():
    docstring, _, program = FIRST_TRACE.read_text().partition("\n\n")
    assert docstring.startswith('"""')
    assert program in code_of((DOCS / "start.md").read_text())


#: Every block of Python on a page of the documentation, but for those that are a file's (--8<--), and README's.
PROGRAMS = [
    pytest.param(code, id=f"{document.name}-{number}")
    for document in (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
    for number, code in enumerate(code_of(document.read_text()))
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_on_pages_run(program, server, own_spool, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr


def test_the_span_processor_of_the_page_on_privacy_redacts(server, own_spool):
    (program,) = code_of((DOCS / "privacy.md").read_text())
    result = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(mlflow.get_last_active_trace_id())"],
        env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    trace = MlflowClient(server.uri).get_trace(result.stdout.strip())
    (span,) = trace.data.spans
    assert span.inputs == {"text": "Write to <mail>, please."}
    assert span.outputs == "Noted: Write to <mail>, please."
    assert "example.org" not in trace.to_json()


def test_every_page_is_listed():
    listed = set(re.findall(r"^\s+(?:- |# - )(?:[\w ]+: )?(\S+\.md)$", settings(), re.MULTILINE))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert len(pages) > 20
    assert pages - listed == set()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_on_one_page(chapter):
    name = f"examples/tutorial/{chapter.name}"
    mark = f'--8<-- "{name}"' if chapter.suffix == ".py" else f"](../../{name})"
    pages = [path for path in DOCS.rglob("*.md") if mark in path.read_text()]
    assert len(pages) == 1


#: Documents beside the pages, whose links `make docs` does not look at.
OTHERS = [
    *ROOT.glob("*.md"),
    ROOT / "tests/README.md",
    ROOT / "examples/tutorial/README.md",
]


@pytest.mark.parametrize("document", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_other_documents_lead_somewhere(document):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in slugs, link


def test_the_site_asks_no_other_host():
    assert "font: false" in settings()
    assert not re.search(r"https?://|analytics|repo_url", settings())


def settings() -> str:
    return (DOCS / "site/mkdocs.yml").read_text()
