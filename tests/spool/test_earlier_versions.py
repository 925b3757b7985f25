"""What a version of this package left on disk is delivered by later ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.earlier_spools import EARLIER, deliver
from support.servers import MlflowServer
from support.spools import base_environment

VERSIONS = sorted(EARLIER.iterdir())


@pytest.mark.parametrize("left", VERSIONS, ids=[folder.name for folder in VERSIONS])
def test_what_an_earlier_version_left_is_delivered(left: Path, tmp_path):
    segments = list(left.glob("*/*.seg"))
    folder = tmp_path / "spool" / segments[0].parent.name
    folder.mkdir(parents=True, mode=0o700)
    for segment in segments:
        shutil.copy(segment, folder)
        (folder / segment.name).chmod(0o600)
    (tmp_path / "server").mkdir()
    with MlflowServer(tmp_path / "server") as server:
        has = deliver(folder, server.uri, base_environment(tmp_path / "spool"))
    assert has == json.loads((left / "has.json").read_text())
