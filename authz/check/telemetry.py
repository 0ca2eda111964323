"""What the servers say of themselves: certificate, keys, policy, whom they never saw verify.

Read from each server's metrics by way of the API server (`pods/proxy`). Where that may not reach
the pods, as the shipped NetworkPolicy has it on many networks, by `pods/portforward`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from authz.check.lines import Answer, Check, Group, ok, problem, several, warning
from authz.check.site import PODS, Site
from authz.check.things import containers, full_name, items, name, part
from authz.check.workload import servers
from authz.kube import KubeError
from authz.kube.forward import get_from_pod

Values = Mapping[str, list[float]]
"""A metric's values at one server; of a label `what` or `version`, as `name what`."""

CERTIFICATE_SECONDS: Final = 3600
OLD_SECONDS: Final = 300
"""As the alerts have them."""
_AT_MOST: Final = 20
_LONGEST: Final = 16 << 20
_SECONDS: Final = 15.0
_BUILD: Final = "authz_build_info "
_ALERTS: Final = "deploy/observability/README.md"


async def told(site: Site) -> Sequence[Values]:
    """What each server's metrics say; of many servers, the first twenty's.

    Raises:
        KubeError: a server's metrics cannot be read.
    """
    if site.told is None:
        try:
            site.told = await _read(site)
        except KubeError as error:
            site.told = error
    if isinstance(site.told, KubeError):
        raise site.told
    return site.told


async def _read(site: Site) -> Sequence[Values]:
    pods = sorted(await servers(site), key=name)[:_AT_MOST]
    if not pods:
        raise KubeError("no server runs, so none tells")
    found: list[Values] = []
    for pod in pods:
        text = await _metrics(site, pod)
        found.append(_counted(text.decode("utf-8", "replace"), full_name(pod)))
    return found


async def _metrics(site: Site, pod: dict[str, object]) -> bytes:
    port, home = _side_port(pod), site.wanted.home
    try:
        where = replace(PODS, namespace=home, name=name(pod))
        return await site.server.page(where, port, "metrics")
    except KubeError as refused:
        place = (home, name(pod), port, "/metrics")
        try:
            return await get_from_pod(site.server, *place, longest=_LONGEST, seconds=_SECONDS)
        except KubeError as error:
            raise KubeError(f"{refused}; by port-forward: {error}", status=error.status) from None


def _side_port(pod: dict[str, object]) -> int:
    for one in containers(pod):
        for item in items(one, "ports"):
            if part(item, "name") == "http-metrics":
                return int(part(item, "containerPort"))
    return 9001


def _counted(text: str, pod: str) -> Values:
    found: defaultdict[str, list[float]] = defaultdict(list)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                what = sample.labels.get("what") or sample.labels.get("version", "")
                found[f"{sample.name} {what}".rstrip()].append(sample.value)
    except (ValueError, KeyError):
        raise KubeError(f"{pod} does not answer with metrics on its side port") from None
    return found


async def _of(site: Site, metric: str) -> list[float]:
    """A metric's values at all servers that were asked; one that lacks it is not made up for."""
    each = [it.get(metric, []) for it in await told(site)]
    values = [value for it in each for value in it]
    if not all(each) or any(map(math.isnan, values)):
        raise KubeError(f"a server tells no {metric}: it has none yet, or is of another version")
    return values


async def _asked(site: Site) -> str:
    """What an `ok` says where not all servers were asked."""
    number = len(await servers(site))
    return f"; {_AT_MOST} of {number:,} servers were asked" if number > _AT_MOST else ""


def _behind_a_sidecar(pod: dict[str, object]) -> bool:
    """Whether a server leaves TLS to its sidecar, as deploy/overlays/xfcc has it."""
    identity = {"name": "AUTHZ_IDENTITY", "value": "xfcc"}
    return any(identity in items(container, "env") for container in containers(pod))


async def _certificate(site: Site) -> Answer:
    pods = await servers(site)
    if pods and all(map(_behind_a_sidecar, pods)):
        return ok("their sidecars have them (identity: xfcc)")
    left = min(await _of(site, "authz_certificate_expires_seconds"))
    if left < CERTIFICATE_SECONDS:
        return problem(
            f"one expires in {left:,.0f} s, or did",
            "see the log of istio-proxy in the server's pod, and whether istiod signs",
        )
    return ok(f"good for {left / 3600:,.0f} h or more{await _asked(site)}")


async def _keys(site: Site) -> Answer:
    if max(await _of(site, "authz_keyring_refused")) > 0:
        return problem(
            "a server refuses the stored keyring: it undoes what was settled",
            "deploy/OPERATIONS.md#back-up-and-restore",
        )
    versions = {*(await _of(site, "authz_keyring_version"))}
    if 0 in versions or min(versions) < 1:
        return problem("a server has no keyring", "kubectl apply -k mine/keys, as at the install")
    age = max(await _of(site, "authz_age_seconds keyring"))
    if age > OLD_SECONDS:
        return problem(f"the key store was last reached {age:,.0f} s ago", "see the servers' log")
    if len(versions) > 1:
        return warning(
            "servers use different keyrings", "look again in a minute; then at their log"
        )
    return ok(f"version {versions.pop():.0f}, seen {age:,.0f} s ago{await _asked(site)}")


async def _age(site: Site) -> Answer:
    age = max(await _of(site, "authz_age_seconds policy"))
    if age > OLD_SECONDS:
        return problem(
            f"the policy was last seen {age:,.0f} s ago",
            "see the servers' log: a policy that is not good is not used",
        )
    return ok(f"seen {age:,.0f} s ago{await _asked(site)}")


async def _unverified(site: Site) -> Answer:
    number = max(await _of(site, "authz_unverified_namespaces"))
    if number:
        return warning(
            f"{number:,.0f} namespaces have signed and never verified",
            "`authz doctor --cluster` finds the pods that let everybody in",
        )
    return ok(f"every namespace that signs verifies, too{await _asked(site)}")


async def _version(site: Site) -> Answer:
    each = [
        {value.partition(" ")[2] for value in values if value.startswith(_BUILD)}
        for values in await told(site)
    ]
    if not all(each):
        raise KubeError(f"a server tells no {_BUILD.strip()}: it may be of another version")
    versions = set().union(*each)
    if len(versions) > 1:
        return warning(f"several run: {several(sorted(versions))}", "wait for the rollout")
    [version] = versions
    if version != site.wanted.version:
        return warning(
            f"the servers are {version}, this program is {site.wanted.version}",
            "check with the servers' version: filters and rules are judged by this program's own",
        )
    return ok(f"{version}{await _asked(site)}")


GROUP: Final = Group(
    "Servers",
    (
        Check(
            "server-version",
            "they are this program's version",
            "deploy/README.md#upgrade",
            _version,
        ),
        Check("certificate", "their certificates are good", _ALERTS, _certificate),
        Check("keys", "they have the keys", _ALERTS, _keys),
        Check("policy-age", "they have the policy", _ALERTS, _age),
        Check("unverified", "namespaces verify", _ALERTS, _unverified),
    ),
    before=False,
)
