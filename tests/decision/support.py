"""Questions about the small mesh, and what comes of them."""

from typing import Any

from authz.domain import tokens
from authz.domain.decision import Rules, decide
from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.reason import Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction, SetToken
from authz.testing import NOW
from tests.small_mesh import (
    ACTIVATOR,
    FOREIGN,
    GATEWAY,
    RULES,
    N,
)

PROBE: dict[str, Any] = {"port": 8012, "path": "/healthz", "method": "GET", "queue_proxy": True}
PROBES: dict[SpiffeId, dict[str, Any]] = {
    ACTIVATOR: {**PROBE, "user_agent": "Knative-Activator-Probe", "network_probe": "queue"},
    GATEWAY: {**PROBE, "user_agent": "Knative-Ingress-Probe", "network_probe": "probe"},
}
"""Each as its prober sends it."""


def ask(
    question: Question | None, caller: SpiffeId, rules: Rules = RULES, **facts: Any
) -> Allow | Deny:
    """Decide on facts of which only some are given."""
    return decide(question, Facts(caller=caller, **facts), rules, NOW)


def verify(
    destination: SpiffeId,
    peer: SpiffeId | str,
    *received: str,
    rules: Rules = RULES,
    **facts: Any,
) -> Ground | Reason:
    """Why `destination` lets a request in or not; any allow must strip the token."""
    verdict = ask(
        Question.VERIFY, destination, rules, principal=str(peer), tokens=received, **facts
    )
    if isinstance(verdict, Deny):
        return verdict.reason
    assert verdict.header is HeaderAction.REMOVE
    return verdict.ground


def signed(verdict: Allow | Deny) -> tokens.Claims | None:
    """The claims of the token that was put on; `None` if what the client sent is removed."""
    assert isinstance(verdict, Allow)
    if isinstance(verdict.header, SetToken):
        assert verdict.ground is Ground.SIGNED
        received = tokens.parse(verdict.header.token)
        return tokens.verify(received, keyring=RULES.keyring, now=NOW, life=RULES.life).claims
    assert (verdict.header, verdict.ground) == (HeaderAction.REMOVE, Ground.LEFT_THE_MESH)
    return None


def claims(source: str, destination: str, account: str = "default") -> tokens.Claims:
    """The claims of a token that is minted now."""
    now = int(NOW)
    return tokens.Claims(N(source), account, N(destination), now, now + RULES.life.seconds)


def transit(
    hop: Hop | None, *received: str, peer: SpiffeId | str = FOREIGN, **facts: Any
) -> Ground | Reason:
    """Why a hop passes a request on or not; any allow must keep the token."""
    verdict = ask(
        Question.TRANSIT, ACTIVATOR, hop=hop, principal=str(peer), tokens=received, **facts
    )
    if isinstance(verdict, Deny):
        return verdict.reason
    assert verdict.header is HeaderAction.KEEP
    return verdict.ground


def tcp(destination: SpiffeId, peer: SpiffeId | str, port: int = 5432) -> Ground | Reason:
    """Why a raw connection is let in or not."""
    verdict = ask(Question.TCP, destination, principal=str(peer), port=port)
    if isinstance(verdict, Deny):
        return verdict.reason
    assert verdict.header is HeaderAction.KEEP
    return verdict.ground
