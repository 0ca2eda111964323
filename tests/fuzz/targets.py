"""What a fuzzer feeds: each target takes any bytes, and raises where what must hold does not."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Final

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.doctor import CannotRead, Expected, examine, read_dump
from authz.domain.facts import Question
from authz.domain.identity import SpiffeId
from authz.domain.policy import Policy, Role
from authz.domain.verdict import Allow, Ground
from authz.envoyfilters import shipped
from authz.errors import BadPolicy
from authz.extauthz import AuthorizationService
from authz.observe import DecisionEvent
from authz.policysource.file import parse_policy, parse_policy_as_json, policy_of_json
from authz.testing import ManualClock, check_request, rules, workload
from tests.doctor.proxies import PLAINTEXT, Bench
from tests.doctor.trim import small
from tests.http2 import wire
from tests.http2.programs import Checked, act
from tests.policy_text import WHOLE

FOUND = Path(__file__).parent / "found"
"""Inputs that once failed, in a folder for each target."""

_ACTIVATOR = workload("knative-serving", "activator")


def http2(data: bytes) -> None:
    """A program of frames, raw bytes, answers and passing time, for one connection.

    A step is a byte that says what, and up to four that say more, then the bytes to send.
    """
    client = Checked()
    steps = io.BytesIO(data)
    if steps.read(1) < b"\x80":
        client.step(wire.PREFACE + wire.settings())
    while head := steps.read(5):
        what, kind, flags, stream_id, size = head.ljust(5, b"\0")
        match what % 8:
            case 0:
                client.step(steps.read(size))
            case 1:
                act(client, "answer", kind)
            case 2:
                act(client, "expire", kind % 10)
            case 3:
                act(client, ("wait", "announce", "end")[kind % 3], flags % 6)
            case _:
                payload = steps.read(size)
                client.step(wire.frame(kind % 11, flags, stream_id % 16, payload))


class _Witness:
    """Takes no unexpected error, and remembers the last decision."""

    def __init__(self) -> None:
        self.last: DecisionEvent | None = None

    def decided(self, event: DecisionEvent) -> None:
        self.last = event

    def given_again(self, question: Question | None, ground: Ground, caller: SpiffeId) -> None:
        raise AssertionError("nothing was asked twice")

    def sampled(self, event: DecisionEvent) -> None:
        del event

    def failed(self, error: Exception) -> None:
        raise AssertionError("something was raised on the way") from error


def check(data: bytes) -> None:
    """A CheckRequest in any bytes, asked in every way: the answer is that of the decision."""
    witness = _Witness()
    service = AuthorizationService(
        token_header="x-tenant-token", clock=ManualClock(), recorders=[witness]
    )
    service.rules = rules(Policy(roles={_ACTIVATOR: frozenset({Role.TRANSIT})}))
    for question in ("sign", "verify", "transit", "public", "tcp", "none"):
        asked = service.asked(_ACTIVATOR, [("x-authz-question", question)])
        response = service.check(data, asked)
        assert response is not None
        assert witness.last is not None
        opens = CheckResponse.FromString(response).status.code == 0
        assert opens == isinstance(witness.last.verdict, Allow)


def policy(data: bytes) -> None:
    """A policy file in any bytes: a policy, the same by way of JSON, or a list of problems."""
    try:
        text = data.decode()
        read = parse_policy(text)
    except (UnicodeDecodeError, BadPolicy):
        return
    assert policy_of_json(parse_policy_as_json(text).encode()) == read


VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1 << 64, 0.5, "", "x", "|", "a|b|c|d", "*", "\0", [], [[]], [None], {},
    {"": {}}, {"@type": "x"}, {"name": 1}, {"value": {"value": []}},
)  # fmt: skip
"""What is put where something else stood."""


def config_dump(data: bytes) -> None:
    """What a proxy says of itself, as istiod made it and then changed anyhow: findings or an error.

    A step is two bytes that say where, one that says what to do there, and one that says with what.
    """
    steps = io.BytesIO(data)
    first = steps.read(1)
    if first < b"\x10":
        text = steps.read().decode(errors="replace")
    else:
        root = json.loads(_sound(first[0] % 3))
        while len(step := steps.read(4)) == 4:
            value = deepcopy(VALUES[step[3] % len(VALUES)])  # or it could come to stand in itself
            _change(root, int.from_bytes(step[:2]), step[2] % 4, value)
        text = json.dumps(root)
    with suppress(CannotRead):
        examine(read_dump(text, "fuzzed"), _EXPECTED)


_EXPECTED = Expected(shipped(), plaintext=PLAINTEXT)


@cache
def _sound(which: int) -> str:
    pods = ("globex/plain", "knative-serving/activator", "istio-system/gateway")
    return json.dumps(small(Bench().dump(pods[which], dynamic=True)))


def _change(root: Any, where: int, what: int, value: Any) -> None:
    """Replace, remove, repeat or rename one of all the values of `root`."""
    places = [*_places(root)]
    if not places:
        return
    inside, key = places[where % len(places)]
    match what:
        case 0:
            inside[key] = value
        case 1:
            del inside[key]
        case 2 if isinstance(inside, list):
            inside.insert(key, inside[key])
        case _ if isinstance(inside, dict):
            inside[str(value)] = inside.pop(key)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in range(len(value)) if isinstance(value, list) else [*value]:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


TARGETS: dict[str, Callable[[bytes], None]] = {
    "http2": http2,
    "check": check,
    "policy": policy,
    "config_dump": config_dump,
}


def seeds(target: str) -> Iterator[bytes]:
    """Where a fuzzer may begin."""
    if target == "check":
        yield check_request(host="a.b.svc", principal=str(_ACTIVATOR), request_id="id")
        yield check_request(headers=(("x-tenant-token", "v1.a.b"), ("kn-namespace", "shop")))
        return
    if target == "policy":
        yield from (WHOLE.encode(), b"grants:\n- {to: a, from: b, until: 2027-01-31}")
        return
    if target == "config_dump":
        yield b"\0{}"
        yield b"\x10" + b"\x01\x02\0\x03" + b"\xff\x17\1\0"
        yield b"\x11" + b"\x21\x02\2\x03" + b"\xff\x17\3\7"
        return
    block = b"\x83\x86\x04\x02/a\x0f\x10\x10application/grpc"
    yield b"\0" + _step(1, 4, 1, block) + _step(0, 1, 1, wire.framed(b"m")) + b"\1\7\0\0\0"
    yield b"\0" + _step(1, 0, 1, block[:4]) + _step(9, 4, 1, block[4:]) + b"\2\0\0\0\0"
    yield b"\0" + _step(4, 0, 0, b"\0\4\0\0\0\7") + _step(8, 0, 0, b"\0\0\0\7") + b"\3\2\0\0\0"
    yield b"\xff" + b"\0\0\0\0" + bytes((len(wire.PREFACE),)) + wire.PREFACE


def _step(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return bytes((4, kind, flags, stream_id, len(payload))) + payload
