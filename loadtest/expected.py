"""Which answers are right. Those that were found to be right are known by their bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from struct import Struct
from typing import Final

from google.protobuf.message import DecodeError

from authz._proto.ext_authz_pb2 import CheckResponse, HeaderValueOption, StatusCode
from authz.domain import tokens
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import Namespace
from authz.domain.reason import InvalidToken
from authz.wire import TOKEN_HEADER

LIFE: Final = TokenLife()

PREFIX: Final = Struct(">BL")
"""Of gRPC's framing."""

_PERMISSION_DENIED: Final = 7  # google.rpc.Code
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


class Expected(ABC):
    """The answer that a call should have."""

    def __init__(self) -> None:
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

    @abstractmethod
    def _problem(self, answer: CheckResponse) -> str: ...


class LetIn(Expected):
    """The request may enter, without its token."""

    def _problem(self, answer: CheckResponse) -> str:
        if answer.status.code or answer.HasField("denied_response"):
            return f"denied, and should be let in: {answer.status.message}"
        changes = answer.ok_response
        right = list(changes.headers_to_remove) == [TOKEN_HEADER] and not changes.headers
        return "" if right else "let in with its token"


class Denied(Expected):
    """The request may not enter."""

    def _problem(self, answer: CheckResponse) -> str:
        right = (
            answer.status.code == _PERMISSION_DENIED
            and answer.denied_response.status.code == StatusCode.Forbidden
        )
        return "" if right else "let in, and should be denied"


class Signed(Expected):
    """The request gets a token of these two."""

    def __init__(
        self,
        source: Namespace,
        destination: Namespace,
        keys: Keys,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self._parties = source, destination
        self._keys = keys
        self._clock = clock

    def _problem(self, answer: CheckResponse) -> str:
        changes = answer.ok_response
        if answer.status.code or len(changes.headers) != 1 or changes.headers_to_remove:
            return "not signed"
        (option,) = changes.headers
        overwrites = option.append_action == HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        if option.header.key != TOKEN_HEADER or not overwrites:
            return "signed with another header"
        try:
            claims = self._keys.verify(tokens.parse(option.header.value), self._clock())
        except InvalidToken as error:
            return f"signed with a bad token: {error.reason.slug}"
        right = (claims.source, claims.destination) == self._parties
        return "" if right else "signed for others"
