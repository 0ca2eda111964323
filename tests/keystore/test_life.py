"""The life of a keyring: hypothesis rotates, revokes, loses, restores, and looks for a story.

Servers follow a real store, whose records are copied and put back. Their clocks differ, some are
cut off for a while or start anew. What must hold in every story:

- What was revoked never counts again at a server that has seen the revocation, whatever is put back
  and whatever is made of it, also if somebody has stolen every key there ever was.
- What a server signs is believed until it expires, by itself and by every other, unless it was
  revoked. Servers may be cut off from the store for as long as deploy/OPERATIONS.md says.
- No token is made that outlives its key, and a root that has stopped signing never signs again.
- After `recover`, all servers that can reach the store agree.

`pytest --hypothesis-profile thorough` looks for longer.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from authz.domain import rotation, tokens
from authz.domain.keys import KeyId, Keyring, RootKey, TokenLife
from authz.domain.names import Namespace
from authz.domain.reason import InvalidToken
from authz.domain.succession import missing_roots
from authz.errors import KeyringError, KeyStoreError, NoKeyring
from authz.keystore import MemoryBackend, SealedStore, sealed, update
from authz.keystore.memory import Memory
from authz.testing import NOW
from tests.keystore.support import KEKS

LIFE = TokenLife()
DELAY = 3600
GRACE = DELAY - LIFE.leeway
"""How long a server may be cut off: the delay begins by a clock that may be ahead of its own."""
SKEW = LIFE.leeway // 2
SHOP, BANK = Namespace("shop"), Namespace("bank")

servers = st.integers(0, 2)
namespaces = st.sampled_from([SHOP, BANK])
skews = st.integers(-SKEW, SKEW)
delays = st.sampled_from([DELAY, 0])


class Numbered:
    """Makes root keys that are the same in every run: stories are told twice."""

    def __init__(self) -> None:
        self.numbers = count(1)

    def token_hex(self, _: int) -> str:
        return f"{next(self.numbers):08x}"

    def token_bytes(self, size: int) -> bytes:
        return next(self.numbers).to_bytes(size, "big")


class OnDemand(MemoryBackend):
    """Looks when it is told to."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.turns: asyncio.Queue[None] = asyncio.Queue()

    async def looks(self) -> AsyncGenerator[bytes | KeyStoreError, None]:
        while True:
            await self.turns.get()
            try:
                yield await self.read()
            except NoKeyring as error:
                yield error


@dataclass(frozen=True)
class Revoked:
    """Keys that may be denied; `counts` says whether they must be."""

    roots: frozenset[str]
    namespace: Namespace | None = None
    generation: int = 0
    counts: bool = True

    def covers(self, namespace: Namespace, key: KeyId) -> bool:
        return key.root in self.roots and (
            self.namespace is None
            or (namespace == self.namespace and key.generation <= self.generation)
        )


@dataclass(frozen=True)
class Stored:
    """A record, the line of changes that it is on, and what was revoked on this line."""

    record: bytes
    keyring: Keyring
    line: int = 0
    revoked: frozenset[Revoked] = frozenset()
    changed: float = NOW
    """When, by the latest clock of those who changed it."""


@dataclass(frozen=True)
class Token:
    """A token that must be believed."""

    text: str
    namespace: Namespace
    key: KeyId
    line: int
    number: int
    expires: int


