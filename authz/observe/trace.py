"""W3C Trace Context: reads `traceparent`. What is not one is none, for anybody may send it.

Source: www.w3.org/TR/trace-context, section 3.2; opentelemetry.io/docs/specs/otel/compatibility/
logging_trace_context for the names of the fields.
"""

import re
from typing import Final

_PARENT: Final = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.{0,512})?"
)


def trace_fields(parent: str) -> dict[str, str]:
    """`trace_id`, `span_id` and `trace_flags` of a `traceparent`; empty where it is not one."""
    match = _PARENT.fullmatch(parent)
    if match is None or (match["version"] == "00" and match["more"]):
        return {}
    return {"trace_id": match["trace"], "span_id": match["span"], "trace_flags": match["flags"]}
