"""Which key signs now, which still verify; and rotation, told as a story."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.domain import keys
from authz.domain.keys import KeyId, Keyring, NamespaceKeys, RootKey, TokenLife
from authz.domain.names import PUBLIC, Namespace
from authz.domain.reason import InvalidToken, Reason
from authz.domain.rotation import (
    MAX_ROOTS,
    create,
    revoke_all,
    revoke_namespace,
    revoke_root,
    rotate_namespace,
    rotate_root,
)
from authz.domain.succession import missing_roots, undone
from authz.errors import ClockBehind, KeyringError
from authz.testing import NOW, root_key

A, B = Namespace("a"), Namespace("b")
LIFE = TokenLife(seconds=720, leeway=30)
DELAY = 3600


def refused(keyring: Keyring, namespace: Namespace, key: KeyId, now: float) -> Reason | None:
    """Why `key` does not verify; `None` if it does."""
    try:
        keyring.verifying_secret(namespace, key, now)
    except InvalidToken as error:
        return error.reason
    return None


def test_each_namespace_has_its_own_secret_on_every_replica() -> None:
    one, other = Keyring((root_key(),)), Keyring((root_key(),))

    assert one.signing_key(A, NOW).secret == other.signing_key(A, NOW).secret
    assert one.signing_key(A, NOW).secret != one.signing_key(B, NOW).secret
    assert one.signing_key(A, NOW).secret != one.signing_key(PUBLIC, NOW).secret


def test_secrets_are_derived_as_rfc_5869_says() -> None:
    """Written out by hand, so that another implementation can follow."""
    extracted = hmac.digest(bytes(32), bytes([1]) * 32, "sha256")
    info = b"tenant-authz namespace secret v1\0a\0" + b"7"
    expected = hmac.digest(extracted, info + b"\x01", "sha256")
    keyring = Keyring((root_key(1),), {A: NamespaceKeys(generation=7)})

    assert keyring.signing_key(A, NOW).secret == expected
    assert len(expected) == hashlib.sha256().digest_size


@given(
    st.lists(st.tuples(st.sampled_from(["a", "a1", "a-1", "b"]), st.integers(0, 12)), max_size=8)
)
def test_no_two_namespaces_or_generations_share_a_secret(pairs: list[tuple[str, int]]) -> None:
    secrets = {
        Keyring((root_key(),), {Namespace(name): NamespaceKeys(generation)})
        .signing_key(Namespace(name), NOW)
        .secret
        for name, generation in pairs
    }
    assert len(secrets) == len(set(pairs))


def test_made_up_namespaces_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_MAX_DERIVED", 3)
    keyring = Keyring((root_key(),))
    secret = keyring.signing_key(A, NOW).secret

    for number in range(10):
        keyring.signing_key(Namespace(f"n{number}"), NOW)

    assert len(keyring._derived) <= 3
    assert keyring.signing_key(A, NOW).secret == secret


def test_of_the_roots_that_have_started_the_last_signs() -> None:
    first, second, third = root_key(1), root_key(2, sign_from=100), root_key(3, sign_from=200)
    keyring = Keyring((third, first, second))

    assert keyring.primary(99) is first
    assert keyring.primary(100) is second
    assert keyring.primary(199.9) is second
    assert keyring.primary(200) is third


def test_a_clock_that_runs_behind_still_signs_with_a_key_that_all_know() -> None:
    keyring = Keyring((root_key(2, sign_from=200), root_key(1, sign_from=100)))

    assert keyring.primary(0).id == root_key(1).id


def test_neither_a_revoked_nor_an_expired_root_signs() -> None:
    revoked = RootKey("0000000a", b"", 300, revoked=True)
    expired = replace(root_key(2, sign_from=200), verify_until=250)
    keyring = Keyring((root_key(1), expired, revoked))

    assert keyring.primary(249).id == expired.id
    assert keyring.primary(250).id == root_key(1).id
    assert keyring.primary(400).id == root_key(1).id


@pytest.mark.parametrize(
    "roots",
    [
        (),
        (root_key(1), root_key(1)),
        (replace(root_key(1), verify_until=5),),
        (RootKey("0000000a", b"", 0, revoked=True),),
    ],
)
def test_a_keyring_that_could_not_go_on_is_no_keyring(roots: tuple[RootKey, ...]) -> None:
    with pytest.raises(KeyringError):
        Keyring(roots)


@pytest.mark.parametrize(
    ("name", "secret"),
    [("0000000g", bytes(32)), ("1", bytes(32)), ("00000001\n", bytes(32)), ("00000001", bytes(31))],
)
def test_a_root_has_an_id_and_256_bits(name: str, secret: bytes) -> None:
    with pytest.raises(KeyringError):
        RootKey(name, secret, 0)


def test_a_revoked_root_keeps_no_secret() -> None:
    with pytest.raises(KeyringError):
        RootKey("00000001", bytes(32), 0, revoked=True)


def test_negative_times_and_generations_are_refused() -> None:
    with pytest.raises(KeyringError):
        NamespaceKeys(generation=-1)


def test_reprs_hold_no_secret() -> None:
    keyring = Keyring((root_key(),))
    key = keyring.signing_key(A, NOW)

    for shown in (repr(keyring), repr(key), str(key), repr(keyring.roots), f"{keyring.roots[0]}"):
        assert "\\x01\\x01" not in shown
        assert repr(key.secret)[2:10] not in shown


def test_a_keyring_does_not_change_with_the_mapping_that_it_was_made_of() -> None:
    mapping = {A: NamespaceKeys(1)}
    keyring = Keyring((root_key(),), mapping)
    mapping[A] = NamespaceKeys(2)

    assert keyring.keys_of(A).generation == 1


# -- rotation, told as a story -----------------------------------------------------------------


def test_rotating_the_root_denies_nobody_on_the_way() -> None:
    """Old alone, both published, new signs, old gone: at each step every live token verifies."""
    before = create(NOW)
    after = rotate_root(before, NOW, delay=DELAY, life=LIFE)
    old, new = before.roots[0].id, after.roots[-1].id
    starts, ends = int(NOW) + DELAY, int(NOW) + DELAY + LIFE.gone_after

    assert after.primary(NOW).id == old
    assert after.primary(starts - 1).id == old
    assert after.primary(starts).id == new
    for now in (NOW, starts, ends - 1):
        assert refused(after, A, KeyId(old, 0), now) is None
        assert refused(after, A, KeyId(new, 0), now) is None
    assert refused(after, A, KeyId(old, 0), ends) is Reason.KEY_RETIRED
    assert refused(after, A, KeyId(new, 0), ends) is None
    # A replica that missed the store for the whole delay signs what the others still take.
    assert before.primary(starts - 1).id == old
    assert refused(before, A, KeyId(new, 0), starts) is Reason.KEY_UNKNOWN


def test_the_last_token_of_the_old_root_outlives_clock_differences() -> None:
    after = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    last_signed = after.roots[1].sign_from + LIFE.leeway  # by a clock that runs behind
    expires_elsewhere = last_signed + LIFE.seconds

    assert refused(after, A, KeyId(after.roots[0].id, 0), expires_elsewhere - 1) is None


def test_rotating_a_namespace_changes_only_that_namespace() -> None:
    after = rotate_namespace(create(NOW), A, NOW, delay=DELAY, life=LIFE)
    root = after.roots[0].id
    starts, ends = int(NOW) + DELAY, int(NOW) + DELAY + LIFE.gone_after

    assert after.signing_key(A, starts - 1).id == KeyId(root, 0)
    assert after.signing_key(A, starts).id == KeyId(root, 1)
    assert refused(after, A, KeyId(root, 1), NOW) is None
    assert refused(after, A, KeyId(root, 0), ends - 1) is None
    assert refused(after, A, KeyId(root, 0), ends) is Reason.KEY_RETIRED
    assert after.signing_key(B, starts).id == KeyId(root, 0)
    assert refused(after, B, KeyId(root, 0), ends) is None
    assert refused(after, B, KeyId(root, 1), NOW) is Reason.KEY_UNKNOWN


def test_a_rotation_must_finish_before_the_next_unless_it_is_urgent() -> None:
    once = rotate_namespace(create(NOW), A, NOW, delay=DELAY, life=LIFE)
    root = once.roots[0].id

    with pytest.raises(KeyringError, match="--now"):
        rotate_namespace(once, A, NOW + DELAY, delay=DELAY, life=LIFE)
    sooner = rotate_namespace(once, A, NOW + 1, delay=0, life=LIFE)
    assert sooner.signing_key(A, NOW + 1).id == KeyId(root, 1)  # it had not begun: it begins
    assert refused(sooner, A, KeyId(root, 0), NOW + LIFE.seconds) is None
    urgent = rotate_namespace(once, A, NOW + DELAY, delay=0, life=LIFE)
    assert urgent.signing_key(A, NOW + DELAY).id == KeyId(root, 2)
    assert refused(urgent, A, KeyId(root, 1), NOW + DELAY) is None
    assert refused(urgent, A, KeyId(root, 0), NOW + DELAY) is Reason.KEY_RETIRED
    finished = NOW + DELAY + LIFE.gone_after
    again = rotate_namespace(once, A, finished, delay=DELAY, life=LIFE)
    assert again.keys_of(A).generation == 2


def test_revoking_a_namespace_counts_at_once_and_for_good() -> None:
    keyring = rotate_namespace(create(NOW), A, NOW, delay=DELAY, life=LIFE)
    after = revoke_namespace(keyring, A, NOW)
    root = after.roots[0].id

    assert after.signing_key(A, NOW).id == KeyId(root, 2)
    for generation in (0, 1):
        assert refused(after, A, KeyId(root, generation), NOW) is Reason.KEY_REVOKED
    assert refused(after, B, KeyId(root, 0), NOW) is None
    # No later rotation, of either kind, brings a revoked generation back.
    later = rotate_namespace(after, A, NOW, delay=DELAY, life=LIFE)
    assert refused(later, A, KeyId(root, 2), NOW) is None
    for generation in (0, 1):
        assert refused(later, A, KeyId(root, generation), NOW) is not None
    assert refused(rotate_root(after, NOW, delay=0, life=LIFE), A, KeyId(root, 1), NOW) is not None


def test_revoking_a_root_counts_at_once_and_leaves_a_root_that_signs() -> None:
    keyring = create(NOW)
    only = keyring.roots[0].id
    after = revoke_root(keyring, only, NOW, life=LIFE)

    assert refused(after, A, KeyId(only, 0), NOW) is Reason.KEY_REVOKED
    assert after.primary(NOW).id != only
    assert after.roots[0].secret == b""


def test_revoking_the_successor_before_it_signs_makes_another() -> None:
    keyring = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    old, new = (root.id for root in keyring.roots)
    after = revoke_root(keyring, new, NOW, life=LIFE)

    for later in (NOW, NOW + DELAY, NOW + 10 * DELAY):
        assert after.primary(later).id not in {old, new}
    assert refused(after, A, KeyId(old, 0), NOW) is None
    assert refused(after, A, KeyId(new, 0), NOW) is Reason.KEY_REVOKED


def test_revoking_the_signing_root_brings_its_successor_forward() -> None:
    keyring = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    old, new = (root.id for root in keyring.roots)

    assert revoke_root(keyring, old, NOW, life=LIFE).primary(NOW).id == new


def test_there_must_be_such_a_root_to_revoke() -> None:
    fresh = create(NOW)
    revoked = revoke_root(fresh, fresh.roots[0].id, NOW, life=LIFE)

    for keys_, name in ((fresh, "00000000"), (revoked, fresh.roots[0].id)):
        with pytest.raises(KeyringError, match="there is no root key"):
            revoke_root(keys_, name, NOW, life=LIFE)


def test_spent_roots_are_dropped_and_generations_never() -> None:
    keyring = revoke_namespace(rotate_root(create(NOW), NOW, delay=0, life=LIFE), A, NOW)
    gone = NOW + LIFE.gone_after
    later = rotate_root(keyring, gone, delay=0, life=LIFE)

    assert keyring.roots[0].id not in {root.id for root in later.roots}
    assert later.keys_of(A).generation == 1


def test_there_is_an_end_to_how_many_roots_can_pile_up() -> None:
    keyring = create(NOW)
    for _ in range(MAX_ROOTS - 1):
        keyring = rotate_root(keyring, NOW, delay=DELAY, life=LIFE)
    with pytest.raises(KeyringError, match="16 root keys already"):
        rotate_root(keyring, NOW, delay=DELAY, life=LIFE)


def test_an_urgent_rotation_is_not_undone_by_one_that_was_planned_before() -> None:
    planned = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    for moment in (NOW + DELAY - 100, NOW + DELAY - 10, NOW + DELAY + 10):
        urgent = rotate_root(planned, moment, delay=0, life=LIFE)
        newest = urgent.roots[-1].id
        for later in (moment + LIFE.leeway, NOW + DELAY + 50, NOW + 10 * DELAY):
            assert urgent.primary(later).id == newest
        # Whoever has not heard of it signs as planned, and is believed.
        stale = planned.signing_key(A, NOW + DELAY + 1).id
        assert refused(urgent, A, stale, NOW + DELAY + LIFE.seconds) is None


def test_of_roots_that_start_together_the_newest_signs_and_those_before_it_never_again() -> None:
    """Also where an older one verifies for longer, as it was to sign for longer."""
    planned = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    keyring = rotate_root(planned, NOW, delay=0, life=LIFE)
    second = keyring.roots[-1].id
    again = rotate_root(keyring, NOW + 12, delay=0, life=LIFE)

    assert keyring.primary(NOW).id == again.primary(NOW).id == second
    assert again.primary(NOW + 12).id == again.roots[-1].id


def test_what_was_pending_never_signs_when_its_successor_is_revoked() -> None:
    keyring = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    keyring = rotate_root(keyring, NOW + 100, delay=DELAY, life=LIFE)
    first, pending, newest = (root.id for root in keyring.roots)
    after = revoke_root(keyring, newest, NOW + 200, life=LIFE)
    signer = after.primary(NOW + 200).id

    assert signer not in {first, pending, newest}
    for later in range(200, 3 * DELAY, 20):
        assert after.primary(NOW + later).id == signer
    # Whoever has not heard of it signs as planned, and is believed.
    assert refused(after, A, KeyId(pending, 0), NOW + DELAY + LIFE.seconds) is None


def test_a_root_that_was_overtaken_never_signs() -> None:
    """Also by a clock that runs behind, for which none has started."""
    overtaken = replace(root_key(1, sign_from=100), verify_until=100)
    keyring = Keyring((overtaken, root_key(2, sign_from=200)))

    assert {keyring.primary(now).id for now in (0, 99, 100, 300)} == {root_key(2).id}


def test_what_was_overtaken_is_not_kept_for_longer_by_further_rotations() -> None:
    planned = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    overtaken = planned.roots[1].id
    ends = []
    for _ in range(3):
        planned = rotate_root(planned, NOW + 1, delay=0, life=LIFE)
        ends += [root.verify_until for root in planned.roots if root.id == overtaken]

    assert ends == [int(NOW) + DELAY + LIFE.gone_after] * 3


def test_where_the_signing_root_is_revoked_the_next_begins_and_no_former_one() -> None:
    """By every clock, also one that runs behind."""
    keyring = rotate_root(create(NOW), NOW, delay=0, life=LIFE)
    moment = NOW + 700  # the first still verifies
    keyring = rotate_root(keyring, moment, delay=DELAY, life=LIFE)
    former, signing, following = (root.id for root in keyring.roots)
    after = revoke_root(keyring, signing, moment, life=LIFE)

    assert refused(after, A, KeyId(former, 0), moment) is None
    for later in (moment - LIFE.leeway, moment, moment + DELAY, moment + 10 * DELAY):
        assert after.primary(later).id == following


def test_where_a_root_is_revoked_that_signs_by_a_clock_that_runs_behind_the_next_begins() -> None:
    keyring = rotate_root(create(NOW), NOW + 100, delay=0, life=LIFE)
    keyring = rotate_root(keyring, NOW + 200, delay=0, life=LIFE)
    former, signing, following = (root.id for root in keyring.roots)
    behind = NOW + 200 - LIFE.leeway

    assert keyring.primary(behind).id == signing
    after = revoke_root(keyring, signing, NOW + 200, life=LIFE)
    assert after.primary(behind).id == following
    assert refused(after, A, KeyId(former, 0), behind) is None


def test_where_the_only_signing_root_is_revoked_a_new_one_signs_by_every_clock() -> None:
    keyring = rotate_root(create(NOW), NOW, delay=0, life=LIFE)
    moment = NOW + 700
    former, signing = (root.id for root in keyring.roots)
    after = revoke_root(keyring, signing, moment, life=LIFE)

    for later in (moment - LIFE.leeway, moment, moment + 79):
        assert after.primary(later).id not in {former, signing}


def test_what_signs_for_longer_since_its_successor_is_revoked_verifies_for_longer() -> None:
    keyring = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    keyring = rotate_root(keyring, NOW + 3000, delay=DELAY, life=LIFE)
    first, second, third = keyring.roots
    after = revoke_root(keyring, second.id, NOW + 3000, life=LIFE)
    last = third.sign_from + LIFE.seconds

    assert after.primary(third.sign_from - 1).id == first.id
    assert refused(after, A, KeyId(first.id, 0), last) is None


# -- going forward -----------------------------------------------------------------------------


def test_ids_of_roots_are_kept_for_ever_and_their_secrets_are_not() -> None:
    keyring = rotate_root(create(NOW), NOW, delay=0, life=LIFE)
    first = keyring.roots[0].id
    keyring = revoke_root(keyring, keyring.roots[1].id, NOW, life=LIFE)
    revoked = keyring.roots[1].id
    later = revoke_namespace(keyring, A, NOW + DELAY)

    assert later.gone == {first, revoked}
    assert len(later.roots) == 1
    assert refused(later, A, KeyId(first, 0), NOW + DELAY) is Reason.KEY_RETIRED
    assert rotate_root(later, NOW + DELAY, delay=0, life=LIFE).gone == later.gone
    with pytest.raises(KeyringError, match="same id"):
        replace(later, gone=later.gone | {later.roots[0].id})
    with pytest.raises(KeyringError, match="'1' is not 8 hexadecimal digits"):
        replace(later, gone=frozenset("1"))


def test_every_change_notes_when_it_was_made() -> None:
    changes: list[Callable[[Keyring, float], Keyring]] = [
        lambda ring, now: rotate_root(ring, now, delay=0, life=LIFE),
        lambda ring, now: rotate_namespace(ring, A, now, delay=0, life=LIFE),
        lambda ring, now: revoke_namespace(ring, A, now),
        lambda ring, now: revoke_root(ring, ring.roots[0].id, now, life=LIFE),
        lambda ring, now: revoke_all(ring, now, life=LIFE),
    ]
    keyring = create(NOW)
    for number, change in enumerate(changes):
        keyring = change(keyring, NOW + number)
        assert keyring.changed_at == NOW + number


def test_a_rotation_by_a_clock_that_is_behind_the_last_change_is_refused() -> None:
    keyring = create(NOW)
    for behind in (31, 7200):
        now = NOW - behind
        rotations: list[Callable[[], Keyring]] = [
            lambda: rotate_root(keyring, now, delay=DELAY, life=LIFE),  # noqa: B023 - at once
            lambda: rotate_namespace(keyring, A, now, delay=DELAY, life=LIFE),  # noqa: B023
        ]
        for rotate in rotations:
            with pytest.raises(ClockBehind, match=f"the clock is {behind} s before") as caught:
                rotate()
            assert (caught.value.now, caught.value.changed_at) == (now, NOW)


def test_clocks_may_differ_by_the_leeway_and_time_does_not_go_back() -> None:
    after = rotate_root(create(NOW), NOW - LIFE.leeway, delay=DELAY, life=LIFE)

    assert after.changed_at == NOW
    assert after.roots[1].sign_from == NOW + DELAY


def test_no_clock_is_in_the_way_of_a_revocation() -> None:
    for behind in (0, 7200, 10**9):
        keyring = create(NOW)
        root = keyring.roots[0].id
        for after in (
            revoke_root(keyring, root, NOW - behind, life=LIFE),
            revoke_all(keyring, NOW - behind, life=LIFE),
        ):
            assert refused(after, A, KeyId(root, 0), NOW) is Reason.KEY_REVOKED
            assert after.primary(NOW).id != root
            assert after.changed_at == NOW
        assert revoke_namespace(keyring, A, NOW - behind).keys_of(A).generation == 1


def test_a_keyring_without_the_time_of_its_last_change_is_changed_by_any_clock() -> None:
    before = Keyring((root_key(),))

    assert rotate_root(before, NOW, delay=0, life=LIFE).changed_at == NOW


def test_revoking_all_leaves_nothing_that_counts_and_a_root_that_signs() -> None:
    keyring = rotate_root(create(NOW), NOW, delay=DELAY, life=LIFE)
    keyring = revoke_root(keyring, keyring.roots[0].id, NOW, life=LIFE)
    after = revoke_all(keyring, NOW, life=LIFE, lost=["0000000a", keyring.roots[0].id])

    for root in keyring.roots:
        assert refused(after, A, KeyId(root.id, 0), NOW) is Reason.KEY_REVOKED
    assert refused(after, A, KeyId("0000000a", 0), NOW) is Reason.KEY_RETIRED
    assert after.primary(NOW) is after.primary(NOW - LIFE.leeway) is after.roots[-1]
    with pytest.raises(KeyringError, match="'lost' is not 8 hexadecimal digits"):
        revoke_all(keyring, NOW, life=LIFE, lost=["lost"])


def changed(keyring: Keyring, *namespaces: tuple[Namespace, NamespaceKeys]) -> Keyring:
    return replace(keyring, namespaces=dict(namespaces), changed_at=1)


ONE = Keyring((root_key(1),), changed_at=1)
TWO = Keyring((root_key(1), root_key(2)), changed_at=1)
DEAD = RootKey("00000001", b"", 0, 5, revoked=True)


@pytest.mark.parametrize(
    ("held", "other", "problem"),
    [
        (replace(TWO, roots=(DEAD, root_key(2))), TWO, "root key 00000001 counts"),
        (replace(ONE, roots=(root_key(2),), gone=frozenset({DEAD.id})), TWO, "00000001 counts"),
        (TWO, ONE, "root key 00000002 is missing"),
        (replace(TWO, roots=(root_key(1), replace(DEAD, id="00000002"))), ONE, "2 is missing"),
        (replace(ONE, gone=frozenset({"0000000a"})), ONE, "root key 0000000a is missing"),
        (replace(ONE, gone=frozenset({"0000000a"})), Keyring(ONE.roots), "0000000a is missing"),
        (TWO, create(NOW), "root key 00000001 is missing"),
        (Keyring(TWO.roots), Keyring(ONE.roots), "root key 00000002 is missing"),
        (Keyring(ONE.roots), Keyring((root_key(2),)), "root key 00000001 is missing"),
        (changed(ONE, (A, NamespaceKeys(2))), ONE, "namespace a is at generation 0, and was at 2"),
        (
            changed(ONE, (A, NamespaceKeys(2))),
            changed(ONE, (A, NamespaceKeys(2, 10, 20))),
            "namespace a: generation 1 counts, though it was revoked",
        ),
        (
            changed(ONE, (A, NamespaceKeys(2, 10, 20))),
            changed(ONE, (A, NamespaceKeys(2, 10, 21))),
            "namespace a: generation 1 counts, though it ended earlier",
        ),
    ],
)
def test_what_takes_something_back_is_told(held: Keyring, other: Keyring, problem: str) -> None:
    assert any(problem in it for it in undone(held, other))


@pytest.mark.parametrize(
    ("held", "other"),
    [
        (ONE, ONE),
        (ONE, TWO),
        (TWO, replace(TWO, roots=(DEAD, root_key(2)))),
        (TWO, replace(ONE, roots=(root_key(2),), gone=frozenset({DEAD.id}))),
        (ONE, changed(ONE, (A, NamespaceKeys(1)))),
        (changed(ONE, (A, NamespaceKeys(2, 10, 20))), changed(ONE, (A, NamespaceKeys(2)))),
        (changed(ONE, (A, NamespaceKeys(2))), changed(ONE, (A, NamespaceKeys(3, 10, 20)))),
        # Where no root counts that was known, no generation of it does.
        (changed(ONE, (A, NamespaceKeys(2))), replace(TWO, roots=(DEAD, root_key(2)))),
        # Programs that do not note when a keyring was changed forget roots that are over.
        (Keyring((replace(root_key(1), verify_until=5), root_key(2))), Keyring((root_key(2),))),
    ],
)
def test_what_takes_nothing_back_may_follow(held: Keyring, other: Keyring) -> None:
    assert undone(held, other) == []


def test_roots_that_another_keyring_does_not_know_are_named() -> None:
    assert missing_roots(replace(TWO, gone=frozenset({"0000000a"})), ONE) == [
        "00000002",
        "0000000a",
    ]
    assert missing_roots(ONE, TWO) == []


delays = st.sampled_from([0, 1, 29, 500, DELAY])
steps = st.lists(
    st.tuples(
        st.sampled_from(["root", "a", "revoke a", "revoke root"]), st.integers(0, 5000), delays
    ),
    max_size=12,
)


@given(steps)
@example([("root", 0, DELAY), ("revoke root", 0, 0), ("root", 780, 0)])  # none has started
@example([("root", 0, 0), ("root", 0, 0), ("root", 0, DELAY)] * 2)  # three started together
def test_whatever_is_done_in_whatever_order_what_is_signed_lives_as_long_as_it_says(
    actions: list[tuple[str, int, int]],
) -> None:
    keyring, now = create(NOW), NOW
    for action, pause, delay in actions:
        now += pause
        try:
            match action:
                case "root":
                    keyring = rotate_root(keyring, now, delay=delay, life=LIFE)
                case "a":
                    keyring = rotate_namespace(keyring, A, now, delay=delay, life=LIFE)
                case "revoke a":
                    keyring = revoke_namespace(keyring, A, now)
                case _:
                    primary = keyring.primary(now).id
                    keyring = revoke_root(keyring, primary, now, life=LIFE)
        except KeyringError:
            continue
        for later in (now, now + 29, now + 500, now + DELAY, now + 10 * DELAY):
            for namespace in (A, B):
                key = keyring.signing_key(namespace, later)
                for end in (later, later + LIFE.seconds - 1):
                    assert keyring.verifying_secret(namespace, key.id, end) == key.secret


@given(steps)
def test_without_a_revocation_no_live_token_is_ever_refused(
    actions: list[tuple[str, int, int]],
) -> None:
    keyring, now = create(NOW), NOW
    signed: list[tuple[Namespace, KeyId, float]] = []
    for action, pause, delay in actions:
        now += pause
        signed += [(name, keyring.signing_key(name, now).id, now) for name in (A, B)]
        try:
            if action == "root":
                keyring = rotate_root(keyring, now, delay=delay, life=LIFE)
            elif action == "a":
                keyring = rotate_namespace(keyring, A, now, delay=max(delay, 1), life=LIFE)
        except KeyringError:
            continue
        for namespace, key, when in signed:
            if now < when + LIFE.seconds:
                assert refused(keyring, namespace, key, now) is None