@dataclass
class Server:
    """A server, and what the machine knows of it."""

    skew: int
    memory: Memory
    keyring: Keyring | None = None
    stored: Stored | None = None
    seen: set[Revoked] = field(default_factory=set)
    left: dict[int, int] = field(default_factory=dict)
    """The lines that it has left, in bounds, and how many tokens there were by then."""
    checked: tuple[Keyring, int] | None = None
    cut_off: bool = False
    in_bounds_until: float = inf
    """From then on, it has missed a change for longer than it may."""

    def __post_init__(self) -> None:
        self._backend = OnDemand(self.memory)
        self._reported = asyncio.Event()
        self._task = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        async for snapshot in SealedStore(self._backend, KEKS).watch(self._report):
            self.keyring = snapshot.keyring

    def _report(self, _: KeyStoreError | None) -> None:
        self._reported.set()

    async def look(self) -> None:
        self._reported.clear()
        self._backend.turns.put_nowait(None)
        await self._reported.wait()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Life(RuleBasedStateMachine):
    """One story."""

    def __init__(self) -> None:
        super().__init__()
        setattr(rotation, "secrets", Numbered())  # noqa: B010 - the fixture takes it back
        self.runner = asyncio.Runner()
        self.memory = Memory()
        self.now = NOW
        self.line_numbers = count(1)
        self.tokens: list[Token] = []
        self.signed = 0
        self.backups: list[Stored] = []
        self.revoked: set[Revoked] = set()
        self.signers: dict[int, list[str]] = {}

    def teardown(self) -> None:
        for server in getattr(self, "servers", []):
            self.runner.run(server.stop())
        self.runner.close()

    @initialize(skews=st.lists(skews, min_size=3, max_size=3))
    def begin(self, skews: list[int]) -> None:
        keyring = rotation.create(self.now)
        store = SealedStore(MemoryBackend(self.memory), KEKS)
        self.runner.run(store.compare_and_swap(None, keyring))
        assert self.memory.record is not None
        self.stored = Stored(self.memory.record, keyring)
        self.backups.append(self.stored)

        async def start() -> list[Server]:
            return [Server(skew, self.memory) for skew in skews]

        self.servers = self.runner.run(start())
        for server in self.servers:
            self.look(server)

    # -- servers -------------------------------------------------------------------------------

    def look(self, server: Server) -> None:
        self.runner.run(server.look())
        self.check_revoked(server)
        if self.memory.record is None or server.keyring != self.stored.keyring:
            return  # it goes on with what it has
        before = server.stored
        in_bounds = self.now < server.in_bounds_until
        if before is not None and before.line != self.stored.line and in_bounds:
            server.left[before.line] = self.signed
        server.stored = self.stored
        server.seen |= self.stored.revoked
        self.check_revoked(server)
        server.in_bounds_until = inf

    @rule(number=servers, namespace=namespaces)
    def sign(self, number: int, namespace: Namespace) -> None:
        server = self.servers[number]
        if server.keyring is None or server.stored is None:
            return
        clock = self.now + server.skew
        text = tokens.mint(
            source=namespace,
            service_account="default",
            destination=BANK,
            keyring=server.keyring,
            now=clock,
            life=LIFE,
        )
        received = tokens.parse(text)
        (root,) = (root for root in server.keyring.roots if root.id == received.key.root)
        expires = received.claims.expires_at
        assert root.verify_until is None or expires <= root.verify_until, "outlives its root"
        self.signed += 1
        token = Token(text, namespace, received.key, server.stored.line, self.signed, expires)
        # Whoever revoked a key need not deny it to a server that has not heard of it.
        if self.now < server.in_bounds_until and not self.may_be_denied(token):
            self.tokens.append(token)

    @rule(number=servers)
    def cut_off_or_back(self, number: int) -> None:
        server = self.servers[number]
        server.cut_off = not server.cut_off
        if not server.cut_off:
            self.look(server)

    @rule(number=servers)
    def start_anew(self, number: int) -> None:
        old = self.servers[number]
        self.runner.run(old.stop())

        async def start() -> Server:
            return Server(old.skew, self.memory)

        self.servers[number] = self.runner.run(start())
        self.look(self.servers[number])

    @rule(seconds=st.sampled_from([1, 20, 100, 400, 700, 800, 1700, DELAY, 4 * DELAY]))
    def wait(self, seconds: int) -> None:
        end = self.now + seconds
        for token in self.tokens:
            if token.expires <= end + SKEW:
                for server in self.servers:  # at the last moment at which it counts there
                    self.judge(token, server, min(end, token.expires - 1 - server.skew))
        self.now = end
        self.tokens = [token for token in self.tokens if token.expires > end + SKEW]

    # -- operators -----------------------------------------------------------------------------

    def change(
        self,
        change: Callable[[Keyring], Keyring],
        *,
        clock: float,
        grace: float = 0,
        revoked: Callable[[Keyring, Keyring], Revoked | None] = lambda _, __: None,
    ) -> None:
        before = self.stored
        store = SealedStore(MemoryBackend(self.memory), KEKS)
        try:
            snapshot = self.runner.run(update(store, change))
        except KeyringError:
            return
        taken = revoked(before.keyring, snapshot.keyring)
        fresh = frozenset() if taken is None else frozenset({taken})
        self.revoked |= fresh
        assert self.memory.record is not None
        counting = {it for it in fresh if it.counts}
        self.stored = Stored(
            self.memory.record,
            snapshot.keyring,
            before.line,
            before.revoked | counting,
            max(before.changed, clock),
        )
        for server in self.servers:
            if server.stored is not None and server.stored.line == before.line:
                server.in_bounds_until = min(server.in_bounds_until, self.now + grace)
        self.all_look()

    def all_look(self) -> None:
        for server in self.servers:
            if not server.cut_off:
                self.look(server)

    @precondition(lambda self: self.memory.record is not None)
    @rule(delay=delays, skew=skews)
    def rotate_root(self, delay: int, skew: int) -> None:
        clock = self.now + skew
        self.change(
            lambda ring: rotation.rotate_root(ring, clock, delay=delay, life=LIFE),
            clock=clock,
            grace=GRACE if delay else 0,
        )

    @precondition(lambda self: self.memory.record is not None)
    @rule(namespace=namespaces, delay=delays, skew=skews)
    def rotate_namespace(self, namespace: Namespace, delay: int, skew: int) -> None:
        clock = self.now + skew

        def cut_short(before: Keyring, after: Keyring) -> Revoked | None:
            keys = before.keys_of(namespace)
            if delay or after.keys_of(namespace).generation == keys.generation:
                return None
            return Revoked(_roots(before), namespace, keys.generation - 1, counts=False)

        self.change(
            lambda ring: rotation.rotate_namespace(ring, namespace, clock, delay=delay, life=LIFE),
            clock=clock,
            grace=GRACE if delay else 0,
            revoked=cut_short,
        )

    @precondition(lambda self: self.memory.record is not None)
    @rule(namespace=namespaces, skew=skews)
    def revoke_namespace(self, namespace: Namespace, skew: int) -> None:
        clock = self.now + skew
        self.change(
            lambda ring: rotation.revoke_namespace(ring, namespace, clock),
            clock=clock,
            revoked=lambda ring, _: Revoked(
                _roots(ring), namespace, ring.keys_of(namespace).generation
            ),
        )

    @precondition(lambda self: self.memory.record is not None)
    @rule(number=st.integers(0, 5), skew=skews)
    def revoke_root(self, number: int, skew: int) -> None:
        clock = self.now + skew
        live = [root.id for root in self.stored.keyring.roots if not root.revoked]
        root = live[-1 - number % len(live)]  # most often the newest
        self.change(
            lambda ring: rotation.revoke_root(ring, root, clock, life=LIFE),
            clock=clock,
            revoked=lambda _, __: Revoked(frozenset({root})),
        )

    @precondition(lambda self: self.memory.record is not None)
    @rule(seconds=st.integers(1, 2 * DELAY), namespace=st.none() | namespaces)
    def rotate_by_a_clock_that_is_behind(self, seconds: int, namespace: Namespace | None) -> None:
        clock = self.stored.changed - LIFE.leeway - seconds
        if namespace is None:
            self.change(
                lambda ring: rotation.rotate_root(ring, clock, delay=DELAY, life=LIFE),
                clock=clock,
                grace=GRACE,
            )
        else:
            self.change(
                lambda ring: rotation.rotate_namespace(
                    ring, namespace, clock, delay=DELAY, life=LIFE
                ),
                clock=clock,
                grace=GRACE,
            )

    # -- backups -------------------------------------------------------------------------------

    @precondition(lambda self: self.memory.record is not None)
    @rule()
    def back_up(self) -> None:
        self.backups.append(self.stored)

    @precondition(lambda self: self.memory.record is not None)
    @rule()
    def lose_the_store(self) -> None:
        self.memory.record = None
        self.all_look()

    @rule(number=st.integers(0, 20))
    def restore(self, number: int) -> None:
        copy = self.backups[-1 - number % len(self.backups)]
        self.memory.record = copy.record
        if copy.record != self.stored.record:
            self.stored = replace(copy, line=next(self.line_numbers))
        self.all_look()

    @precondition(lambda self: self.memory.record is not None)
    @rule(skew=skews)
    def recover(self, skew: int) -> None:
        clock = self.now + skew
        reached = [server for server in self.servers if not server.cut_off]
        lost = {
            root
            for server in reached
            if server.keyring is not None
            for root in missing_roots(server.keyring, self.stored.keyring)
        }
        self.change(
            lambda ring: rotation.revoke_all(ring, clock, life=LIFE, lost=lost),
            clock=clock,
            revoked=lambda ring, _: Revoked(_roots(ring) | lost),
        )
        for server in reached:
            assert server.keyring == self.stored.keyring, "not taken after recover"

    # -- what must hold ------------------------------------------------------------------------

    def may_be_denied(self, token: Token) -> bool:
        return any(revoked.covers(token.namespace, token.key) for revoked in self.revoked)

    def judge(self, token: Token, server: Server, moment: float) -> None:
        """A token that was made in good order is believed."""
        if server.keyring is None or server.stored is None or self.may_be_denied(token):
            return
        if token.line == server.stored.line:
            if moment >= server.in_bounds_until:
                return
        elif token.number > server.left.get(token.line, 0):
            return  # it never heard of that line, or had left it by then
        received, clock = tokens.parse(token.text), moment + server.skew
        if clock < token.expires:
            tokens.verify(received, keyring=server.keyring, now=clock, life=LIFE)

    @invariant()
    def what_is_good_is_believed(self) -> None:
        for server in getattr(self, "servers", ()):
            for token in self.tokens:
                self.judge(token, server, self.now)

    def check_revoked(self, server: Server) -> None:
        """What was revoked never counts again. With time alone, keys only end to count."""
        if server.keyring is None or server.checked == (server.keyring, len(server.seen)):
            return
        server.checked = server.keyring, len(server.seen)
        for revoked in server.seen:
            for namespace, key in _keys(revoked, server.keyring):
                counts = _counts(server.keyring, namespace, key, self.now + server.skew)
                assert not counts, f"{namespace}'s key {key} was revoked"

    @invariant()
    def who_has_stopped_signing_never_signs_again(self) -> None:
        if getattr(self, "stored", None) is None:
            return
        signers = self.signers.setdefault(self.stored.line, [])
        signer = self.stored.keyring.primary(self.now).id
        if not signers or signers[-1] != signer:
            assert signer not in signers, "a root that had retired signs"
            signers.append(signer)


