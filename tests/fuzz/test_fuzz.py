"""The core's readers under AddressSanitizer and UndefinedBehaviorSanitizer, over the saved inputs and
what libFuzzer makes of them: nothing crashes, and no promise of fuzz.c is broken."""

from __future__ import annotations

import pytest
from support import fuzzing

SECONDS = 1


@pytest.fixture(scope="module")
def fuzzer():
    if not fuzzing.can_build():
        pytest.skip("there is no clang, or no shared libpython")
    return fuzzing.build()


# `make fuzz` does it for longer.
@pytest.mark.long
@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_a_reader_keeps_its_promises(fuzzer, target):
    result = fuzzing.run(target, SECONDS)
    assert result.returncode == 0, result.stderr[-8000:]
    assert "stat::number_of_executed_units" in result.stderr


def test_every_target_has_saved_inputs():
    saved = {folder.name: len(list(folder.iterdir())) for folder in fuzzing.CORPUS.iterdir()}
    assert set(saved) == set(fuzzing.TARGETS)
    assert min(saved.values()) > 0
