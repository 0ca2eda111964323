"""The policy in force, and whether the cluster's accounts are the ones that it names."""

from __future__ import annotations

from typing import Final

from authz.check.lines import Answer, Check, Group, ok, problem, several, unread, warning
from authz.check.site import Site
from authz.check.things import Object, account, items, labels, mapping, namespace, part
from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace
from authz.domain.policy import Mode, Policy, Role
from authz.wire import MODE_LABEL

EVENTING: Final = "knative-eventing"
_PAGE: Final = "deploy/base/policy.yaml"


def _lacking(policy: Policy, pods: list[Object], *roles: Role) -> list[str]:
    """Identities of pods that lack one of these roles in any of the policy's trust domains."""
    lacking = {}
    for pod in pods:
        held: set[Role] = set()
        for domain in policy.trust_domains:
            held |= policy.roles_of(SpiffeId(domain, Namespace(namespace(pod)), account(pod)))
        if missing := [role.value for role in roles if role not in held]:
            place = f"ns/{namespace(pod)}/sa/{account(pod)}"
            lacking[place] = f"{place} lacks {' and '.join(missing)}"
    return list(lacking.values())


def _answer(site: Site, lacking: list[str], fine: str) -> Answer:
    if site.bad_policy:
        return unread("the policy cannot be used", "see the line `policy`")
    if not lacking:
        return ok(fine)
    remedy = "list spiffe://<trust domain>/<account> under these `roles` of the policy"
    return (warning if site.before else problem)(several(lacking), remedy)


async def _policy(site: Site) -> Answer:
    if site.unread_policy is not None:
        raise site.unread_policy
    if site.bad_policy:
        return problem(
            site.bad_policy, "authz policy check policy.yaml, then kubectl apply -k mine"
        )
    return ok("it can be used")


async def _gateway(site: Site) -> Answer:
    wanted = site.wanted.filter("public")
    selector = mapping(wanted, "spec", "workloadSelector", "labels")
    pods = await site.pods(namespace(wanted), **selector)
    if not pods:
        return problem("no gateway runs", "see the line `gateway`")
    lacking = _lacking(site.policy, pods, Role.GATEWAY, Role.TRANSIT)
    return _answer(site, lacking, "the gateway's account may ask public and transit")


async def _activator(site: Site) -> Answer:
    wanted = site.wanted.filter("transit")
    selector = mapping(wanted, "spec", "workloadSelector", "labels")
    pods = await site.pods(namespace(wanted), **selector)
    if not pods:
        return problem("no activator runs", "see the line `activator-sidecar`")
    lacking = _lacking(site.policy, pods, Role.TRANSIT)
    return _answer(site, lacking, "the activator's account may ask transit")


async def _eventing(site: Site) -> Answer:
    pods = [pod for pod in await site.pods(EVENTING) if account(pod)]
    asking = [
        mapping(it, "spec", "workloadSelector", "labels")
        for it in site.wanted.filters
        if namespace(it) == EVENTING and _asks_transit(it)
    ]
    hops = [it for it in pods if any(set(one.items()) <= set(labels(it).items()) for one in asking)]
    lacking = _lacking(site.policy, hops, Role.TRANSIT)
    for who, roles in site.wanted.usual.roles.items():
        if who.namespace == EVENTING:
            theirs = [it for it in pods if account(it) == who.service_account]
            lacking += _lacking(site.policy, theirs, *sorted(roles))
    return _answer(site, sorted({*lacking}), f"{len(hops)} hops of Eventing have theirs")


def _asks_transit(thing: Object) -> bool:
    return any(
        part(item, "patch", "value", "name") == "tenant-authz.transit"
        for item in items(thing, "spec", "configPatches")
    )


async def _modes(site: Site) -> Answer:
    policy = site.policy
    if site.bad_policy:
        return unread("the policy cannot be used", "see the line `policy`")
    modes = [policy.mode_of(name) for name in policy.namespaces] + [policy.default_mode]
    modes += [
        Mode.ENFORCE for it in await site.tenants() if labels(it).get(MODE_LABEL) == Mode.ENFORCE
    ]
    if Mode.ENFORCE not in modes:
        return warning(
            f"default_mode is {policy.default_mode.value}, and no namespace is enforced",
            "enforce namespace by namespace: deploy/OPERATIONS.md#from-shadow-to-enforce",
        )
    off = [str(it) for it in policy.namespaces if policy.mode_of(it) is Mode.OFF]
    if off or policy.default_mode is Mode.OFF:
        return warning(
            f"mode off: {several(off) or 'the default'}", "set them to shadow or enforce"
        )
    return ok(f"default_mode is {policy.default_mode.value}, {modes.count(Mode.ENFORCE)} enforce")


GROUP: Final = Group(
    "Policy",
    (
        Check("policy", "there is a policy", _PAGE, _policy),
        Check("gateway-roles", "the gateway's account has its roles", _PAGE, _gateway),
        Check("activator-role", "the activator's account has its role", _PAGE, _activator),
        Check("eventing-roles", "Eventing's accounts have their roles", _PAGE, _eventing),
    ),
    before=True,
)
MODES: Final = Group(
    "Modes",
    (
        Check(
            "modes",
            "namespaces are enforced",
            "deploy/OPERATIONS.md#from-shadow-to-enforce",
            _modes,
        ),
    ),
    before=False,
)