def _roots(keyring: Keyring) -> frozenset[str]:
    return frozenset(root.id for root in keyring.roots)


def _keys(revoked: Revoked, keyring: Keyring) -> Iterator[tuple[Namespace, KeyId]]:
    for root in revoked.roots:
        if revoked.namespace is not None:
            for generation in range(revoked.generation + 1):
                yield revoked.namespace, KeyId(root, generation)
        else:
            for namespace in (SHOP, BANK):
                yield namespace, KeyId(root, 0)
                yield namespace, KeyId(root, keyring.keys_of(namespace).generation)


def _counts(keyring: Keyring, namespace: Namespace, key: KeyId, now: float) -> bool:
    try:
        keyring.verifying_secret(namespace, key, now)
    except InvalidToken:
        return False
    return True


async def _at_once(call: Callable[..., object], *args: object) -> object:
    return call(*args)


@pytest.fixture(autouse=True)
def same_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "secrets", Numbered())
    monkeypatch.setattr(asyncio, "to_thread", _at_once)


def test_nothing_revoked_ever_counts_again_and_nothing_else_is_denied() -> None:
    examples = settings().max_examples // 2
    run_state_machine_as_test(
        Life, settings=settings(max_examples=examples, stateful_step_count=40)
    )


# -- stories that attackers found ----------------------------------------------------------------

