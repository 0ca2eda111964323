"""Route configurations, kept apart from the listeners as istiod delivers them: by name, by RDS.

So EnvoyFilters see listeners as istiod's do, and proxies that see the same share the work. Envoy
gets them within its one static configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from authz.lab.box.istio.world import Json

_SEEN_BY: Final = "seen by"


@dataclass(frozen=True)
class Routes:
    """All route configurations of a mesh."""

    by_name: dict[tuple[str, str], Json] = field(default_factory=dict)
    """By who sees it, and by name."""

    def refer(self, seen_by: str, name: str, make: Callable[[], Json]) -> Json:
        """What a connection manager says of a route configuration."""
        if (seen_by, name) not in self.by_name:
            self.by_name[seen_by, name] = make()
        return {"rds": {"route_config_name": name, _SEEN_BY: seen_by}}

    def written_into(self, config: Json) -> Json:
        """The configuration, each reference replaced by what it refers to."""
        for listener in config["static_resources"]["listeners"]:
            for chain in listener["filter_chains"]:
                for network_filter in chain["filters"]:
                    manager = network_filter.get("typed_config", {})
                    if "rds" in manager:
                        rds = manager.pop("rds")
                        key = rds[_SEEN_BY], rds["route_config_name"]
                        manager["route_config"] = self.by_name[key]
        return config
