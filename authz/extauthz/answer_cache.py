"""Answers that are given again, exactly as long as deciding anew would give the same.

An answer is kept with all the facts that the decision could look at, under the rules that it was
decided by. New rules begin with an empty cache, and so does every moment at which, under the same
rules, a key or a grant begins or ends to count. Only allows are kept, none that shadow mode has to
record, and each until its own end. Each asking namespace has its own room and evicts only itself.
"""

from typing import Final, NamedTuple

from authz.domain.decision import Rules
from authz.domain.facts import Facts, Question
from authz.domain.verdict import Allow, Deny, Ground

MAX_PER_NAMESPACE: Final = 256
MAX_ALL: Final = 24_576
MAX_TEXTS: Final = 1024
MAX_CHARACTERS: Final = 1024
"""Facts with more text than that are not worth their memory."""

Key = tuple[Question | None, Facts]


class Kept(NamedTuple):
    """A serialised answer, why it allows, and when it ends."""

    response: bytes
    ground: Ground
    until: float


class AnswerCache:
    """Answers by the rules that they were given by. Times are in seconds since the epoch."""

    def __init__(self) -> None:
        self._rules: Rules | None = None
        self._since = 0.0
        self._until = 0.0
        self._rooms: dict[tuple[str, str], dict[Key, Kept]] = {}
        self._texts: dict[str, str] = {}
        self._size = 0

    def find(self, key: Key, rules: Rules, now: float) -> Kept | None:
        """The answer for these facts, if it is still what deciding would give."""
        # A clock that is set back makes tokens of before come from the future.
        if rules is not self._rules or not self._since <= now < self._until:
            self._rooms, self._texts, self._size = {}, {}, 0
            self._rules, self._until = rules, rules.next_change(now)
        self._since = now
        room = self._rooms.get(_room_of(key))
        if room is None:
            return None
        kept = room.get(key)
        return kept if kept is not None and now < kept.until else None

    def keep(self, key: Key, response: bytes, verdict: Allow | Deny) -> None:
        """Keep an answer that was just decided, after `find` did not have it."""
        if not isinstance(verdict, Allow) or verdict.would_deny is not None:
            return
        if _characters(key[1]) > MAX_CHARACTERS:
            return
        while self._size >= MAX_ALL:  # the namespace that came first makes room for all
            self._size -= len(self._rooms.pop(next(iter(self._rooms))))
        room = self._rooms.setdefault(_room_of(key), {})
        key = self._compact(key)
        if key not in room:
            self._size += 1
            if len(room) >= MAX_PER_NAMESPACE:
                del room[next(iter(room))]
                self._size -= 1
        until = verdict.good_until
        if verdict.reuse:  # who is given it last must not keep it longer than it is good
            until = min(until, self._until) - verdict.reuse
        room[key] = Kept(response, verdict.ground, until)

    def _compact(self, key: Key) -> Key:
        """An equal key that shares with others the texts which many have in common."""
        question, facts = key
        return question, facts._replace(
            principal=self._shared(facts.principal), user_agent=self._shared(facts.user_agent)
        )

    def _shared(self, text: str) -> str:
        if len(self._texts) >= MAX_TEXTS:
            self._texts.clear()
        return self._texts.setdefault(text, text)


def _room_of(key: Key) -> tuple[str, str]:
    caller = key[1].caller
    return caller.trust_domain, caller.namespace


def _characters(facts: Facts) -> int:
    lists = facts.tokens + facts.kn_namespace + facts.serving_namespace + facts.serving_revision
    probe = facts.user_agent, facts.network_probe, facts.method
    texts = facts.host, facts.path, facts.virtual_service, *probe
    return sum(map(len, texts + lists)) + len(facts.principal) + len(facts.upstream or "")
