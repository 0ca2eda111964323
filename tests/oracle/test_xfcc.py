"""Nothing that a client sends as X-Forwarded-Client-Cert makes it somebody else.

Its sidecar appends what it saw itself: Envoy's APPEND_FORWARD, `<what was sent>,<own element>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from random import Random
from typing import Final

import pytest

from authz.domain.identity import SpiffeId, workload_of_xfcc
from authz.errors import InvalidIdentity
from authz.testing import workload

OWN: Final = workload("authz-system", "authz")
CLIENT: Final = workload("mallory")
VICTIM: Final = workload("acme-db")
TODAY: Final = date.today().toordinal()
DIGEST: Final = "0f" * 32
PIECES: Final = (
    *(
        "By=",
        "URI=",
        "Hash=",
        "Subject=",
        "DNS=",
        "Cert=",
        "Chain=",
        "by=",
        "uri=",
        "URI =",
        "Uri=",
    ),
    *(
        str(OWN),
        str(VICTIM),
        str(VICTIM),
        f'"{VICTIM}"',
        str(CLIENT),
        DIGEST,
        "acme-db",
        "spiffe://",
    ),
    *(
        ",",
        ",",
        ";",
        ";",
        '"',
        '"',
        "\\",
        '\\"',
        "=",
        " ",
        "\t",
        "\r\n",
        "\0",
        "%22",
        "%2C",
        "\xa0",
        "é",
    ),
    f"By={OWN};Hash={DIGEST};URI={VICTIM}",
    f'By={OWN};Hash={DIGEST};Subject="";URI={VICTIM}',
    f"URI={VICTIM};By={OWN}",
    f";URI={VICTIM}",
    f'";URI={VICTIM};By={OWN};Subject="',
    f'",By={OWN};URI={VICTIM};Subject="',
)
SUBJECTS: Final = (
    *("", '""', '""', '"CN=a,O=b"', r'"CN=\"a\",O=b"', f'"URI={VICTIM}"', f'"x;URI={VICTIM};y"'),
    *(f'"CN=a,By={OWN};URI={VICTIM}"', f'"\\",By={OWN};URI={VICTIM},\\""', '"\\\\"', '"a\\\\,b"'),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        seeds = dict.fromkeys((1, TODAY), 5_000)
        if metafunc.config.getoption("--oracle"):
            seeds |= dict.fromkeys(range(TODAY * 100, TODAY * 100 + 10), 100_000)
        metafunc.parametrize(("seed", "count"), seeds.items(), ids=map(str, seeds))


def headers(seed: int, count: int) -> Iterator[str]:
    """What a client sends, and then what its sidecar appends."""
    random = Random(seed)
    for _ in range(count):
        sent = "".join(random.choices(PIECES, k=random.randrange(1, 16)))
        if random.random() < 0.2:
            sent = sent[random.randrange(len(sent)) :]
        subject = random.choice(SUBJECTS)
        fields = [f"By={OWN}", f"Hash={DIGEST}", *([f"Subject={subject}"] if subject else [])]
        own = ";".join([*fields, f"URI={CLIENT}"])
        yield f"{sent}{random.choice([',', ',', ', '])}{own}"


def found(read: Callable[[str], SpiffeId], header: str) -> SpiffeId | None:
    try:
        return read(header)
    except InvalidIdentity:
        return None


def ours(header: str) -> SpiffeId:
    return workload_of_xfcc(header, own=OWN)


def test_nobody_is_taken_for_somebody_else(seed: int, count: int) -> None:
    read = 0
    for header in headers(seed, count):
        who = found(ours, header)
        assert who in {None, CLIENT}, header
        read += who == CLIENT
    assert read > count / 3


def _first_element(header: str) -> SpiffeId:
    return workload_of_xfcc(header.partition(",")[0], own=OWN)


def _last_after_any_comma(header: str) -> SpiffeId:
    uris = re.findall(r"URI=([^;,\"]*)", header.rpartition(",By=")[2])
    return SpiffeId.parse(uris[0] if uris else "")


def _any_uri(header: str) -> SpiffeId:
    return SpiffeId.parse(next(iter(re.findall(r"URI=([^;,\"]*)", header)), ""))


def _quotes_from_the_left(header: str) -> SpiffeId:
    elements = re.findall(r'(?:"(?:\\.|[^"\\])*"|[^,"])+', header)
    uris = re.findall(r"URI=([^;,\"]*)", elements[-1] if elements else "")
    return SpiffeId.parse(uris[0] if uris else "")


@pytest.mark.parametrize(
    "read", [_first_element, _last_after_any_comma, _any_uri, _quotes_from_the_left]
)
def test_a_simpler_reader_takes_somebody_for_the_victim(read: Callable[[str], SpiffeId]) -> None:
    assert VICTIM in {found(read, header) for header in headers(1, 5_000)}
