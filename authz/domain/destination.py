"""Which namespace is a request going to?

Not where its Host says: where Envoy, or the hop that asks, will send it. `None` is the safe
answer. A token is made, and a hop passed, only for a namespace that is known.
"""

from authz.domain.facts import Facts, Hop, Question
from authz.domain.names import (
    Namespace,
    namespace_of_full_name,
    namespace_of_host,
    namespace_of_relayed_host,
    namespace_of_virtual_service,
    normal_host,
    parse_namespace,
    service_of_cluster,
)
from authz.domain.policy import Policy
from authz.errors import InvalidName


def destination_of(question: Question, facts: Facts, policy: Policy) -> Namespace | None:
    """The namespace that the question is about, `None` where it cannot be told."""
    match question:
        case Question.VERIFY | Question.TCP:
            return facts.caller.namespace
        case Question.SIGN:
            return _by_route(facts, policy, at_gateway=False)
        case Question.PUBLIC:
            return _by_route(facts, policy, at_gateway=True)
        case Question.TRANSIT:
            return _by_hop(facts, policy)


def only_namespace(values: tuple[str, ...]) -> Namespace | None:
    """The namespace that a header names, if it has one value and that is a namespace."""
    try:
        (value,) = values
        return parse_namespace(value)
    except (ValueError, InvalidName):
        return None


def _by_route(facts: Facts, policy: Policy, *, at_gateway: bool) -> Namespace | None:
    """The namespace of the upstream cluster, unless that is a relay, which looks at the Host."""
    if facts.upstream is None:  # outside Istio
        name = normal_host(facts.host)
        mapped = None if name is None else policy.hosts.get(name)
        return mapped or namespace_of_host(facts.host, policy.cluster_domains)
    service = service_of_cluster(facts.upstream, policy.cluster_domains)
    if service is None or service not in policy.relays:
        return None if service is None else service.namespace
    if at_gateway:  # a DomainMapping: the Host is any name, its route stands in the namespace
        return namespace_of_virtual_service(facts.virtual_service)
    return namespace_of_relayed_host(
        facts.host, policy.cluster_domains, caller=facts.caller.namespace
    )


def _by_hop(facts: Facts, policy: Policy) -> Namespace | None:
    match facts.hop:
        case Hop.GATEWAY:
            return _by_route(facts, policy, at_gateway=True)
        case Hop.ACTIVATOR:
            return _by_activator(facts, policy)
        case Hop.BROKER | Hop.REQUEST_REPLY:
            return _by_path("/", facts.path)
        case Hop.TRIGGER:
            return _by_path("/triggers/", facts.path)
        case Hop.CHANNEL:
            return _by_channel(facts, policy)
        case Hop.JOB_SINK:
            return _by_job_sink(facts.path)
        case None:
            return None


def _by_path(start: str, path: str) -> Namespace | None:
    """The segment of the path behind `start`."""
    before, found, rest = path.partition("?")[0].partition(start)
    return only_namespace((rest.partition("/")[0],)) if found and not before else None


def _by_channel(facts: Facts, policy: Policy) -> Namespace | None:
    """Eventing's dispatcher believes the path, and the Host only if the path is `/`.

    On every port, though Eventing itself uses paths with TLS only (knative/eventing
    pkg/channel/multichannelfanout: ServeHTTP).
    """
    if facts.path.partition("?")[0] == "/":
        return namespace_of_host(facts.host, policy.cluster_domains)
    return _by_path("/", facts.path)


def _by_job_sink(path: str) -> Namespace | None:
    """Events go to `/<namespace>/<sink>`; a longer path asks what became of one.

    The job sink goes by the number of segments and looks at none of the words between (knative/
    eventing cmd/jobsink/main.go: ServeHTTP, parseLocation), nor takes a query for one.
    """
    match path.removesuffix("/").split("/"):
        case ["", namespace, _]:
            return only_namespace((namespace,))
        case ["", "namespaces", namespace, "name", _, "sources", _, "ids", _]:
            return only_namespace((namespace,))
        case _:
            return None


def _by_activator(facts: Facts, policy: Policy) -> Namespace | None:
    """Knative's activator believes its two headers if both are set, else the Host.

    Of a repeated header it takes the first value. To guess with it would be to trust a client. Of
    the Host it takes `<revision>.<namespace>.svc.<cluster domain>` and no shorter form: it answers
    404 to those, with or without us (knative/serving pkg/activator/handler/context_handler.go).
    """
    if not (any(facts.serving_namespace) and any(facts.serving_revision)):
        return namespace_of_full_name(facts.host, policy.cluster_domains)
    if len(facts.serving_revision) > 1 or "," in facts.serving_revision[0]:
        return None
    return only_namespace(facts.serving_namespace)
