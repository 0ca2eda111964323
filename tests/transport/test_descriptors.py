"""How many connections a process has file descriptors for."""

import resource
from collections.abc import Callable

import pytest

from authz.transport.descriptors import Room, make_room

INFINITY = resource.RLIM_INFINITY


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[tuple[int, int]]]:
    """Pretend these limits; what is set is noted."""

    def pretend(soft: int, hard: int) -> list[tuple[int, int]]:
        noted: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, both: noted.append(both))
        return noted

    return pretend


@pytest.mark.parametrize(
    ("soft", "hard", "noted"),
    [
        (1128, 1128, []),
        (INFINITY, INFINITY, []),
        (100, 5000, [(1128, 5000)]),
        (100, INFINITY, [(1128, INFINITY)]),
    ],
)
def test_enough(
    limits: Callable[[int, int], list[tuple[int, int]]],
    soft: int,
    hard: int,
    noted: list[tuple[int, int]],
) -> None:
    setting = limits(soft, hard)
    room = make_room(900, 100)
    assert room == Room(900, 100, 1128, 1128)
    assert room.is_enough
    assert setting == noted


@pytest.mark.parametrize(
    ("hard", "expected"),
    [
        (1127, Room(899, 100, 1128, 1127)),
        (328, Room(150, 50, 1128, 328)),
        (20, Room(1, 1, 1128, 20)),
    ],
)
def test_not_enough(
    limits: Callable[[int, int], list[tuple[int, int]]], hard: int, expected: Room
) -> None:
    setting = limits(16, hard)
    room = make_room(900, 100)
    assert room == expected
    assert not room.is_enough
    assert setting == [(hard, hard)]
