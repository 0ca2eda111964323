"""Names of the outside that tell their namespace, by the template that Knative makes them with."""

import re
from dataclasses import dataclass, field
from typing import Final, Self

from authz.domain.names import LABEL, Namespace, is_dns_name
from authz.errors import InvalidName

_NAMESPACE: Final = "{{.Namespace}}"
_PARTS: Final = ("{{.Name}}", "{{.Tag}}")
_STAND_IN: Final = "x"


@dataclass(frozen=True, slots=True)
class HostTemplate:
    """Such as `{{.Name}}.{{.Namespace}}.example.com`."""

    text: str
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pattern = re.escape(self.text).replace(re.escape(_NAMESPACE), f"({LABEL})")
        for part in _PARTS:
            pattern = pattern.replace(re.escape(part), "[a-z0-9-]+")
        object.__setattr__(self, "_pattern", re.compile(pattern))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a template in the form of Knative's `domain-template`, the domain written out.

        `{{.Name}}` and `{{.Tag}}` stand for a part of a label. Source: knative/serving
        config/core/configmaps/network.yaml, domain-template and tag-template.

        Raises:
            InvalidName: it is none, or would not tell one namespace from another.
        """
        labels = text.replace("{{.", "{{").split(".")
        filled = text
        for part in (_NAMESPACE, *_PARTS):
            filled = filled.replace(part, _STAND_IN)
        if not is_dns_name(filled):
            raise InvalidName(
                f"{text!r} is not a template of names: use lower-case labels joined by dots, with "
                "{{.Name}}, {{.Namespace}} and {{.Tag}} in them; write your domain for {{.Domain}}"
            )
        if labels.count("{{Namespace}}") != 1 or text.count(_NAMESPACE) != 1:
            raise InvalidName(
                f"{text!r} does not tell the namespace: {{{{.Namespace}}}} must stand in it once, "
                "as a label of its own, or one namespace could have another's names"
            )
        if "{{" in labels[-1]:
            raise InvalidName(f"{text!r} fits names of anybody: end it with a domain of yours")
        return cls(text)

    def namespace_of(self, host: str) -> Namespace | None:
        """The namespace that a host, in its normal form, is of; `None` if it does not fit."""
        match = self._pattern.fullmatch(host)
        return None if match is None else Namespace(match[1])
