"""What editors, commits and issues are set up with names what is there."""

from __future__ import annotations

import json
import re

import yaml
from support.processes import ROOT


def test_the_container_for_editors_makes_targets_that_are_there():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    command, *targets = container["postCreateCommand"].split()
    assert command == "make"
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^\$\(STAMPS\)/{target.removeprefix('.stamps/')}:", makefile, re.M)


def test_commits_are_checked_by_tools_that_are_installed_already():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"], "nothing is fetched"
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert hooks.keys() == {"ruff", "ruff-format", "clang-format", "mypy"}
    for hook in hooks.values():
        assert hook["language"] == "system"
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in (ROOT / "Makefile").read_text()
    sources = [str(path.relative_to(ROOT)) for path in (ROOT / "ext").rglob("*.[ch]")]
    assert len(sources) > 50
    assert all(re.search(hooks["clang-format"]["files"], path) for path in sources)


def test_who_reports_a_fault_is_asked_for_what_doctor_prints():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    fields = {field.get("id"): field for field in form["body"]}
    assert "mlflow-fasttrace doctor" in fields["doctor"]["attributes"]["label"]
    assert fields["doctor"]["validations"]["required"]
