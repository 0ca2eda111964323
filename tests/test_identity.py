"""SPIFFE IDs are read whole or not at all; of x-forwarded-client-cert only the last word counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.identity import SpiffeId, short_account, workload_of_uris, workload_of_xfcc
from authz.domain.names import Namespace
from authz.errors import InvalidIdentity
from authz.testing import workload

OWN = workload("authz-system", "authz")
A = workload("a")


def test_a_spiffe_id_reads_as_it_was_written() -> None:
    uri = "spiffe://cluster.local/ns/shop/sa/checkout.v2"

    assert SpiffeId.parse(uri) == SpiffeId("cluster.local", Namespace("shop"), "checkout.v2")
    assert str(SpiffeId.parse(uri)) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://cluster.local/ns/shop/sa/x\n",
        " spiffe://cluster.local/ns/shop/sa/x",
        "SPIFFE://cluster.local/ns/shop/sa/x",
        "spiffe://Cluster.local/ns/shop/sa/x",
        "spiffe:///ns/shop/sa/x",
        "spiffe://cluster.local:80/ns/shop/sa/x",
        "spiffe://u@cluster.local/ns/shop/sa/x",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://cluster.local/ns//sa/x",
        "spiffe://cluster.local/ns/shop/sa/x/",
        "spiffe://cluster.local/ns/shop/sa/x/y",
        "spiffe://cluster.local/ns/shop/sa/x?q",
        "spiffe://cluster.local/ns/shop/sa/x#f",
        "spiffe://cluster.local/ns/shop/sa/%78",
        "spiffe://cluster.local/ns/sh.op/sa/x",
        "spiffe://cluster.local/ns/../sa/x",
        "spiffe://cluster.local/ns/shop/sa/..",
        "spiffe://cluster.local/ns/shop/sa/X",
        "spiffe://cluster.local/ns/@public/sa/x",
        "spiffe://cluster.local/sa/x/ns/shop",
        "spiffe://cluster.local//ns/shop/sa/x",
        "spiffe://" + "a" * 256 + "/ns/shop/sa/x",
        "spiffe://cluster.local/ns/shop/sa/" + "a." * 127,
        "spiffe://cluster.local/ns/shop/sa/x,spiffe://cluster.local/ns/victim/sa/x",
        "https://cluster.local/ns/shop/sa/x",
    ],
)
def test_whatever_else_is_no_identity(uri: str) -> None:
    with pytest.raises(InvalidIdentity):
        SpiffeId.parse(uri)


@given(st.text(max_size=120))
def test_no_text_is_an_identity_unless_it_reads_back_the_same(text: str) -> None:
    for candidate in (text, f"spiffe://cluster.local/ns/{text}/sa/x", f"spiffe://{text}"):
        try:
            parsed = SpiffeId.parse(candidate)
        except InvalidIdentity:
            continue
        assert str(parsed) == candidate


def test_a_certificate_has_exactly_one_uri_name() -> None:
    assert workload_of_uris([str(A)]) == A
    for uris in ([], [str(A), str(A)], [str(A), "https://example.com"]):
        with pytest.raises(InvalidIdentity, match="expected exactly one"):
            workload_of_uris(uris)


def element(uri: str = str(A), *, by: str = str(OWN), subject: str = '""') -> str:
    """What Envoy appends."""
    return f"By={by};Hash=abc;Subject={subject};URI={uri}"


@pytest.mark.parametrize(
    "header",
    [
        element(),
        f"URI=spiffe://cluster.local/ns/victim/sa/x,{element()}",
        f"{element('spiffe://cluster.local/ns/victim/sa/x')},{element()}",
        element(subject='"CN=a,O=b;URI=spiffe://cluster.local/ns/victim/sa/x"'),
        element(subject=r'"CN=\"quoted\",O=x"'),
        f"by={OWN};uri={A}",
        f'By={OWN};URI="{A}"',
        f"By={OWN};URI={A};DNS=a.example;DNS=b.example",
        f" , {element()}",
    ],
)
def test_the_last_element_tells_the_client(header: str) -> None:
    assert workload_of_xfcc(header, own=OWN) == A


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        f"{element()},",
        f"{element()},x",
        f"URI={A}",
        f"By={OWN}",
        f"By={OWN};URI=",
        element(by=str(A)),
        element(by=""),
        f"By={OWN};By={OWN};URI={A}",
        f"By={OWN};By={A};URI={A}",
        f"By={OWN};URI={A};URI={A}",
        f"By={OWN};URI={A};URI=spiffe://cluster.local/ns/victim/sa/x",
        f"{element()},{element(by=str(A))}",
        # A quotation mark that the client opens cannot swallow what the proxy appends.
        f'URI=spiffe://cluster.local/ns/victim/sa/x;By={OWN};Subject="',
        f'By={OWN};URI=spiffe://cluster.local/ns/victim/sa/x;Subject=",{element()}',
        f'By={OWN};URI=spiffe://cluster.local/ns/victim/sa/x;X="a\\,{element()}',
        element(uri="https://example.com"),
        element(uri=r"\"spiffe://cluster.local/ns/a/sa/default\""),
    ],
)
def test_a_header_that_proves_nobody_is_refused(header: str) -> None:
    with pytest.raises(InvalidIdentity):
        workload_of_xfcc(header, own=OWN)


@given(st.text(alphabet='",;=\\ aBy:/', max_size=60))
def test_nothing_that_a_client_sends_first_changes_who_it_is(prefix: str) -> None:
    try:
        found = workload_of_xfcc(f"{prefix},{element()}", own=OWN)
    except InvalidIdentity:
        return
    assert found == A


def test_a_long_account_is_carried_as_a_hash_that_no_account_can_be() -> None:
    assert short_account("a" * 63) == "a" * 63
    assert len(short_account("a" * 64)) < 63
    assert ":" in short_account("a" * 64)
    assert short_account("a" * 64) != short_account("a" * 65)
