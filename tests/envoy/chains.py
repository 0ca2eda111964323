"""The chains of filters that ship, by the name of what asks in them."""

from __future__ import annotations

from tests.envoy.bench import (
    BROKER,
    CHANNEL,
    FILTER,
    JOB_SINK,
    LOCAL,
    PUBLIC,
    REQUEST_REPLY,
    SIGN,
    TRANSIT,
    VERIFY,
)

TOKEN = "x-tenant-token"

CHAINS = {
    "sign": SIGN,
    "verify": VERIFY,
    "transit": TRANSIT,
    "public": PUBLIC,
    "local": LOCAL,
    "broker": BROKER,
    "trigger": FILTER,
    "channel": CHANNEL,
    "job_sink": JOB_SINK,
    "request_reply": REQUEST_REPLY,
}


def token_of(name: str) -> str:
    """The header in which a token goes on: where it would not be passed on, another one."""
    return "knative-tenant-token" if name in {"broker", "request_reply"} else TOKEN
