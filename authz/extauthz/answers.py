"""Builds CheckResponses: one function for each kind of answer, and no other place makes one.

In Envoy an empty CheckResponse allows, and so does a `denied_response` whose `status` was left
out. Status 0 is therefore written in one function here, which takes an `Allow` and nothing else.

Source: envoy/service/auth/v3/external_auth.proto.
"""

from typing import Final

from authz._proto.ext_authz_pb2 import (
    CheckResponse,
    DeniedHttpResponse,
    HeaderValue,
    HeaderValueOption,
    HttpStatus,
    OkHttpResponse,
    Status,
    StatusCode,
)
from authz.errors import Reason
from authz.verdict import Allow, Deny, HeaderAction, SetToken

REASON_HEADER: Final = "x-tenant-authz-reason"
"""Response header of a denial: one of the three outward words."""

_PERMISSION_DENIED, _UNAVAILABLE = 7, 14  # google.rpc.Code
_OUR_FAULT = frozenset({Reason.INTERNAL_ERROR, Reason.NOT_READY})


def answer(verdict: Allow | Deny, *, token_header: str, request_id: str) -> bytes:
    """The serialised CheckResponse for a verdict."""
    if isinstance(verdict, Allow):
        return _allow(verdict, token_header)
    if verdict.reason in _OUR_FAULT:
        return unavailable(verdict.reason)
    return _deny(verdict.reason, request_id)


def unavailable(reason: Reason) -> bytes:
    """We could not decide. Envoy goes by its filter's failure mode: inbound, 503.

    Envoy before 1.37 does not know `error_response` and answers 403, by the status.
    """
    return CheckResponse(
        status=Status(code=_UNAVAILABLE, message=reason.outward.value),
        error_response=DeniedHttpResponse(status=HttpStatus(code=StatusCode.ServiceUnavailable)),
    ).SerializeToString()


def _allow(allow: Allow, token_header: str) -> bytes:
    match allow.header:
        case SetToken(token):
            header = HeaderValueOption(
                header=HeaderValue(key=token_header, value=token),
                append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            changes = OkHttpResponse(headers=[header])
        case HeaderAction.REMOVE:
            changes = OkHttpResponse(headers_to_remove=[token_header])
        case HeaderAction.KEEP:
            changes = OkHttpResponse()
    return CheckResponse(status=Status(code=0), ok_response=changes).SerializeToString()


def _deny(reason: Reason, request_id: str) -> bytes:
    word = reason.outward.value
    text = f"tenant-authz: {word} (request {request_id or 'without id'})"
    header = HeaderValueOption(
        header=HeaderValue(key=REASON_HEADER, value=word),
        append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return CheckResponse(
        status=Status(code=_PERMISSION_DENIED, message=word),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=StatusCode.Forbidden), headers=[header], body=text
        ),
    ).SerializeToString()
