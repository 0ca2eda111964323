"""Tokens: the vectors, and what no vector can say."""

import base64
import hmac
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain import tokens
from authz.domain.identity import short_account
from authz.domain.keys import Keyring, NamespaceKeys, TokenLife
from authz.domain.names import PUBLIC, Namespace
from authz.domain.reason import InvalidToken, Reason
from authz.testing import NOW, root_key

LIFE = TokenLife()
KEYRING = Keyring((root_key(1),))
SHOP, PAYMENTS = Namespace("shop"), Namespace("payments")
VECTORS = json.loads((Path(__file__).parent / "vectors" / "tokens.json").read_text())["vectors"]

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).map(Namespace)
accounts = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", fullmatch=True) | st.just("")


def mint(source: Namespace = SHOP, destination: Namespace = PAYMENTS, **change: object) -> str:
    """A good token, but for what is changed."""
    values = {
        "source": source,
        "service_account": "default",
        "destination": destination,
        "keyring": KEYRING,
        "now": NOW,
        "life": LIFE,
        **change,
    }
    return tokens.mint(**values)  # type: ignore[arg-type]


def verify(token: str, keyring: Keyring = KEYRING, now: float = NOW) -> tokens.VerifiedToken:
    """Parse and verify."""
    return tokens.verify(tokens.parse(token), keyring=keyring, now=now, life=LIFE)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector(vector: dict[str, str | int]) -> None:
    token, now = str(vector["token"]), int(vector["now"])
    try:
        verify(token, now=now)
        said = "valid"
    except InvalidToken as error:
        said = error.reason.slug
    assert said == vector["expected"]


def test_the_vectors_tell_of_every_reason_that_one_keyring_can_give() -> None:
    expected = {vector["expected"] for vector in VECTORS}
    for reason in (
        Reason.TOKEN_MALFORMED,
        Reason.KEY_UNKNOWN,
        Reason.SIGNATURE_WRONG,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_FROM_THE_FUTURE,
    ):
        assert reason.slug in expected
    assert "valid" in expected


@given(names | st.just(PUBLIC), accounts, names)
def test_what_is_minted_verifies_and_says_what_it_was_told(
    source: Namespace, account: str, destination: Namespace
) -> None:
    token = mint(source, destination, service_account=account)
    verified = verify(token)

    assert len(token) <= tokens.MAX_LENGTH
    assert token.isascii()
    assert verified.claims == tokens.Claims(
        source, short_account(account), destination, int(NOW), int(NOW) + LIFE.seconds
    )


@given(st.integers(0, 200), st.integers(1, 127))
def test_no_byte_of_a_token_can_be_changed(position: int, change: int) -> None:
    token = mint()
    position %= len(token)
    changed = token[:position] + chr(ord(token[position]) ^ change) + token[position + 1 :]

    with pytest.raises(InvalidToken):
        verify(changed)


@given(st.text(max_size=600))
def test_no_text_is_a_token(text: str) -> None:
    for candidate in (text, f"v1.00000001-0.{text}", f"v1.{text}.{'A' * 43}"):
        with pytest.raises(InvalidToken):
            verify(candidate)


def test_the_mac_is_what_the_documentation_says() -> None:
    """Written out by hand, so that another implementation can follow."""
    token = mint()
    version, key, claims, mac = token.split(".")
    secret = KEYRING.signing_key(SHOP, NOW).secret
    expected = hmac.digest(secret, f"tenant-authz token\0v1.{key}.{claims}".encode(), "sha256")

    assert version == "v1"
    assert base64.urlsafe_b64decode(mac + "=") == expected
    assert base64.urlsafe_b64decode(claims + "==") == (
        f"shop/default/payments/{int(NOW)}/{int(NOW) + 720}".encode()
    )


def test_a_token_verifies_only_with_its_own_namespaces_key() -> None:
    for other in (SHOP, PAYMENTS, PUBLIC):
        rotated = Keyring((root_key(1),), {other: NamespaceKeys(generation=1)})
        if other == SHOP:
            with pytest.raises(InvalidToken):
                verify(mint(), rotated)
        else:
            assert verify(mint(), rotated).claims.source == SHOP


def test_a_root_of_the_same_id_and_another_secret_verifies_nothing() -> None:
    foreign = Keyring((replace(root_key(1), secret=bytes([9]) * 32),))

    with pytest.raises(InvalidToken):
        verify(mint(), foreign)


def test_macs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[object, object]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    token = mint()

    with pytest.raises(InvalidToken) as raised:
        verify(token)
    assert raised.value.reason is Reason.SIGNATURE_WRONG
    assert [other for _, other in compared] == [token.rpartition(".")[2]]


def test_only_verify_makes_a_verified_token() -> None:
    with pytest.raises(TypeError, match="only tokens"):
        tokens.VerifiedToken(tokens.parse(mint()), proof=object())


def test_a_received_token_does_not_print_what_would_let_others_use_it() -> None:
    token = mint()

    shown = repr(tokens.parse(token))
    assert token.rpartition(".")[2] not in shown
    assert token.split(".")[2] not in shown


def test_expiry_has_no_leeway_and_issue_has() -> None:
    token = mint()

    for now in (NOW + LIFE.seconds - 0.5, NOW - LIFE.leeway):
        assert verify(token, now=now).claims.source == SHOP
    for now in (NOW + LIFE.seconds, NOW - LIFE.leeway - 1):
        with pytest.raises(InvalidToken):
            verify(token, now=now)


def test_a_huge_input_is_refused_before_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("looked at")

    monkeypatch.setattr(tokens, "_decode", never)
    with pytest.raises(InvalidToken):
        tokens.parse(f"v1.00000001-0.{'A' * 1_000_000}.{'A' * 43}")