Story = Callable[[Life], None]


def tell(story: Story) -> None:
    life = Life()
    try:
        life.begin(skews=[0, SKEW, -SKEW])
        for server in (0, 1, 2):
            life.sign(number=server, namespace=SHOP)
        story(life)
        life.what_is_good_is_believed()
        life.who_has_stopped_signing_never_signs_again()
    finally:
        life.teardown()


def a_revoked_namespace_by_a_copy(life: Life) -> None:
    life.revoke_namespace(namespace=SHOP, skew=0)
    life.restore(number=0)
    life.rotate_namespace(namespace=BANK, delay=0, skew=0)
    life.revoke_namespace(namespace=BANK, skew=0)
    assert life.stored.line == 1


def a_revoked_root_by_a_copy_when_it_is_no_longer_listed(life: Life) -> None:
    life.revoke_root(number=0, skew=0)
    life.wait(seconds=4 * DELAY)
    life.rotate_root(delay=0, skew=0)
    assert [root.revoked for root in life.stored.keyring.roots] == [False, False]
    life.restore(number=0)
    for _ in range(3):
        life.revoke_namespace(namespace=BANK, skew=0)


def a_root_that_signs_by_a_copy_without_it(life: Life) -> None:
    life.rotate_root(delay=0, skew=0)
    life.wait(seconds=20)
    life.sign(number=0, namespace=SHOP)
    life.restore(number=0)
    for _ in range(3):
        life.revoke_namespace(namespace=BANK, skew=0)


