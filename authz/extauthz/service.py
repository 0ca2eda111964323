"""The service object behind every transport: the boundary where an error becomes a denial."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError

from authz._proto.ext_authz_pb2 import CheckRequest
from authz.domain.decision import Rules, decide, decide_in_doubt
from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId
from authz.domain.reason import Reason
from authz.domain.verdict import Deny, Parties, Verdict
from authz.extauthz.answer_cache import AnswerCache
from authz.extauthz.request import Metadata, asked_of, facts_of, request_id_of
from authz.extauthz.response import answer
from authz.observe import DecisionEvent, Recorder


def is_native() -> bool:
    """Whether protobuf parses messages with compiled code (upb).

    Its wheel for any platform has none, and pip takes that where there is no better one, such as on
    musl. Python's own parser takes some 150 microseconds for a CheckRequest in place of 1.6.
    """
    return str(api_implementation.Type()) != "python"


class AuthorizationService:
    """Answers Checks by the rules that it was last given.

    `token_header` is lower-case; `clock` gives seconds since the epoch. With `direct`, who asks is
    the other end of the connection, so that a Check which a proxy passed on for somebody is denied.
    `sample` says at each allow whether recorders are shown it; `None`: never.
    """

    def __init__(
        self,
        *,
        token_header: str,
        clock: Callable[[], float],
        recorders: Sequence[Recorder],
        direct: bool = False,
        sample: Callable[[], bool] | None = None,
    ) -> None:
        self._token_header = token_header
        self._clock = clock
        self._direct = direct
        self._recorders = tuple(recorders)
        self._sample = sample
        self._cache = AnswerCache()
        self.rules: Rules | None = None
        """Replaced as a whole, by whoever loads policy and keyring; `None` until both are there."""

    def asked(self, caller: SpiffeId | None, metadata: Metadata) -> Asked:
        """Read what is the same for all Checks with these metadata. Never raises.

        `caller` is who asks, as mTLS proved it; `None` if that is nobody.
        """
        try:
            return asked_of(caller, metadata, direct=self._direct)
        except Exception as error:  # noqa: BLE001 - the boundary: a question that is none is denied
            with suppress(Exception):
                self._tell_of(error)
            return Asked(caller)

    def check(self, request: bytes, asked: Asked) -> bytes | None:
        """Answer one serialised CheckRequest with a serialised CheckResponse.

        `None` says that nothing could be decided: the transport then answers with the gRPC status
        UNAVAILABLE, and Envoy goes by its filter's failure mode. Never raises: what goes wrong is
        a denial.
        """
        rules = self.rules
        if rules is None:
            return None
        try:
            return self._answered(request, asked, rules)
        except Exception as error:  # noqa: BLE001 - the boundary: every way out is an answer
            return self._in_doubt(error, asked, rules)

    def _answered(self, request: bytes, asked: Asked, rules: Rules) -> bytes | None:
        caller = asked.caller
        if caller is None:
            return self._recorded(_denied(asked, Reason.CALLER_UNTRUSTED))
        try:
            message = CheckRequest.FromString(request)
        except DecodeError:
            verdict = decide_in_doubt(
                Reason.REQUEST_MALFORMED, asked.question, caller, rules.policy
            )
            return self._recorded(DecisionEvent(asked.question, verdict, caller, "", asked.trace))
        facts = facts_of(
            message, caller, asked, token_header=self._token_header, policy=rules.policy
        )
        key, now = (asked.question, facts), self._clock()
        kept = self._cache.find(key, rules, now)
        if kept is not None:
            for recorder in self._recorders:
                recorder.given_again(asked.question, kept.ground, caller)
            if self._sample is not None and self._sample():
                # Deciding anew gives the same, and what the log shows is not kept.
                self._show(message, asked, decide(asked.question, facts, rules, now))
            return kept.response
        verdict = decide(asked.question, facts, rules, now)
        recorded = isinstance(verdict, Deny) or verdict.would_deny is not None
        request_id = request_id_of(message) if recorded else ""  # allows are counted, not logged
        event = DecisionEvent(asked.question, verdict, caller, request_id, asked.trace)
        response = self._recorded(event)
        if not recorded and self._sample is not None and self._sample():
            self._show(message, asked, verdict)
        if response is not None:
            self._cache.keep(key, response, verdict)
        return response

    def _in_doubt(self, error: Exception, asked: Asked, rules: Rules) -> bytes | None:
        try:
            self._tell_of(error)
            verdict = decide_in_doubt(
                Reason.INTERNAL_ERROR, asked.question, asked.caller, rules.policy
            )
            event = DecisionEvent(asked.question, verdict, asked.caller, "", asked.trace)
            return self._recorded(event)
        except Exception:  # noqa: BLE001 - not even that worked: say that we could not decide
            return None

    def _show(self, message: CheckRequest, asked: Asked, verdict: Verdict) -> None:
        event = DecisionEvent(
            asked.question, verdict, asked.caller, request_id_of(message), asked.trace
        )
        for recorder in self._recorders:
            recorder.sampled(event)

    def _recorded(self, event: DecisionEvent) -> bytes | None:
        """Record first: what nobody could have seen is not let through."""
        self._record(event)
        return answer(event.verdict, token_header=self._token_header, request_id=event.request_id)

    def _record(self, event: DecisionEvent) -> None:
        for recorder in self._recorders:
            recorder.decided(event)

    def _tell_of(self, error: Exception) -> None:
        for recorder in self._recorders:
            recorder.failed(error)


def _denied(asked: Asked, reason: Reason) -> DecisionEvent:
    return DecisionEvent(asked.question, Deny(reason, Parties()), asked.caller, "", asked.trace)
