"""Which answers are right. Those that were found to be right are known by their bytes."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from google.protobuf.message import DecodeError

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.domain import tokens
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import Namespace
from authz.domain.reason import InvalidToken
from authz.testing import Outcome, token_set

LIFE: Final = TokenLife()

PREFIX: Final = Struct(">BL")
"""Of gRPC's framing."""

_MAX_KNOWN: Final = 16


class Keys:
    """The keys that answers are judged by: those of the server's store.

    `renew` reads them again, which a rotation under load makes necessary.
    """

    def __init__(self, keyring: Keyring, renew: Callable[[], Keyring] | None = None) -> None:
        self.current = keyring
        self._renew = renew

    def verify(self, received: tokens.ReceivedToken, now: float) -> tokens.Claims:
        """The claims of a token.

        Raises:
            InvalidToken: it is not good, by the newest keys.
        """
        try:
            return self._verified(received, now)
        except InvalidToken:
            if self._renew is None:
                raise
            self.current = self._renew()
            return self._verified(received, now)

    def _verified(self, received: tokens.ReceivedToken, now: float) -> tokens.Claims:
        return tokens.verify(received, keyring=self.current, now=now, life=LIFE).claims


class Expected:
    """The answer that a call should have, as an `Outcome`."""

    def __init__(self, outcome: str) -> None:
        self._outcome = outcome
        self.known: set[bytes] = set()
        """Framed messages that were found to be right."""

    def judge(self, framed: bytes) -> str:
        """What is wrong with an answer; empty if nothing is, and then it is known."""
        if len(framed) < PREFIX.size:
            return "no message"
        compressed, size = PREFIX.unpack_from(framed)
        if compressed or size != len(framed) - PREFIX.size:
            return "not one plain message"
        try:
            answer = CheckResponse.FromString(framed[PREFIX.size :])
        except DecodeError:
            return "not a CheckResponse"
        problem = self._problem(answer)
        if not problem:
            if len(self.known) >= _MAX_KNOWN:  # tokens are renewed every minute
                self.known.clear()
            self.known.add(framed)
        return problem

    def _problem(self, answer: CheckResponse) -> str:
        found = Outcome.of_check(answer)
        return "" if found == self._outcome else f"{found}, and should be {self._outcome}"


class Signed(Expected):
    """A token of these two, by keys of the server."""

    def __init__(
        self,
        source: Namespace,
        destination: Namespace,
        keys: Keys,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(f"token from {source} to {destination}")
        self._keys = keys
        self._clock = clock

    def _problem(self, answer: CheckResponse) -> str:
        if problem := super()._problem(answer):
            return problem
        try:
            self._keys.verify(tokens.parse(token_set(answer)), self._clock())
        except InvalidToken as error:
            return f"signed with a bad token: {error.reason.slug}"
        return ""