BY_A_COPY: dict[str, Story] = {
    story.__name__.replace("_", " "): story
    for story in (
        a_revoked_namespace_by_a_copy,
        a_revoked_root_by_a_copy_when_it_is_no_longer_listed,
        a_root_that_signs_by_a_copy_without_it,
    )
}


@pytest.mark.parametrize("story", BY_A_COPY)
def test_a_copy_that_is_put_back_takes_nothing_back(story: str) -> None:
    tell(BY_A_COPY[story])


@pytest.mark.parametrize("story", BY_A_COPY)
def test_without_comparing_keyrings_it_does(story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "undone", lambda *_: [])
    with pytest.raises((AssertionError, InvalidToken), match=r"was revoked|does not hold"):
        tell(BY_A_COPY[story])


def test_a_copy_that_lacks_nothing_is_taken() -> None:
    def story(life: Life) -> None:
        life.rotate_namespace(namespace=SHOP, delay=DELAY, skew=0)
        life.back_up()
        life.lose_the_store()
        life.restore(number=0)
        life.rotate_root(delay=DELAY, skew=0)
        assert all(server.keyring == life.stored.keyring for server in life.servers)

    tell(story)


def test_after_recover_all_servers_agree_whatever_was_lost() -> None:
    def story(life: Life) -> None:
        life.rotate_root(delay=DELAY, skew=0)
        life.rotate_root(delay=0, skew=0)
        life.revoke_namespace(namespace=SHOP, skew=0)
        life.restore(number=0)
        life.start_anew(number=1)
        assert len({len(server.keyring.roots) for server in life.servers if server.keyring}) == 2
        life.recover(skew=0)
        assert all(server.keyring == life.stored.keyring for server in life.servers)
        life.wait(seconds=20)
        life.sign(number=0, namespace=SHOP)
        life.wait(seconds=1700)

    tell(story)


def rotated_by_a_clock_two_hours_behind(life: Life) -> None:
    life.wait(seconds=4 * DELAY)
    life.revoke_namespace(namespace=BANK, skew=0)
    life.sign(number=0, namespace=SHOP)
    life.rotate_by_a_clock_that_is_behind(seconds=2 * DELAY - LIFE.leeway, namespace=None)
    for server in (0, 1, 2):
        life.sign(number=server, namespace=SHOP)


def test_a_clock_that_is_behind_ends_no_key() -> None:
    tell(rotated_by_a_clock_two_hours_behind)


def test_without_looking_at_the_clock_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_moment", lambda _, now, __: now)
    with pytest.raises(InvalidToken, match="rotated out"):
        tell(rotated_by_a_clock_two_hours_behind)


def test_clocks_that_differ_as_they_may_are_in_nobodys_way() -> None:
    def story(life: Life) -> None:
        life.rotate_root(delay=DELAY, skew=SKEW)
        life.rotate_namespace(namespace=SHOP, delay=DELAY, skew=-SKEW)
        assert len(life.stored.keyring.roots) == 2
        assert life.stored.keyring.keys_of(SHOP).generation == 1

    tell(story)


def the_newest_root_revoked_while_two_are_pending(life: Life) -> None:
    life.rotate_root(delay=DELAY, skew=0)
    life.wait(seconds=100)
    life.rotate_root(delay=DELAY, skew=0)
    life.revoke_root(number=0, skew=0)
    life.wait(seconds=DELAY)
    life.wait(seconds=700)  # the last minutes of what was pending
    for server in (0, 1, 2):
        life.sign(number=server, namespace=SHOP)
    assert len(life.tokens) == 3
    life.wait(seconds=700)


def test_what_was_pending_when_its_successor_is_revoked_never_signs() -> None:
    tell(the_newest_root_revoked_while_two_are_pending)


def test_without_overtaking_it_its_last_tokens_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    succeeded = rotation._succeeded

    def added(
        roots: tuple[RootKey, ...], now: float, *, delay: int, life: TokenLife
    ) -> tuple[RootKey, ...]:
        if delay >= 0:
            return succeeded(roots, now, delay=delay, life=life)
        return (*roots, rotation._new_root(int(now)))

    monkeypatch.setattr(rotation, "_succeeded", added)
    with pytest.raises(AssertionError, match="outlives its root"):
        tell(the_newest_root_revoked_while_two_are_pending)
