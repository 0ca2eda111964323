"""What Envoy makes of each kind of answer: the facts that our answers are built upon."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from authz._proto.ext_authz_pb2 import CheckRequest, CheckResponse, StatusCode
from tests.envoy.bench import SIGN, VERIFY, Workbench, seen_by_app, values
from tests.envoy.scripted import Context, allowing, always, denying

TOKEN = "x-tenant-token"
PERMISSION_DENIED, UNAVAILABLE = 7, 14
SENT = [(TOKEN, "first"), (TOKEN, "second")]


async def hangs(_request: CheckRequest, _context: Context) -> CheckResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def raises(_request: CheckRequest, _context: Context) -> CheckResponse:
    raise RuntimeError("broken on purpose")


async def aborts(_request: CheckRequest, context: Context) -> CheckResponse:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "no")
    raise AssertionError("unreachable")


def undecided() -> CheckResponse:
    response = CheckResponse()
    response.status.code = UNAVAILABLE
    response.error_response.status.code = StatusCode.ServiceUnavailable
    return response


async def test_an_empty_answer_allows(workbench: Workbench) -> None:
    async with workbench.proxy(VERIFY) as proxy:
        workbench.authz.answer = always(CheckResponse())
        assert (await proxy.get()).status_code == 200


async def test_a_denied_response_without_status_allows(workbench: Workbench) -> None:
    response = CheckResponse()
    response.denied_response.status.code = StatusCode.Forbidden
    async with workbench.proxy(VERIFY) as proxy:
        workbench.authz.answer = always(response)
        assert (await proxy.get()).status_code == 200


async def test_a_status_alone_denies(workbench: Workbench) -> None:
    response = CheckResponse()
    response.status.code = PERMISSION_DENIED
    async with workbench.proxy(VERIFY) as proxy:
        workbench.authz.answer = always(response)
        assert (await proxy.get()).status_code == 403


async def test_a_status_denies_even_beside_an_ok_response(workbench: Workbench) -> None:
    response = allowing()
    response.status.code = PERMISSION_DENIED
    async with workbench.proxy(VERIFY) as proxy:
        workbench.authz.answer = always(response)
        assert (await proxy.get()).status_code == 403


async def test_a_denial_reaches_the_client_as_it_is(workbench: Workbench) -> None:
    async with workbench.proxy(VERIFY) as proxy:
        workbench.authz.answer = always(denying("x-tenant-authz-reason", "not-allowed", "why"))
        response = await proxy.get()
    assert response.status_code == 403
    assert response.headers["x-tenant-authz-reason"] == "not-allowed"
    assert response.text == "why"


async def test_a_denial_is_no_matter_of_the_failure_mode(workbench: Workbench) -> None:
    async with workbench.proxy(SIGN) as proxy:
        workbench.authz.answer = always(denying("x-tenant-authz-reason", "not-allowed", "why"))
        assert (await proxy.get()).status_code == 403


async def test_a_header_that_is_set_replaces_what_the_client_sent(workbench: Workbench) -> None:
    async with workbench.proxy(SIGN) as proxy:
        workbench.authz.answer = always(allowing(sets={TOKEN: "ours"}))
        assert values(seen_by_app(await proxy.get(SENT)), TOKEN) == ["ours"]


async def test_a_header_that_is_set_is_added_where_there_was_none(workbench: Workbench) -> None:
    async with workbench.proxy(SIGN) as proxy:
        workbench.authz.answer = always(allowing(sets={TOKEN: "ours"}))
        assert values(seen_by_app(await proxy.get()), TOKEN) == ["ours"]


async def test_a_header_that_is_removed_is_gone_however_often_it_was_sent(
    workbench: Workbench,
) -> None:
    async with workbench.proxy(SIGN) as proxy:
        workbench.authz.answer = always(allowing(removes=[TOKEN]))
        assert values(seen_by_app(await proxy.get(SENT)), TOKEN) == []


async def test_a_header_that_is_set_and_removed_is_gone(workbench: Workbench) -> None:
    async with workbench.proxy(SIGN) as proxy:
        workbench.authz.answer = always(allowing(sets={TOKEN: "ours"}, removes=[TOKEN]))
        assert values(seen_by_app(await proxy.get(SENT)), TOKEN) == []


async def test_a_header_that_is_left_alone_passes(workbench: Workbench) -> None:
    async with workbench.proxy(SIGN) as proxy:
        workbench.authz.answer = always(allowing())
        assert values(seen_by_app(await proxy.get(SENT)), TOKEN) == ["first", "second"]


async def test_a_header_with_a_line_break_is_not_set(workbench: Workbench) -> None:
    async with workbench.proxy(SIGN) as proxy:
        workbench.authz.answer = always(allowing(sets={TOKEN: "ours\r\nx-smuggled: yes"}))
        headers = seen_by_app(await proxy.get([(TOKEN, "first")]))
    assert values(headers, TOKEN) == ["first"]
    assert values(headers, "x-smuggled") == []


@pytest.mark.parametrize("answer", [hangs, raises, aborts])
async def test_no_answer_denies_with_503_inbound(workbench: Workbench, answer: object) -> None:
    async with workbench.proxy(VERIFY) as proxy:
        workbench.authz.answer = answer  # type: ignore[assignment]
        assert (await proxy.get()).status_code == 503


@pytest.mark.parametrize("answer", [hangs, raises, aborts])
async def test_no_answer_allows_outbound_and_leaves_the_client_header(
    workbench: Workbench, answer: object
) -> None:
    async with workbench.proxy(SIGN) as proxy:
        workbench.authz.answer = answer  # type: ignore[assignment]
        assert values(seen_by_app(await proxy.get(SENT)), TOKEN) == ["first", "second"]


async def test_a_service_that_is_gone_denies_inbound(workbench: Workbench) -> None:
    async with workbench.proxy(VERIFY) as proxy:
        await workbench.authz.stop()
        assert (await proxy.get()).status_code == 503


async def test_a_service_that_is_gone_allows_outbound(workbench: Workbench) -> None:
    async with workbench.proxy(SIGN) as proxy:
        await workbench.authz.stop()
        assert (await proxy.get()).status_code == 200


async def test_an_error_response_counts_as_no_answer(
    workbench: Workbench, envoy_version: str
) -> None:
    known = envoy_version != "1.36.4"  # to which it is a denial like any other
    for chain, status in ((VERIFY, 503), (SIGN, 200)):
        async with workbench.proxy(chain) as proxy:
            workbench.authz.answer = always(undecided())
            assert (await proxy.get()).status_code == (status if known else 403)
