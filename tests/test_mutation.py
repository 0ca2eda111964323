"""Takes away each rule that is finer than a row: a test that is named here must notice.

Each case rewrites one place of the package in a copy and runs one test against the copy. A place
that is no longer there fails the case, too, so the list cannot fall behind the code unseen.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutation:
    """In `module` of the domain, `rule` becomes `instead`; what matches `noticed_by` must fail."""

    name: str
    module: str
    rule: str
    instead: str
    noticed_by: str


DECISION = "test_decision.py"
EXPOSURE = "test_exposure.py"
MUTATIONS = [
    # -- who asks --
    Mutation(
        "any question",
        "decision",
        "    if question is None:\n        return Deny(Reason.QUESTION_UNKNOWN",
        "    if question is None:\n        question = Question.SIGN\n    if False:\n"
        "        return Deny(Reason.QUESTION_UNKNOWN",
        f"{DECISION}::test_a_question_that_is_none_is_denied",
    ),
    # -- sign --
    Mutation(
        "everybody passes tokens on",
        "signing",
        "if Role.TRANSIT not in case.roles or not case.facts.tokens or case.destination is None:",
        "if not case.facts.tokens:",
        f"{DECISION}::test_nobody_else_passes_a_token_on",
    ),
    Mutation(
        "everybody signs on behalf of others",
        "signing",
        "if Role.ON_BEHALF_OF not in case.roles:",
        "if False:",
        f"{DECISION}::test_nobody_else_signs_for_another_namespace",
    ),
    Mutation(
        "a token slipped in goes on in the name of another",
        "signing",
        "if Role.ON_BEHALF_OF not in case.roles:",
        "if case.facts.tokens or Role.ON_BEHALF_OF not in case.roles:",
        f"{DECISION}::test_a_hop_that_names_whom_it_sends_for_passes_no_token_on",
    ),
    Mutation(
        "the first of several namespaces counts",
        "destination",
        "(value,) = values",
        "value = (*values, '')[0]",
        f"{DECISION}::test_eventing_without_one_namespace_signs_as_itself",
    ),
    Mutation(
        "external requests keep what the client sent",
        "signing",
        "return case.allow(Ground.LEFT_THE_MESH, HeaderAction.REMOVE)",
        "return case.allow(Ground.LEFT_THE_MESH, HeaderAction.KEEP)",
        f"{DECISION}::test_sign_never_lets_a_token_leave_the_mesh",
    ),
    Mutation(
        "a cluster's name may go on",
        "names",
        "if host is None or not is_dns_name(host):\n        return None\n"
        "    for domain in cluster_domains:\n"
        '        if host.endswith(suffix := f".svc.{domain}"):\n'
        '            labels = host.removesuffix(suffix).split(".")',
        "if host is None:\n        return None\n"
        "    for domain in cluster_domains:\n"
        '        if (suffix := f".svc.{domain}") in host:\n'
        '            labels = host.partition(suffix)[0].split(".")',
        f"{DECISION}::test_a_name_for_statistics_gets_no_token_and_is_seen",
    ),
    Mutation(
        "sign by Host",
        "destination",
        "if facts.upstream is None:  # outside Istio",
        "if True:",
        f"{DECISION}::test_sign_never_lets_a_token_leave_the_mesh",
    ),
    Mutation(
        "any service is a relay",
        "destination",
        "if service is None or service not in policy.relays:",
        "if service is None:",
        f"{DECISION}::test_sign_looks_at_the_host_only_where_a_relay_does",
    ),
    Mutation(
        "no service is a relay",
        "destination",
        "service not in policy.relays:",
        "True:",
        f"{DECISION}::test_sign_looks_at_the_host_only_where_a_relay_does",
    ),
    Mutation(
        "at a gateway the Host behind a relay is believed",
        "destination",
        "if at_gateway:",
        "if False:",
        f"{DECISION}::test_public_makes_a_token_for_where_the_gateway_sends_the_request",
    ),
    Mutation(
        "short hosts are internal everywhere",
        "destination",
        "return mapped or namespace_of_host(facts.host, policy.cluster_domains)",
        "return mapped or namespace_of_relayed_host(facts.host, policy.cluster_domains, "
        "caller=facts.caller.namespace)",
        f"{DECISION}::test_outside_istio_only_hosts_that_cannot_be_public_are_signed_for",
    ),
    # -- transit --
    Mutation(
        "one header is enough for the activator",
        "destination",
        "if not (any(facts.serving_namespace) and any(facts.serving_revision)):",
        "if not any(facts.serving_namespace):",
        f"{DECISION}::test_transit_decides_as_verify_would_for_where_the_hop_will_send_it",
    ),
    Mutation(
        "the activator's headers are not looked at",
        "destination",
        "if not (any(facts.serving_namespace) and any(facts.serving_revision)):",
        "if True:",
        f"{DECISION}::test_a_forged_header_pair_does_not_open_the_activator",
    ),
    Mutation(
        "a repeated revision is believed",
        "destination",
        'if len(facts.serving_revision) > 1 or "," in facts.serving_revision[0]:',
        "if False:",
        f"{DECISION}::test_transit_denies_where_it_cannot_tell_the_destination",
    ),
    Mutation(
        "a broker's path may begin anywhere",
        "destination",
        "if found and not before else None",
        "if found else None",
        f"{DECISION}::test_transit_denies_where_it_cannot_tell_the_destination",
    ),
    Mutation(
        "tokens for any namespace count where the path decides",
        "entry",
        "return (case.facts.caller.namespace,)",
        "return case.destination, case.facts.caller.namespace",
        f"{DECISION}::test_a_hop_that_goes_by_the_path_is_where_its_tokens_are_made_for",
    ),
    Mutation(
        "tokens for the hop count on every hop",
        "entry",
        "if case.hop is Hop.CHANNEL:",
        "if case.hop is not None:",
        f"{DECISION}::test_a_token_for_the_hop_itself_counts_where_eventing_carries_it_and_nowhere_else",
    ),
    Mutation(
        "no token for the hop counts at a channel",
        "entry",
        "return case.destination, case.facts.caller.namespace",
        "return (case.destination,)",
        f"{DECISION}::test_an_event_goes_on_to_the_channel_by_the_token_that_brought_it",
    ),
    Mutation(
        "a channel is told by its Host alone",
        "destination",
        'if facts.path.partition("?")[0] == "/":',
        "if True:",
        f"{DECISION}::test_transit_decides_as_verify_would_for_where_the_hop_will_send_it",
    ),
    Mutation(
        "an activator's probe may wake pods",
        "entry",
        "each for each in _exemptions(case) if each.network_probe in ANSWERED_BY_THE_ACTIVATOR",
        "each for each in _exemptions(case)",
        f"{DECISION}::test_on_a_hop_no_probe_may_wake_a_pod",
    ),
    Mutation(
        "what the activator answers itself passes every hop",
        "entry",
        "if case.hop is not Hop.ACTIVATOR:",
        "if False:",
        f"{DECISION}::test_no_other_hop_takes_that_probe_whatever_the_policy_says",
    ),
    Mutation(
        "the autoscaler's probe is for pods",
        "policy",
        'frozenset({"probe", "activator"})',
        'frozenset({"probe"})',
        f"{DECISION}::test_the_autoscaler_may_ask_whether_the_activator_is_in_the_way",
    ),
    Mutation(
        "any probe passes the activator",
        "policy",
        'frozenset({"probe", "activator"})',
        'frozenset({"probe", "activator", "queue"})',
        f"{DECISION}::test_no_exemption_of_the_policy_counts_at_the_activator_but_for_what_it_answers_itself",
    ),
    Mutation(
        "the activator's Host may be short",
        "destination",
        "return namespace_of_full_name(facts.host, policy.cluster_domains)",
        "return namespace_of_host(facts.host, policy.cluster_domains)",
        f"{DECISION}::test_transit_denies_where_it_cannot_tell_the_destination",
    ),
    Mutation(
        "the activator's Host may end in any domain",
        "names",
        'rest.startswith("svc.") and rest.removeprefix("svc.") in cluster_domains',
        'rest.startswith("svc.")',
        f"{DECISION}::test_transit_denies_where_it_cannot_tell_the_destination",
    ),
    Mutation(
        "the activator's Host need not be a Service's",
        "names",
        'rest.startswith("svc.") and rest.removeprefix("svc.") in cluster_domains',
        'rest.rpartition("svc.")[2] in cluster_domains',
        f"{DECISION}::test_transit_denies_where_it_cannot_tell_the_destination",
    ),
    Mutation(
        "a job sink is told by the first segment",
        "destination",
        "return _by_job_sink(facts.path)",
        'return _by_path("/", facts.path)',
        f"{DECISION}::test_transit_denies_where_it_cannot_tell_the_destination",
    ),
    Mutation(
        "what a job sink is asked may begin with anything",
        "destination",
        '["", "namespaces", namespace, "name", _, "sources", _, "ids", _]',
        '["", _, namespace, _, _, _, _, _, _]',
        f"{DECISION}::test_transit_denies_where_it_cannot_tell_the_destination",
    ),
    Mutation(
        "a job sink's namespace is believed as it is written",
        "destination",
        '        case ["", namespace, _]:\n            return only_namespace((namespace,))',
        '        case ["", namespace, _]:\n            return Namespace(namespace)',
        f"{DECISION}::test_transit_denies_where_it_cannot_tell_the_destination",
    ),
    Mutation(
        "a job sink takes tokens for its own namespace's pods",
        "facts",
        "Hop.JOB_SINK, ",
        "",
        f"{DECISION}::test_a_hop_that_goes_by_the_path_is_where_its_tokens_are_made_for",
    ),
    Mutation(
        "request-reply takes tokens for its own namespace's pods",
        "facts",
        ", Hop.REQUEST_REPLY}",
        "}",
        f"{DECISION}::test_a_hop_that_goes_by_the_path_is_where_its_tokens_are_made_for",
    ),
    Mutation(
        "a grant for a port opens hops that go by the path",
        "case",
        "            case _:\n                return 0",
        "            case _:\n                return None",
        f"{DECISION}::test_a_grant_for_a_port_opens_no_hop_that_goes_by_the_path",
    ),
    Mutation(
        "no grant for a port passes a gateway",
        "case",
        "            case Hop.GATEWAY:\n                return None",
        "            case Hop.GATEWAY:\n                return 0",
        f"{DECISION}::test_at_a_gateway_a_grant_for_a_port_counts_since_the_port_is_not_known_yet",
    ),
    Mutation(
        "a grant for any port wakes pods",
        "case",
        "            case Hop.GATEWAY:\n                return None",
        "            case Hop.GATEWAY | Hop.ACTIVATOR:\n                return None",
        f"{DECISION}::test_the_activator_wakes_no_pod_whose_port_the_grant_does_not_name",
    ),
    # -- verify: peers --
    Mutation(
        "peers of any trust domain",
        "case",
        "return peer if peer.trust_domain in policy.trust_domains else None",
        "return peer",
        f"{DECISION}::test_a_peer_that_is_not_proven_is_nobody",
    ),
    Mutation(
        "role holders count as ordinary peers",
        "entry",
        "if peer is None or case.peer_roles or not case.of_tenant(peer.namespace):",
        "if peer is None or not case.of_tenant(peer.namespace):",
        f"{DECISION}::test_a_peer_with_a_role_proves_nothing_by_its_own_namespace",
    ),
    Mutation(
        "every peer is an allowed peer",
        "entry",
        "if peer is None or case.peer_roles or not case.of_tenant(peer.namespace):",
        "if peer is None or case.peer_roles:",
        f"{DECISION}::test_a_peer_of_the_same_tenant_needs_no_token",
    ),
    Mutation(
        "peers with a role take exemptions from the policy",
        "entry",
        "    if case.peer_roles:\n        return [known",
        "    if False:\n        return [known",
        f"{DECISION}::test_a_policy_cannot_exempt_a_peer_with_a_role",
    ),
    Mutation(
        "pods without queue-proxy answer probes",
        "entry",
        "if case.peer_roles and not case.facts.queue_proxy:",
        "if False:",
        f"{DECISION}::test_a_probe_that_differs_in_anything_exempts_nobody_who_passes_on",
    ),
    Mutation(
        "a probe has any method, and a body",
        "policy",
        '(self.network_probe is None or method == "GET")',
        "True",
        f"{DECISION}::test_a_probe_that_differs_in_anything_exempts_nobody_who_passes_on",
    ),
    Mutation(
        "a probe has any path",
        "policy",
        '_PROBED: Final = "/healthz"',
        "_PROBED: Final[str | None] = None",
        f"{DECISION}::test_a_probe_that_differs_in_anything_exempts_nobody_who_passes_on",
    ),
    Mutation(
        "a probe has any agent",
        "policy",
        '_probes("Knative-Ingress-Probe", "probe")',
        '_probes("", "probe")',
        f"{DECISION}::test_a_probe_that_differs_in_anything_exempts_nobody_who_passes_on",
    ),
    Mutation(
        "a probe is one by its agent",
        "policy",
        "            and self.network_probe in {None, network_probe}\n",
        "",
        f"{DECISION}::test_a_probe_that_differs_in_anything_exempts_nobody_who_passes_on",
    ),
    Mutation(
        "exempt on any port",
        "policy",
        "            self.port == port\n            and (self.path is None",
        "            (self.path is None",
        f"{DECISION}::test_every_field_of_an_exemption_must_match",
    ),
    Mutation(
        "exempt on any path",
        "policy",
        '(self.path is None or self.path == path.partition("?")[0])',
        "True",
        f"{DECISION}::test_every_field_of_an_exemption_must_match",
    ),
    Mutation(
        "exempt below a path",
        "policy",
        'self.path == path.partition("?")[0]',
        "path.startswith(self.path)",
        f"{DECISION}::test_every_field_of_an_exemption_must_match",
    ),
    Mutation(
        "exempt with any user agent",
        "policy",
        "(self.user_agent is None or user_agent.startswith(self.user_agent))",
        "True",
        f"{DECISION}::test_every_field_of_an_exemption_must_match",
    ),
    # -- verify: tokens --
    Mutation(
        "plaintext may present a token",
        "entry",
        "return case.policy.of(case.destination).plaintext_peers",
        "return True",
        f"{DECISION}::test_plaintext_counts_only_where_the_policy_lists_the_destination",
    ),
    Mutation(
        "a foreign trust domain counts as plaintext",
        "entry",
        "if case.facts.principal or case.destination is None:",
        "if case.destination is None:",
        f"{DECISION}::test_plaintext_counts_only_where_the_policy_lists_the_destination",
    ),
    Mutation(
        "anybody may present a public token",
        "entry",
        "return source != PUBLIC and (",
        "return source == PUBLIC or (",
        f"{DECISION}::test_a_public_token_is_believed_only_from_gateway_and_hops",
    ),
    Mutation(
        "a denied route keeps what the client sent",
        "case",
        "taken = question is Question.VERIFY or question is Question.PUBLIC",
        "taken = question is Question.VERIFY",
        f"{DECISION}::test_the_mode_rules_what_a_route_may_not_open_and_no_token_goes_there",
    ),
    Mutation(
        "an unlisted Service is open behind the local gateway",
        "entry",
        "if case.hop is Hop.GATEWAY:\n        return exposure",
        "if False:\n        return exposure",
        f"{DECISION}::test_a_hop_lets_the_public_to_the_services_that_are_listed",
    ),
    Mutation(
        "an event goes to a Service that is listed",
        "entry",
        'return "" if case.hop in BY_PATH else None',
        "return None",
        f"{DECISION}::test_a_hop_lets_the_public_to_the_services_that_are_listed",
    ),
    Mutation(
        "a route without an owner opens",
        "exposure",
        "return Reason.ROUTE_UNOWNED",
        "return None",
        f"{EXPOSURE}::test_a_route_that_nobody_is_known_to_own_opens_nothing",
    ),
    Mutation(
        "whose route it is does not matter",
        "exposure",
        "if owner not in policy.route_owners and not _may_open(owner, destination, policy, now):",
        "if False:",
        f"{EXPOSURE}::test_a_route_opens_nobody_else",
    ),
    Mutation(
        "the platform's routes open everybody",
        "exposure",
        "if owner not in policy.route_owners and",
        "if owner not in policy.platform and",
        f"{EXPOSURE}::test_a_route_opens_nobody_else",
    ),
    Mutation(
        "inside Istio, too, routes are the operator's",
        "exposure",
        "if facts.upstream is not None or facts.virtual_service:",
        "if facts.virtual_service:",
        f"{EXPOSURE}::test_a_route_that_nobody_is_known_to_own_opens_nothing",
    ),
    Mutation(
        "outside Istio no owner counts",
        "exposure",
        "if facts.upstream is not None or facts.virtual_service:",
        "if facts.upstream is not None:",
        f"{EXPOSURE}::test_outside_istio_routes_are_the_operators",
    ),
    Mutation(
        "anybody's name leads to anybody",
        "exposure",
        "if of_host is not None and not",
        "if False and not",
        f"{EXPOSURE}::test_a_name_that_is_somebodys_leads_to_its_owner",
    ),
    Mutation(
        "closed Services are denied by the pod alone",
        "exposure",
        "if not isinstance(accepted, bool) and not is_open(",
        "if False and not is_open(",
        f"{EXPOSURE}::test_of_a_list_only_its_services_are_open",
    ),
    Mutation(
        "what is not public is denied at the gateway, and no probe arrives",
        "exposure",
        "if not isinstance(accepted, bool) and not is_open(",
        "if not is_open(",
        f"{EXPOSURE}::test_what_is_not_public_is_denied_where_it_arrives_so_that_probes_do",
    ),
    Mutation(
        "a list names what begins alike",
        "exposure",
        'r"(.+)-[0-9]{5,}"',
        'r"(.+)-.*"',
        f"{EXPOSURE}::test_of_a_list_only_its_services_are_open",
    ),
    Mutation(
        "a relay is no Service of a list that is empty",
        "exposure",
        "return bool(accepted)",
        "return True",
        f"{EXPOSURE}::test_behind_a_relay_the_service_is_looked_at_there",
    ),
    Mutation(
        "what cannot be told is looked at elsewhere",
        "exposure",
        '        return ""\n',
        "        return None\n",
        f"{EXPOSURE}::test_outside_istio_no_service_of_a_list_is_known",
    ),
    Mutation(
        "a grant of an account or port opens routes",
        "policy",
        'grant.covers("", 0, now)',
        "(grant.until is None or now < grant.until)",
        f"{EXPOSURE}::test_a_route_opens_nobody_else",
    ),
    Mutation(
        "a grant to everybody opens routes",
        "exposure",
        "policy.granted_as_a_whole(\n        owner, destination, now\n    )",
        'policy.granted(owner, "", destination, 0, now)',
        f"{EXPOSURE}::test_a_route_opens_nobody_else",
    ),
    Mutation(
        "grants open routes for ever",
        "policy",
        'grant.covers("", 0, now)',
        'grant.covers("", 0, 0)',
        f"{EXPOSURE}::test_a_grant_opens_as_long_as_it_counts",
    ),
    Mutation(
        "the platform's own is open",
        "policy",
        "if namespace in self.platform:",
        "if False:",
        f"{EXPOSURE}::test_the_platforms_own_is_closed_at_the_gateway_unless_it_is_said",
    ),
    Mutation(
        "only what the makers call so is the platform's",
        "policy",
        '"platform", PLATFORM | known)',
        '"platform", PLATFORM)',
        f"{EXPOSURE}::test_the_platforms_own_is_closed_at_the_gateway_unless_it_is_said",
    ),
    Mutation(
        "whatever the default, namespaces are open",
        "policy",
        "return self.default_public if said is None else said",
        "return True if said is None else said",
        f"{EXPOSURE}::test_a_namespace_of_which_nothing_is_said_goes_by_the_default",
    ),
    Mutation(
        "a claim comes before a template",
        "policy",
        "for template in self.host_templates:",
        "for template in () if host in self.claims else self.host_templates:",
        f"{EXPOSURE}::test_the_list_comes_before_templates_and_these_before_claims",
    ),
    Mutation(
        "a template may leave namespaces in doubt",
        "hosts",
        'if labels.count("{{Namespace}}") != 1 or text.count(_NAMESPACE) != 1:',
        "if text.count(_NAMESPACE) != 1:",
        f"{EXPOSURE}::test_a_bad_template_is_told",
    ),
    Mutation(
        "a template may fit names of anybody",
        "hosts",
        'if "{{" in labels[-1]:',
        "if False:",
        f"{EXPOSURE}::test_a_bad_template_is_told",
    ),
    Mutation(
        "every tenant is one tenant",
        "entry",
        "if case.claims is None or not case.of_tenant(case.claims.source):",
        "if case.claims is None:",
        f"{DECISION}::test_a_token_of_the_same_tenant_lets_in_through_a_hop",
    ),
    Mutation(
        "namespaces without a tenant belong together",
        "policy",
        "return tenant is not None and tenant == self.of(other).tenant",
        "return tenant == self.of(other).tenant",
        f"{DECISION}::test_unlisted_namespaces_do_not_belong_together",
    ),
    Mutation(
        "grants are for everybody",
        "entry",
        "return case.deny(Reason.NO_GRANT)",
        "return case.let_in(Ground.GRANTED)",
        f"{DECISION}::test_a_granted_token_lets_in_through_a_hop",
    ),
    Mutation(
        "grants are for every account",
        "policy",
        "(self.service_account is None or short_account(self.service_account) == service_account)",
        "True",
        f"{DECISION}::test_a_narrow_grant_is_narrow",
    ),
    Mutation(
        "grants are for every port",
        "policy",
        "(self.port is None or port is None or self.port == port)",
        "True",
        f"{DECISION}::test_a_narrow_grant_is_narrow",
    ),
    Mutation(
        "grants are for ever",
        "policy",
        "(self.until is None or now < self.until)",
        "True",
        f"{DECISION}::test_a_narrow_grant_is_narrow",
    ),
    Mutation(
        "the app sees the token",
        "case",
        "return HeaderAction.REMOVE if taken else HeaderAction.KEEP",
        "return HeaderAction.KEEP",
        f"{DECISION}::test_a_peer_of_the_same_tenant_needs_no_token",
    ),
    # -- modes --
    Mutation(
        "shadow everywhere",
        "decision",
        "if destination is None or (mode := policy.mode_of(destination)) is Mode.ENFORCE:",
        "mode = Mode.SHADOW\n    if destination is None:",
        f"{DECISION}::test_a_peer_of_the_same_tenant_needs_no_token",
    ),
    Mutation(
        "off records, too",
        "decision",
        "denial.reason if mode is Mode.SHADOW else None",
        "denial.reason",
        f"{DECISION}::test_shadow_lets_in_and_records_what_would_have_been_denied",
    ),
    Mutation(
        "in doubt, let in",
        "decision",
        "    denial = Deny(reason, party(caller))",
        "    denial = Allow(Ground.NOT_ENFORCED, left_by(Question.VERIFY), party(caller))",
        f"{DECISION}::test_in_doubt_only_a_destination_that_enforces_nothing_lets_in",
    ),
    # -- tokens --
    Mutation(
        "any signature",
        "tokens",
        "if not hmac.compare_digest(_mac(secret, received.signed), received.mac):",
        "if False:",
        "test_tokens.py::test_vector",
    ),
    Mutation(
        "signatures compared in variable time",
        "tokens",
        "not hmac.compare_digest(_mac(secret, received.signed), received.mac)",
        "_mac(secret, received.signed) != received.mac",
        "test_tokens.py::test_macs_are_compared_in_constant_time",
    ),
    Mutation(
        "expired tokens",
        "tokens",
        "if now >= claims.expires_at:",
        "if False:",
        "test_tokens.py::test_vector",
    ),
    Mutation(
        "leeway on expiry",
        "tokens",
        "if now >= claims.expires_at:",
        "if now >= claims.expires_at + life.leeway:",
        "test_tokens.py::test_expiry_has_no_leeway_and_issue_has",
    ),
    Mutation(
        "tokens from the future",
        "tokens",
        "if claims.issued_at > now + life.leeway:",
        "if False:",
        "test_tokens.py::test_vector",
    ),
    Mutation(
        "two spellings of the claims",
        "tokens",
        'return data.decode("ascii") if _encode(data) == text else ""',
        'return data.decode("ascii")',
        "test_tokens.py::test_vector",
    ),
    Mutation(
        "tokens of any length",
        "tokens",
        "if len(token) <= MAX_LENGTH else None",
        "",
        "test_tokens.py::test_a_huge_input_is_refused_before_it_is_looked_at",
    ),
    Mutation(
        "the key id is not signed",
        "tokens",
        "hmac.digest(secret, _MAC_LABEL + signed.encode()",
        'hmac.digest(secret, _MAC_LABEL + signed.split(".", 2)[-1].encode()',
        "test_tokens.py::test_the_mac_is_what_the_documentation_says",
    ),
    Mutation(
        "anybody makes a verified token",
        "tokens",
        "if proof is not _PROOF:",
        "if False:",
        "test_tokens.py::test_only_verify_makes_a_verified_token",
    ),
    # -- keys --
    Mutation(
        "one secret for all namespaces",
        "keys",
        "(_INFO, namespace.encode(), str(key.generation).encode())",
        "(_INFO, str(key.generation).encode())",
        "test_keys.py::test_each_namespace_has_its_own_secret_on_every_replica",
    ),
    Mutation(
        "generations share a secret",
        "keys",
        "(_INFO, namespace.encode(), str(key.generation).encode())",
        "(_INFO, namespace.encode())",
        "test_keys.py::test_no_two_namespaces_or_generations_share_a_secret",
    ),
    Mutation(
        "expired roots verify",
        "keys",
        "if not root.verifies(now):",
        "if False:",
        "test_keys.py::test_rotating_the_root_denies_nobody_on_the_way",
    ),
    Mutation(
        "revoked generations verify",
        "keys",
        "if keys.previous_until == 0:",
        "if False:",
        "test_keys.py::test_revoking_a_namespace_counts_at_once_and_for_good",
    ),
    Mutation(
        "old generations verify for ever",
        "keys",
        "if key.generation < keys.generation - 1 or now >= keys.previous_until:",
        "if False:",
        "test_keys.py::test_rotating_a_namespace_changes_only_that_namespace",
    ),
    Mutation(
        "generations that were never made verify",
        "keys",
        "if key.generation > keys.generation:",
        "if False:",
        "test_keys.py::test_rotating_a_namespace_changes_only_that_namespace",
    ),
    Mutation(
        "a revoked root keeps its secret",
        "rotation",
        'RootKey(root.id, b"", root.sign_from, int(now) + life.gone_after, revoked=True)',
        "RootKey(root.id, root.secret, root.sign_from, int(now) + life.gone_after)",
        "test_keys.py::test_revoking_a_root_counts_at_once_and_leaves_a_root_that_signs",
    ),
    Mutation(
        "a planned rotation undoes an urgent one",
        "rotation",
        "elif root.sign_from > successor.sign_from:",
        "elif False:",
        "test_keys.py::test_an_urgent_rotation_is_not_undone_by_one_that_was_planned_before",
    ),
    Mutation(
        "a root that was overtaken signs",
        "keys",
        "if root.ever_signs and root.verifies(now)]",
        "if root.verifies(now)]",
        "test_keys.py::test_a_root_that_was_overtaken_never_signs",
    ),
    Mutation(
        "a pending root signs when its successor is revoked",
        "rotation",
        "roots = _succeeded(roots, now, delay=-life.leeway, life=life)",
        "roots = (*roots, _new_root(int(now)))",
        "test_keys.py::test_what_was_pending_never_signs_when_its_successor_is_revoked",
    ),
    Mutation(
        "a former root signs for clocks that run behind",
        "rotation",
        "roots = _succeeded(roots, now, delay=-life.leeway, life=life)",
        "roots = _succeeded(roots, now, delay=0, life=life)",
        "test_keys.py::test_where_the_only_signing_root_is_revoked_a_new_one_signs_by_every_clock",
    ),
    Mutation(
        "a former root signs when the signing one is revoked",
        "rotation",
        "roots = _brought_forward(roots, signing, following, now, life)",
        "pass",
        "test_keys.py::test_where_the_signing_root_is_revoked_the_next_begins_and_no_former_one",
    ),
    Mutation(
        "roots that are over are forgotten",
        "rotation",
        "keyring.gone | {root.id for root in keyring.roots} - {root.id for root in roots},",
        "keyring.gone,",
        "test_keys.py::test_ids_of_roots_are_kept_for_ever_and_their_secrets_are_not",
    ),
    Mutation(
        "keys are rotated by any clock",
        "rotation",
        "if now + life.leeway < keyring.changed_at:",
        "if False:",
        "test_keys.py::test_a_rotation_by_a_clock_that_is_behind_the_last_change_is_refused",
    ),
    Mutation(
        "revoked roots may count again",
        "succession",
        "for root in live & settled",
        "for root in ()",
        "test_keys.py::test_what_takes_something_back_is_told",
    ),
    Mutation(
        "roots may be missing",
        "succession",
        "for root in missing_roots(held, other)]",
        "for root in ()]",
        "test_keys.py::test_what_takes_something_back_is_told",
    ),
    Mutation(
        "generations may be lower",
        "succession",
        "if other.generation < held.generation:",
        "if False:",
        "test_keys.py::test_what_takes_something_back_is_told",
    ),
    Mutation(
        "revoked generations may count again",
        "succession",
        "other.generation == held.generation and other.previous_until > held.previous_until",
        "False",
        "test_keys.py::test_what_takes_something_back_is_told",
    ),
    # -- names and identities --
    Mutation(
        "hosts are lowered before they are looked at",
        "names",
        "or not host.isascii():",
        ":",
        "test_names.py::test_host_names_its_namespace_or_none",
    ),
    Mutation(
        "numbers are names",
        "names",
        "if len(labels) > 2 or _number.fullmatch(labels[-1])",
        "if len(labels) > 2",
        "test_names.py::test_host_names_its_namespace_or_none",
    ),
    Mutation(
        "a service without a name",
        "names",
        "return Namespace(namespace) if service and dot else None",
        "return Namespace(namespace)",
        "test_names.py::test_host_names_its_namespace_or_none",
    ),
    Mutation(
        "clusters of any depth",
        "names",
        "if len(labels) == 2:",
        "if len(labels) >= 2:",
        "test_names.py::test_cluster_names_its_service_or_none",
    ),
    Mutation(
        "the first XFCC element",
        "identity",
        '*_, last = _split(header, ",")',
        'last, *_ = _split(header, ",")',
        "test_identity.py::test_the_last_element_tells_the_client",
    ),
    Mutation(
        "XFCC by anybody",
        "identity",
        'if [value for key, _, value in pairs if key.lower() == "by"] != [str(own)]:',
        "if False:",
        "test_identity.py::test_a_header_that_proves_nobody_is_refused",
    ),
    Mutation(
        "XFCC with an open quotation",
        "identity",
        "    if quoted:\n        raise",
        "    if False:\n        raise",
        "test_identity.py::test_a_header_that_proves_nobody_is_refused",
    ),
    Mutation(
        "certificates with several URIs",
        "identity",
        "if len(uris) != 1:",
        "if not uris:",
        "test_identity.py::test_a_certificate_has_exactly_one_uri_name",
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_a_test_notices_when_this_rule_is_taken_away(mutation: Mutation, tmp_path: Path) -> None:
    place = Path("domain", f"{mutation.module}.py")
    source = (ROOT / "authz" / place).read_text()
    assert source.count(mutation.rule) == 1, "this rule is not there, or not only once"
    mutant = tmp_path / "authz"
    mutant.mkdir()
    for module in (ROOT / "authz").glob("*.py"):
        shutil.copy(module, mutant)
    for package in ("_proto", "domain"):
        shutil.copytree(ROOT / "authz" / package, mutant / package)
    (mutant / place).write_text(source.replace(mutation.rule, mutation.instead))

    # Bare: plugins and configuration take longer to load than a test to run.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-c", os.devnull, "--rootdir", str(ROOT)]
    command += ["-p", "no:cacheprovider", "--import-mode=importlib", "--noconftest"]
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tmp_path),
    }
    run = subprocess.run(
        [*command, str(ROOT / "tests" / mutation.noticed_by)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 1, f"nobody noticed:\n{run.stdout}{run.stderr}"
    assert "failed" in run.stdout
    assert "error" not in run.stdout.splitlines()[-1], run.stdout
