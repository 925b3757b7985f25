"""Which tests pytest-xdist (``-n``) runs in one process."""

from __future__ import annotations

import re
from functools import cache

from xdist.scheduler import LoadScopeScheduling

from support.processes import ROOT

#: What stands in a file whose tests share what takes long to make.
SHARES = re.compile(r"""scope="module"|\((.*, )?(wheel|postgres|mysql)\b""")


@cache
def shares(file: str) -> bool:
    return bool(SHARES.search((ROOT / file).read_text()))


def takes_minutes(nodeid: str) -> bool:
    """Whether a test runs for as long as its name says, which is long."""
    return "_minutes" in nodeid


class FilesThatShare(LoadScopeScheduling):
    """Keeps the tests of such a file together. The others run wherever there is room, at the end, so that no
    process is left with a whole file; those that take minutes do so, too, before all others."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if shares(file) and not takes_minutes(nodeid) else nodeid
