"""Where in the cluster a policy may lie."""

import re
from typing import NamedTuple, Self

from authz.domain.names import LABEL, is_dns_name

_config_map = re.compile(rf"({LABEL})/(?P<name>[^/]+)/([-._a-zA-Z0-9]{{1,253}})")


class ConfigMapKey(NamedTuple):
    """A text in a ConfigMap."""

    namespace: str
    name: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `namespace/name/key`."""
        match = _config_map.fullmatch(text)
        if match is None or not is_dns_name(match["name"]):
            raise ValueError(
                "write it as NAMESPACE/NAME/KEY, such as "
                "authz-system/tenant-authz-policy/policy.yaml"
            )
        return cls(*match.groups())

    def __str__(self) -> str:
        return "/".join(self)
