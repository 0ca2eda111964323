"""What running servers count: read from their /metrics, by way of the side port."""

import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from authz.errors import BadSettings

MAX_BYTES: Final = 16 * 1024 * 1024
"""A longer answer is refused."""
_SECONDS: Final = 10.0


@dataclass(slots=True)
class Counted:
    """Sums over all servers that were asked."""

    checks: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By question, outcome (allow, deny, shadow) and reason. Not by namespace."""
    unprotected: set[str] = field(default_factory=set)
    """Namespaces that sign and never verify, to all of the servers together."""
    undecided: set[str] = field(default_factory=set)
    """Those that one server saw sign and not verify, where another does not say whom it saw."""


def scrape(urls: list[str]) -> Counted:
    """Ask each server.

    Raises:
        BadSettings: a URL is none of HTTP, does not answer, or what it answers is no metrics.
    """
    counted = Counted()
    unverified, verified, silent = set[str](), set[str](), 0
    for url in urls:
        listed, said = set[str](), -1.0  # before 0.2 a server does not say whom it saw verify
        try:
            for family in text_string_to_metric_families(_get(url)):
                for sample in family.samples:
                    labels = sample.labels
                    if sample.name == "authz_checks_total" and sample.value:
                        key = labels["question"], labels["outcome"], labels["reason"]
                        counted.checks[key] += int(sample.value)
                    elif sample.name == "authz_namespace_unverified":
                        unverified.add(labels["namespace"])
                    elif sample.name == "authz_namespace_verified":
                        listed.add(labels["namespace"])
                    elif sample.name == "authz_verified_namespaces":
                        said = sample.value
        except (ValueError, KeyError):
            raise BadSettings([f"--metrics: {url} answers, but not with our metrics"]) from None
        verified |= listed
        silent += said != len(listed)  # or it has too many to list
    alone = len(urls) == 1
    counted.unprotected = unverified - verified if alone or not silent else set()
    counted.undecided = unverified - verified - counted.unprotected
    return counted


def _get(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise BadSettings([f"--metrics: {url!r} is not a URL: write http://<host>:<port>/metrics"])
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - HTTP, see above
            body: bytes = answer.read(MAX_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise BadSettings([f"--metrics: {url} does not answer: {error}"]) from None
    if len(body) > MAX_BYTES:
        raise BadSettings([f"--metrics: {url} answers with more than {MAX_BYTES} bytes"])
    return body.decode("utf-8", "replace")
