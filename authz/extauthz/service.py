"""The service object behind every transport: the boundary where an error becomes a denial."""

from collections.abc import Callable, Sequence

from google.protobuf.message import DecodeError

from authz._proto.ext_authz_pb2 import CheckRequest
from authz.decision import Rules, decide, decide_in_doubt
from authz.errors import Reason
from authz.extauthz.answers import answer, unavailable
from authz.extauthz.reading import Metadata, facts_of, question_of, request_id_of
from authz.identity import SpiffeId
from authz.observe import DecisionEvent, Recorder
from authz.verdict import Deny, Parties


class AuthorizationService:
    """Answers Checks by the rules that it was last given.

    `token_header` is lower-case; `clock` gives seconds since the epoch.
    """

    def __init__(
        self, *, token_header: str, clock: Callable[[], float], recorders: Sequence[Recorder]
    ) -> None:
        self._token_header = token_header
        self._clock = clock
        self._recorders = tuple(recorders)
        self.rules: Rules | None = None
        """Replaced as a whole, by whoever loads policy and keyring; `None` until both are there."""

    def check(self, request: bytes, caller: SpiffeId | None, metadata: Metadata) -> bytes:
        """Answer one serialised CheckRequest with a serialised CheckResponse.

        `caller` is who asks, as mTLS proved it; `None` if that is nobody. Never raises: what goes
        wrong is a denial.
        """
        rules = self.rules
        if rules is None:
            return unavailable(Reason.NOT_READY)
        try:
            return self._told(self._decided(request, caller, metadata, rules))
        except Exception as error:  # noqa: BLE001 - the boundary: every way out is an answer
            return self._in_doubt(error, caller, metadata, rules)

    def _decided(
        self, request: bytes, caller: SpiffeId | None, metadata: Metadata, rules: Rules
    ) -> DecisionEvent:
        question = question_of(metadata)
        if caller is None:
            return DecisionEvent(question, Deny(Reason.CALLER_UNTRUSTED, Parties()), caller, "")
        try:
            message = CheckRequest.FromString(request)
        except DecodeError:
            verdict = decide_in_doubt(Reason.REQUEST_MALFORMED, question, caller, rules.policy)
            return DecisionEvent(question, verdict, caller, "")
        facts = facts_of(message, caller, metadata, token_header=self._token_header)
        verdict = decide(question, facts, rules, self._clock())
        return DecisionEvent(question, verdict, caller, request_id_of(message))

    def _in_doubt(
        self, error: Exception, caller: SpiffeId | None, metadata: Metadata, rules: Rules
    ) -> bytes:
        try:
            for recorder in self._recorders:
                recorder.failed(error)
            question = question_of(metadata)
            verdict = decide_in_doubt(Reason.INTERNAL_ERROR, question, caller, rules.policy)
            return self._told(DecisionEvent(question, verdict, caller, ""))
        except Exception:  # noqa: BLE001 - not even that worked: say that we could not decide
            return unavailable(Reason.INTERNAL_ERROR)

    def _told(self, event: DecisionEvent) -> bytes:
        """Record first: what nobody could have seen is not let through."""
        for recorder in self._recorders:
            recorder.decided(event)
        return answer(event.verdict, token_header=self._token_header, request_id=event.request_id)
