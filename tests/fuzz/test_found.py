"""What a fuzzer has found, and where it begins, played again."""

import pytest

from tests.fuzz.targets import FOUND, TARGETS, seeds


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_is_mended(target: str) -> None:
    for path in sorted((FOUND / target).glob("*")):
        TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_hold(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)
