"""What the service tells of each question that it answered."""

from dataclasses import dataclass
from typing import Protocol

from authz.domain.facts import Question
from authz.domain.identity import SpiffeId
from authz.domain.verdict import Allow, Deny, Ground


@dataclass(frozen=True, slots=True)
class DecisionEvent:
    """One question and its answer. Holds no token that was received."""

    question: Question | None
    verdict: Allow | Deny
    caller: SpiffeId | None
    request_id: str
    trace: str = ""
    """The `traceparent` that came with it, as it came."""


class Recorder(Protocol):
    """Somebody who wants to know. Called on the event loop for every Check: must not block."""

    def decided(self, event: DecisionEvent) -> None:
        """A question was answered."""

    def given_again(self, question: Question | None, ground: Ground, caller: SpiffeId) -> None:
        """An allow that was decided before, and recorded then, was given for another request."""

    def sampled(self, event: DecisionEvent) -> None:
        """An allow, which was recorded, was chosen to be shown as an example."""

    def failed(self, error: Exception) -> None:
        """Something unexpected was raised, and the answer is a denial for that reason."""
