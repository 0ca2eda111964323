"""Asks the oracle and the program, and makes a difference small."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML

from authz.domain.decision import TABLES, Rules, Tables, decide
from authz.domain.facts import Facts
from authz.domain.keys import TokenLife
from authz.domain.names import Namespace
from authz.domain.verdict import Deny, Reuse, SetToken
from authz.errors import AuthzError
from authz.policysource.file import parse_policy
from tests.oracle.kept import with_kept
from tests.oracle.oracle import Answer
from tests.oracle.policy_file import World
from tests.oracle.requests import Request, request
from tests.oracle.worlds import world

FROM_ONE_WORLD: Final = 200
"""Requests; to read a policy takes as long as to decide a hundred."""


class Asked(NamedTuple):
    """A question, and what the pages say."""

    world: World
    rules: Rules
    request: Request
    read: Answer


def asked(seed: int, count: int) -> Iterator[Asked]:
    """Questions to random worlds."""
    random = Random(seed)
    for number in range(count):
        if number % FROM_ONE_WORLD == 0:
            its = world(random)
            rules = rules_of(its)
        question = request(random, its)
        yield Asked(its, rules, question, with_kept(*question, its))


def as_yaml(world: World) -> str:
    """The policy as people write it."""
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(copy.deepcopy(dict(world.policy)), text)
    return text.getvalue()


def rules_of(world: World) -> Rules:
    """The program's reading of a world: its policy is read as a file is."""
    policy = parse_policy(as_yaml(world))
    claims = {host: Namespace(to) for host, to in world.claims.items()}
    step = world.reuse[0]
    life = TokenLife(world.token_seconds, world.leeway, max(60, 2 * step), step or 1)
    own = None if world.own is None else Namespace(world.own)
    return Rules(replace(policy, claims=claims), world.keyring, life, own, Reuse(*world.reuse))


def decided(request: Request, rules: Rules, now: float, tables: Tables = TABLES) -> Answer:
    """What the program decides, in the oracle's words."""
    try:
        verdict = decide(*request, rules, now, tables)
    except Exception as error:  # noqa: BLE001 - a difference like others
        return Answer(f"{type(error).__name__}: {error}", allowed=False, why="")
    if isinstance(verdict, Deny):
        return Answer(verdict.row, allowed=False, why=verdict.reason.slug)
    header = verdict.header
    return Answer(
        verdict.row,
        allowed=True,
        why=verdict.ground.slug,
        header=header.token if isinstance(header, SetToken) else header.value,
        would_deny=verdict.would_deny and verdict.would_deny.slug,
        kept=verdict.reuse,
    )


def difference(one: Asked, tables: Tables = TABLES) -> str:
    """Empty if both agree; otherwise the smallest world and request in which they do not."""
    if decided(one.request, one.rules, one.world.now, tables) == one.read:
        return ""
    again = True
    while again:
        again = False
        for its, question in _smaller(one.world, one.request):
            try:
                smaller = Asked(its, rules_of(its), question, with_kept(*question, its))
            except (AuthzError, ValueError, LookupError):
                continue
            if decided(question, smaller.rules, its.now, tables) != smaller.read:
                one, again = smaller, True
                break
    return _text(one, decided(one.request, one.rules, one.world.now, tables))


def _smaller(world: World, request: Request) -> Iterator[tuple[World, Request]]:
    for policy in _without_one(dict(world.policy)):
        yield world._replace(policy=policy), request
    plain = Facts(request.facts.caller)
    for field in Facts._fields:
        if getattr(request.facts, field) != (default := getattr(plain, field)):
            yield world, request._replace(facts=request.facts._replace(**{field: default}))


def _without_one(value: Any) -> Iterator[Any]:
    """The same with one thing less, anywhere in it."""
    if not isinstance(value, dict | list):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        less = copy.copy(value)
        del less[key]
        yield less
        for part in _without_one(value[key]):
            changed = copy.copy(value)
            changed[key] = part
            yield changed


def _text(one: Asked, program: Answer) -> str:
    """For people."""
    world, (question, facts) = one.world, one.request
    plain = Facts(facts.caller)._replace(caller=None)  # type: ignore[arg-type]  # so that it is told
    sent = {k: v for k, v in facts._asdict().items() if v != getattr(plain, k)}
    return "\n".join(
        [
            f"--- policy, at {world.now:.3f}",
            as_yaml(world).rstrip(),
            f"--- claims: {dict(world.claims)}, own namespace: {world.own}, reuse: {world.reuse}",
            "--- keys",
            *(f"{root}" for root in world.keyring.roots),
            *(f"{name}: {it}" for name, it in world.keyring.namespaces.items()),
            f"--- {question}",
            *(
                f"{name}: {it if isinstance(it, str | tuple) else str(it)}"
                for name, it in sent.items()
            ),
            f"--- the pages: {one.read}",
            f"--- decide:    {program}",
        ]
    )
