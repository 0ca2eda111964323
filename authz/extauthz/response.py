"""Builds CheckResponses: one function for each kind of answer, and no other place makes one.

In Envoy an empty CheckResponse allows, and so does a `denied_response` whose `status` was left
out. Status 0 is therefore written in one function here, which takes an `Allow` and nothing else.

Source: envoy/service/auth/v3/external_auth.proto.
"""

from functools import lru_cache
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
from authz.domain.reason import Reason
from authz.domain.verdict import Allow, Deny, HeaderAction, SetToken
from authz.wire import REASON_HEADER, REUSE, REUSE_EPOCH, REUSED_TOKEN

"""Response header of a denial: one of the three outward words."""

_PERMISSION_DENIED: Final = 7  # google.rpc.Code


def answer(verdict: Allow | Deny, *, token_header: str, request_id: str) -> bytes | None:
    """The serialised CheckResponse for a verdict; `None` if an error of ours kept us from one.

    `error_response` would be the message for that. But Envoy before 1.37 takes it for a denial,
    outbound too, and no Envoy counts it in `outlier_detection`; a failed call does all of that.
    """
    if isinstance(verdict, Allow):
        return _allow(verdict, token_header)
    if verdict.reason is Reason.INTERNAL_ERROR:
        return None
    return _deny(verdict.reason, request_id)


def _allow(allow: Allow, token_header: str) -> bytes:
    if isinstance(allow.header, SetToken):
        header = HeaderValueOption(
            header=HeaderValue(key=token_header, value=allow.header.token),
            append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        return _ok(OkHttpResponse(headers=[header]), allow.reuse, allow.epoch, allow.header.token)
    return _without_token(allow.header, token_header, allow.reuse, allow.epoch)


@lru_cache
def _without_token(action: HeaderAction, token_header: str, reuse: int, epoch: int) -> bytes:
    """An allow that sets no token. There are few, so that all who keep one share it."""
    match action:
        case HeaderAction.REMOVE:
            return _ok(OkHttpResponse(headers_to_remove=[token_header]), reuse, epoch)
        case HeaderAction.KEEP:
            return _ok(OkHttpResponse(), reuse, epoch)


def _ok(changes: OkHttpResponse, reuse: int = 0, epoch: int = 0, token: str = "") -> bytes:
    response = CheckResponse(status=Status(code=0), ok_response=changes)
    if reuse:  # a filter before Envoy's own sees no more of an answer than these
        fields = response.dynamic_metadata.fields
        fields[REUSE].number_value = reuse
        fields[REUSE_EPOCH].number_value = epoch
        if token:
            fields[REUSED_TOKEN].string_value = token
    return response.SerializeToString()


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
