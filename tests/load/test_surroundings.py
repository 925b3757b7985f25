"""All arrives wherever a program runs. ``benchmarks/surroundings.py`` compares the same with MLflow itself."""

from __future__ import annotations

import pytest
from support.lengths import long_but
from support.servers import MlflowServer
from support.surroundings import SURROUNDINGS, missing, run_in


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    """One that may be broken."""
    with MlflowServer(tmp_path_factory.mktemp("surroundings")) as server:
        yield server


def assert_all_arrives(name: str, server: MlflowServer, programs: int | None = None) -> None:
    where = SURROUNDINGS[name]
    if (reason := missing(where)) is not None:
        pytest.skip(reason)
    if programs is not None:
        where = where._replace(programs=programs, at_once=min(where.at_once, programs))
    run = run_in(where, "fasttrace", server)
    try:
        assert run.failed == 0, run.said()
        assert run.arrived() == run.expected(), run.said()
    finally:
        run.remove()


#: Those that no other test tries briefly.
TRIED_BRIEFLY = (
    "a read-only root and a /tmp in memory",
    "48 open files at most (`ulimit -n`)",
    "96 MB of memory for all processes (cgroup)",
    "a server with a full disk for 4 s",
)


@pytest.mark.parametrize("name", long_but(TRIED_BRIEFLY, SURROUNDINGS))
def test_all_arrives_in(own_server, name):
    assert_all_arrives(name, own_server)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in SURROUNDINGS if "short programs" in name])
def test_all_arrives_of_1000_short_programs(own_server, name):
    assert_all_arrives(name, own_server, 1000)
