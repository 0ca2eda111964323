"""By which hosts the demo's apps are called."""

from __future__ import annotations


def app(namespace: str) -> str:
    """A tenant's app."""
    return f"hello.{namespace}.svc.cluster.local"


def idle(namespace: str) -> str:
    """The same app, scaled to zero: requests pass the activator."""
    return f"idle.{namespace}.svc.cluster.local"
