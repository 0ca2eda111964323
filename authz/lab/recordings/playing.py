"""Makes of what istiod sent to a proxy a static bootstrap that upstream's Envoy takes.

These are all the differences between an Envoy here and the one that istiod feeds. Whatever else
istiod sends is taken over as it is; what this Envoy may not know and is not listed is an error.

    what istiod sent           what is played                       why
    -------------------------  -----------------------------------  ----------------------------
    RDS                        the route configuration, inline      nobody is there to deliver it
    EDS clusters               STATIC ones with those endpoints     the same
    SDS: default, ROOTCA,      static secrets of the same names,    the same
      gateways' credentials      files of the box's authority
    istio.metadata_exchange,   left out: filters of HTTP, of the    Istio's Envoy alone has them;
      istio.stats                network and of clusters              they tell statistics who
                                                                      the peer is
    istio.alpn                 its ALPN in the TLS contexts of      Istio's Envoy alone has it;
                                 the clusters that routes behind      see `alpn`
                                 it name
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from authz.errors import AuthzError
from authz.lab.recordings import alpn
from authz.lab.recordings.reading import Json, Sent

LEFT_OUT: Final = frozenset({"istio.metadata_exchange", "istio.stats", alpn.FILTER})
"""Filters that only Istio's Envoy has."""

_KNOWN: Final = "type.googleapis.com/envoy."
_FROM_SDS: Final = "sds_config"
_TYPE: Final = "@type"


class CannotPlay(AuthzError):
    """istiod sent what is neither upstream Envoy's nor on the list of differences."""


class Files(NamedTuple):
    """PEM files: a certificate and its key, or an authority's certificate."""

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None


Secrets: TypeAlias = Mapping[str, Files]
"""Files that stand for what SDS delivers, by the secret's name."""


def played(sent: Sent, secrets: Secrets) -> Json:
    """A bootstrap for the proxy, without an admin endpoint.

    Raises:
        CannotPlay: it has what is not on the list.
    """
    rewriting = _Rewriting(sent)
    listeners = [rewriting.listener(listener) for listener in sent.listeners]
    overrides = alpn.overrides(sent)
    clusters = [alpn.overridden(rewriting.cluster(cluster), overrides) for cluster in sent.clusters]
    named = sorted(rewriting.secrets)
    if missing := [it for it in named if it not in secrets]:
        raise CannotPlay(f"{sent.pod}: no files for the secret {missing[0]}; add it to `secrets`")
    return {
        "node": sent.node,
        "static_resources": {
            "listeners": listeners,
            "clusters": clusters,
            "secrets": [secret(name, secrets[name]) for name in named],
        },
    }


class _Rewriting:
    """Rewrites the resources of one proxy; what it returns shares nothing with them."""

    def __init__(self, sent: Sent) -> None:
        self._pod = sent.pod
        self._routes = {route["name"]: route for route in sent.routes}
        self._endpoints = {endpoint["cluster_name"]: endpoint for endpoint in sent.endpoints}
        self._where = ""
        self.secrets: set[str] = set()
        """Names of all that refer to SDS."""

    def listener(self, listener: Json) -> Json:
        """A listener; its routes come with it."""
        self._where = f"{self._pod}: listener {listener['name']}"
        result: Json = self._of(listener)
        return result

    def cluster(self, cluster: Json) -> Json:
        """A cluster; its endpoints come with it."""
        self._where = f"{self._pod}: cluster {cluster['name']}"
        result: Json = self._of(cluster)
        if result.get("type") == "EDS":
            eds = result.pop("eds_cluster_config")
            name = eds.get("service_name", result["name"])
            if name not in self._endpoints:
                raise CannotPlay(f"{self._where}: its endpoints are not recorded")
            result["type"] = "STATIC"
            result["load_assignment"] = self._of(self._endpoints[name])
        return result

    def _of(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._of(it) for it in value if not _left_out(it)]
        if not isinstance(value, dict):
            return value
        if _TYPE in value and not value[_TYPE].startswith(_KNOWN):
            raise CannotPlay(
                f"{self._where}: {value[_TYPE]} is not upstream Envoy's; say in {__name__} what is "
                "played in its place, and why"
            )
        if _FROM_SDS in value:
            self.secrets.add(value["name"])
        if "rds" in value:
            name = value["rds"]["route_config_name"]
            if name not in self._routes:
                raise CannotPlay(f"{self._where}: route configuration {name} is not recorded")
            value = {k: v for k, v in value.items() if k != "rds"}
            value["route_config"] = self._routes[name]
        return {k: self._of(v) for k, v in value.items() if k != _FROM_SDS}


def _left_out(item: Any) -> bool:
    return isinstance(item, dict) and item.get("name") in LEFT_OUT and "typed_config" in item


def secret(name: str, files: Files) -> Json:
    """A static secret, as a bootstrap has it."""
    if files.authority is not None:
        content = {"trusted_ca": {"filename": str(files.authority)}}
        return {"name": name, "validation_context": content}
    chain, key = {"filename": str(files.certificate)}, {"filename": str(files.key)}
    return {"name": name, "tls_certificate": {"certificate_chain": chain, "private_key": key}}
