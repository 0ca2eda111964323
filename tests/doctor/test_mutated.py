"""Whatever is removed, repeated, reordered, added or altered in a sound dump is noticed.

Unless it is harmless, for a reason that stands in `harmless`. Of changes that are alike, by their
kind and path, some are tried.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

import pytest

from authz.doctor import CannotRead, Expected, examine
from authz.doctor.dump import _read, of_the_form
from authz.envoyfilters import shipped
from tests.doctor.harmless import HARMLESS, Harmless
from tests.doctor.mutations import Mutation, mutations
from tests.doctor.proxies import PLAINTEXT, Bench, Json
from tests.doctor.trim import small

PODS: Final = (
    "globex/plain",
    "globex/hello",
    "istio-system/gateway",
    "knative-serving/activator",
    "knative-eventing/broker-ingress",
)
WHOLE: Final = PODS[:3:2]
"""Of these all is changed; of the others not what every agent writes."""
AGENTS: Final = ("agent", "bootstrap", "dump", "cluster-Passthrough", "cluster-BlackHole")
EXPECTED: Final = Expected(shipped(), plaintext=PLAINTEXT)


def noticed(dump: Json) -> bool:
    try:
        with of_the_form("mutated"):
            workload = _read(dump, "mutated")
        return bool(examine(workload, EXPECTED))
    except CannotRead:
        return True


def some(several: Iterator[Mutation]) -> Iterator[Mutation]:
    """Of those that are alike, the first and the last."""
    alike: dict[tuple[str, str], list[Mutation]] = defaultdict(list)
    for it in several:
        alike[it.kind, it.path].append(it)
    for group in alike.values():
        yield group[0]
        if len(group) > 1:
            yield group[-1]


def plain(path: str) -> str:
    """Without the brackets of lists, and with other ones around names."""
    return re.sub(r"\[([^\]]+)\]", r"<\1>", path.replace("[]", ""))


def fits(it: Harmless, mutation: Mutation) -> bool:
    kinds = it.kinds.split(",") if it.kinds else [mutation.kind]
    path = plain(mutation.path)
    return mutation.kind in kinds and any(fnmatchcase(path, one) for one in it.patterns)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pod", PODS)
def test_every_change_is_noticed_or_harmless_for_a_reason(bench: Bench, pod: str) -> None:
    dump = small(bench.dump(pod, dynamic=True))
    assert not noticed(dump)
    seen: Counter[str] = Counter()
    overlooked = set()
    for it in some(mutations(dump)):
        if pod not in WHOLE and it.path.startswith(AGENTS):
            continue
        it.do()
        found = noticed(dump)
        it.undo()
        if found:
            seen["noticed"] += 1
        elif any(fits(one, it) for one in HARMLESS):
            seen["harmless"] += 1
        else:
            overlooked.add((plain(it.path), it.kind))
    assert not noticed(dump)
    assert sorted(overlooked) == []
    assert seen["noticed"] > 300
    assert seen["harmless"] > 300


def test_every_reason_is_one() -> None:
    assert all(len(it.reason) > 15 for it in HARMLESS)
    patterns = [one for it in HARMLESS for one in it.patterns]
    assert not any(pattern in {"*", "*.*", "inbound*"} for pattern in patterns)
