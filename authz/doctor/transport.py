"""Whom a proxy trusts: TLS contexts as istiod writes them, for callers and for where calls go.

Envoy: extensions.transport_sockets.tls.v3 (tls.proto, common.proto, secret.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from authz.doctor.expected import Known
from authz.doctor.finding import Rule
from authz.doctor.shape import Odd, Shape, each, harmless, message, one_of, short

TLS: Final = "envoy.transport_sockets.tls"
_AGENT: Final = {
    "api_config_source": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
        "set_node_on_first_message_only": True,
    },
    "initial_fetch_timeout": "0s",
    "resource_api_version": "V3",
}
_ISTIOD: Final = {"ads": {}, "resource_api_version": "V3"}
_VERSIONS: Final = ("TLSv1_2", "TLSv1_3")
_CIPHERS: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
)
_ALPN: Final = harmless("filter chains are chosen by what the client offers, and each one asks")


@cache
def mutual(known: Known, rule: Rule, *, of_mesh: bool) -> Shape:
    """A DownstreamTlsContext that takes only callers with a certificate of the mesh.

    Args:
        known: what is known of the installation.
        rule: which is broken where it does not.
        of_mesh: whether the trust domain is checked here, as sidecars do; the gateway's listener
            does not, and the service decides by what the certificate says.
    """
    domains = one_of(rule, [{"prefix": f"spiffe://{domain}/"} for domain in known.trust_domains])
    names = {"match_subject_alt_names": domains} if of_mesh else {}
    common = _common(known, rule, message(rule, names, need=tuple(names), unknown=rule))
    fields = {
        "common_tls_context": common,
        "require_client_certificate": one_of(rule, True),
    }
    return message(rule, fields, need=tuple(fields), unknown=rule)


@cache
def one_way() -> Shape:
    """A DownstreamTlsContext for clients outside: nothing is concluded from whom they are."""
    common = {
        "alpn_protocols": _ALPN,
        "tls_params": _parameters(Rule.TRUST),
        "tls_certificate_sds_secret_configs": harmless("it shows a certificate for public names"),
        "combined_validation_context": harmless("clients outside have no identity of the mesh"),
        "validation_context_sds_secret_config": harmless("the same"),
        "validation_context": harmless("the same"),
    }
    fields = {
        "common_tls_context": message(Rule.TRUST, common),
        "require_client_certificate": harmless("the same"),
    }
    return message(Rule.TRUST, fields)


@cache
def upstream(known: Known, server_name: str) -> Shape:
    """An UpstreamTlsContext of the mesh: our own certificate, and whose it takes."""
    rule = Rule.CLUSTER_TRUST
    peers = {"match_subject_alt_names": each(_identity(known)), **_typed_names(known)}
    fields = {
        "common_tls_context": _common(known, rule, message(rule, peers, unknown=rule)),
        "sni": one_of(rule, server_name),
    }
    return message(rule, fields, need=("common_tls_context", "sni"), unknown=rule)


def _typed_names(known: Known) -> dict[str, Shape]:
    """As the match of alternative names is written in newer API versions."""
    kinds = {"san_type": one_of(Rule.CLUSTER_TRUST, "URI"), "matcher": _identity(known)}
    return {"match_typed_subject_alt_names": each(message(Rule.CLUSTER_TRUST, kinds))}


def _identity(known: Known) -> Shape:
    """A matcher that takes one workload's identity in our trust domain."""
    ours = tuple(f"spiffe://{domain}/ns/" for domain in known.trust_domains)

    def check(value: Any, path: str) -> Iterator[Odd]:
        exact = value.get("exact", "")
        if value.keys() != {"exact"} or not exact.startswith(ours):
            what = f"is {short(value)}, must be `exact`, an identity in {known.trust_domains[0]}"
            yield Odd(Rule.CLUSTER_TRUST, path, what)

    return check


def _common(known: Known, rule: Rule, validation: Shape) -> Shape:
    """A CommonTlsContext: certificate and roots come from Istio's agent."""
    roots = {
        "default_validation_context": validation,
        "validation_context_sds_secret_config": _secret(known, rule, "ROOTCA"),
    }
    fields = {
        "alpn_protocols": _ALPN,
        "tls_params": _parameters(rule),
        "tls_certificate_sds_secret_configs": _only(rule, _secret(known, rule, "default")),
        "combined_validation_context": message(rule, roots, need=tuple(roots), unknown=rule),
    }
    need = ("tls_certificate_sds_secret_configs", "combined_validation_context")
    return message(rule, fields, need=need, unknown=rule)


def _only(rule: Rule, shape: Shape) -> Shape:
    def check(value: Any, path: str) -> Iterator[Odd]:
        if len(value) != 1:
            yield Odd(rule, path, f"has {len(value)} items, must have one")
        yield from each(shape)(value, path)

    return check


def _secret(known: Known, rule: Rule, name: str) -> Shape:
    """A secret that Istio's agent delivers; in a box without agent, one of the bootstrap's."""
    fields = {"name": one_of(rule, name), "sds_config": one_of(rule, _AGENT, _ISTIOD)}
    need = ("name",) if known.static else ("name", "sds_config")
    return message(rule, fields, need=need, unknown=rule)


def _parameters(rule: Rule) -> Shape:
    fields = {
        "tls_minimum_protocol_version": one_of(rule, *_VERSIONS),
        "tls_maximum_protocol_version": one_of(rule, *_VERSIONS),
        "cipher_suites": each(one_of(rule, *_CIPHERS)),
        "ecdh_curves": harmless("curves that BoringSSL takes are safe"),
    }
    return message(rule, fields, unknown=rule)
