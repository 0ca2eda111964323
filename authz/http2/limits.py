"""What one connection may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, the rest in numbers. Each has a test that shows the bound holding."""

    streams: int = 1000
    """Streams open at once. More are refused."""
    message: int = 65_536
    """Largest request message. Requests with larger ones fail."""
    header_list: int = 16_384
    """Largest header list, counted as RFC 7541 section 4.1 does. Requests with more get a 431."""
    header_block: int = 65_536
    """Largest encoded header block, if it goes on in CONTINUATION.

    More ends the connection, since nothing after it could be decoded. So where a proxy in front
    carries many clients this is more than it passes on for one (Envoy: 60 KiB)."""
    header_fields: int = 256
    """Most fields in a header block. More ends the connection, as above (Envoy passes on 100)."""
    buffered: int = 1_048_576
    """Data of requests that have not all come, over all streams. For more, the oldest goes."""
    unsent: int = 1_048_576
    """Answers that wait because the client takes none. More ends the connection."""
    credit: int = 1000
    """How many frames beyond those that requests need a client may send in a row, see `Budget`."""
    resets_cost: bool = True
    """Whether streams that are reset, by the client or by its fault, count as such frames; not
    where one connection carries many tenants."""
