"""What is in the repository is what somebody wrote, and pictures of it: nothing that a tool has left behind."""

from __future__ import annotations

import subprocess

import pytest
from support.processes import ROOT

#: A picture has room; a wheel, a database or a build has not.
LARGEST_BYTES = 1 << 20


def test_no_file_is_a_product_of_tools():
    if not (ROOT / ".git").exists():
        pytest.skip("a copy of the tree, without its repository")
    command = ["git", "ls-files", "-z", "--cached"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]
    assert len(files) > 100
    assert [path for path in files if path.stat().st_size > LARGEST_BYTES] == []
    products = {".whl", ".gz", ".so", ".o", ".db", ".pyc", ".log"}
    assert [path for path in files if path.suffix in products] == []
