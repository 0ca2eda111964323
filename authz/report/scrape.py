"""What running servers count: read from their /metrics, by way of the side port."""

import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
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
    """Namespaces that sign and never verify, to any of the servers."""


def scrape(urls: list[str]) -> Counted:
    """Ask each server.

    Raises:
        BadSettings: a URL is none of HTTP, does not answer, or what it answers is no metrics.
    """
    counted = Counted()
    for url in urls:
        try:
            for family in text_string_to_metric_families(_get(url)):
                for sample in family.samples:
                    labels = sample.labels
                    if sample.name == "authz_checks_total":
                        key = labels["question"], labels["outcome"], labels["reason"]
                        counted.checks[key] += int(sample.value)
                    elif sample.name == "authz_namespace_unverified":
                        counted.unprotected.add(labels["namespace"])
        except (ValueError, KeyError):
            raise BadSettings([f"--metrics: {url} answers, but not with our metrics"]) from None
    return counted


def _get(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise BadSettings([f"--metrics: {url!r} is not a URL: write http://<host>:<port>/metrics"])
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - HTTP, see above
            body: bytes = answer.read(MAX_BYTES + 1)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise BadSettings([f"--metrics: {url} does not answer: {error}"]) from None
    if len(body) > MAX_BYTES:
        raise BadSettings([f"--metrics: {url} answers with more than {MAX_BYTES} bytes"])
    return body.decode("utf-8", "replace")
