"""Our protos are written by hand, so a wrong number would be ours alone: witnesses must agree."""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from authz._proto import ext_authz_pb2 as wire
from authz._proto import health_pb2
from tests.witness import auth, core, envoy_check_request, envoy_reads, rpc

pytestmark = pytest.mark.filterwarnings(
    "ignore:HeaderValueOption.append is deprecated:DeprecationWarning"
)

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tenant_authz.wire.v1"


# The stubs are what the protos say.


def generate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "protos" / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for directory in ("protos", "authz/_proto"):
        shutil.copytree(ROOT / directory, tmp_path / directory)
    return tmp_path


def test_the_committed_stubs_are_fresh() -> None:
    check = generate(ROOT, "--check")
    assert (check.returncode, check.stderr) == (0, "")


@pytest.mark.parametrize(
    ("stub", "fresh", "stale"),
    [
        ("health_pb2.py", "SERVING", "SERVANT"),
        ("health_pb2.pyi", "SERVING", "SERVANT"),
        ("health_pb2.pyi", "service: str", "service: bytes"),
    ],
)
def test_a_stub_that_declares_something_else_is_stale(
    copy: Path, stub: str, fresh: str, stale: str
) -> None:
    path = copy / "authz" / "_proto" / stub
    path.write_text(path.read_text().replace(fresh, stale))
    check = generate(copy, "--check")
    assert check.returncode == 1
    assert check.stderr == f"stale: {stub}; run `python protos/generate.py`\n"


def test_a_stub_in_other_words_is_fresh(copy: Path) -> None:
    path = copy / "authz" / "_proto" / "health_pb2.pyi"
    path.write_text("# protoc 99\n" + path.read_text().replace("_message.", "message."))
    assert generate(copy, "--check").returncode == 0


def test_generating_writes_missing_stubs_and_removes_orphans(copy: Path) -> None:
    stubs = copy / "authz" / "_proto"
    (stubs / "health_pb2.py").unlink()
    (stubs / "gone_pb2.py").touch()
    check = generate(copy, "--check")
    assert check.returncode == 1
    assert check.stderr.startswith("stale: gone_pb2.py, health_pb2.py;")
    assert generate(copy).returncode == 0
    assert generate(copy, "--check").returncode == 0
    assert not (stubs / "gone_pb2.py").exists()


# Each of our fields is Envoy's. Descriptors are `Any`: their type stubs know two classes of each.


class Field(NamedTuple):
    number: int
    type: str
    repeated: bool
    oneof: str | None
    entry: tuple[str, ...] | None  # of a map
    values: dict[str, int] | None  # of an enum


def our_fields(message: Any) -> dict[str, Field]:
    return {
        field.name: Field(
            number=field.number,
            type="map" if is_map(field) else type_name(field),
            repeated=field.is_repeated and not is_map(field),
            oneof=field.containing_oneof.name if field.containing_oneof else None,
            entry=tuple(map(type_name, field.message_type.fields)) if is_map(field) else None,
            values={value.name: value.number for value in field.enum_type.values}
            if field.enum_type
            else None,
        )
        for field in message.fields
    }


def their_fields(message: Any) -> dict[str, Field]:
    return {
        name: Field(
            number=meta.number,
            type=meta.proto_type,
            repeated=meta.repeated,
            oneof=meta.group,
            entry=tuple(part.proto_type for part in meta.map_meta) if meta.map_meta else None,
            values={value.name: value.value for value in their_kind(message, name)}
            if meta.proto_type == "enum"
            else None,
        )
        for name, meta in message._betterproto.meta_by_field_name.items()
    }


def is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def our_kind(field: Any) -> Any:
    """The message that a field or a map's values are, or None."""
    return field.message_type.fields[1].message_type if is_map(field) else field.message_type


def their_kind(message: Any, field: str) -> Any:
    """The class of a field or of a map's values."""
    meta, kinds = message._betterproto.meta_by_field_name[field], message._betterproto.cls_by_field
    return meta.unwrap() if meta.unwrap else kinds.get(f"{field}.value", kinds[field])


def type_name(field: Any) -> str:
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def pairs() -> dict[str, tuple[Any, Any]]:
    """Every message that a Check can hold, ours beside theirs, by name."""
    found: dict[str, tuple[Any, Any]] = {}
    left: list[tuple[Any, Any]] = [
        (wire.CheckRequest.DESCRIPTOR, auth.CheckRequest),
        (wire.CheckResponse.DESCRIPTOR, auth.CheckResponse),
    ]
    while left:
        ours, theirs = left.pop()
        name = ours.full_name.removeprefix(f"{PACKAGE}.")
        if name not in found:
            found[name] = (ours, theirs)
            left += [
                (our_kind(field), their_kind(theirs, field.name))
                for field in ours.fields
                if our_kind(field)
            ]
    return found


def messages(within: Iterable[Any]) -> Iterator[str]:
    for message in within:
        if not message.GetOptions().map_entry:
            yield message.full_name.removeprefix(f"{PACKAGE}.")
            yield from messages(message.nested_types)


PAIRS = pairs()


@pytest.mark.parametrize("name", PAIRS)
def test_each_field_is_envoys_in_name_number_and_type(name: str) -> None:
    ours, theirs = our_fields(PAIRS[name][0]), their_fields(PAIRS[name][1])
    assert ours == {field: theirs.get(field) for field in ours}


def test_no_message_of_ours_lacks_a_witness() -> None:
    assert set(messages(wire.DESCRIPTOR.message_types_by_name.values())) <= set(PAIRS)


# Each side reads what the other writes.

OFTEN = st.sampled_from([True, True, True, False])
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=9),
    "bytes": st.binary(max_size=9),
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "double": st.floats(allow_nan=False),
    # Theirs is a datetime, which knows no nanoseconds.
    "google.protobuf.Timestamp.seconds": st.integers(0, 2**32),
    "google.protobuf.Timestamp.nanos": st.integers(0, 10**6 - 1).map(lambda micros: micros * 1000),
}


def scalar(field: Any) -> st.SearchStrategy[Any]:
    if field.enum_type:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return SCALARS[field.full_name if field.full_name in SCALARS else type_name(field)]


def fill(draw: st.DrawFn, ours: Any, theirs: Any) -> Any:
    """Set random fields of our message; return theirs with the same content."""
    fields = [field for field in ours.DESCRIPTOR.fields if not field.containing_oneof]
    fields += [draw(st.sampled_from(list(oneof.fields))) for oneof in ours.DESCRIPTOR.oneofs]
    present = [field for field in fields if draw(OFTEN)]
    return theirs(
        **{
            field.name: fill_field(draw, ours, field, their_kind(theirs, field.name))
            for field in present
        }
    )


def fill_field(draw: st.DrawFn, ours: Any, field: Any, theirs: Any) -> Any:
    slot = getattr(ours, field.name)
    if is_map(field):
        key, value = field.message_type.fields
        keys = draw(st.lists(scalar(key), max_size=2, unique=True))
        if our_kind(field):
            return {key: fill(draw, slot[key], theirs) for key in keys}
        slot.update({key: draw(scalar(value)) for key in keys})
        return dict(slot)
    if field.is_repeated:
        many = range(draw(st.integers(0, 2)))
        if our_kind(field):
            return [fill(draw, slot.add(), theirs) for _ in many]
        slot.extend(draw(scalar(field)) for _ in many)
        return list(slot)
    if our_kind(field):
        slot.SetInParent()
        message = fill(draw, slot, theirs)
        return message.to_wrapped() if hasattr(message, "to_wrapped") else message
    value = draw(scalar(field))
    setattr(ours, field.name, value)
    return theirs(value) if field.enum_type else value


@st.composite
def twins(draw: st.DrawFn, name: str) -> tuple[Message, Any]:
    """The same random content in a message of ours and in one of theirs."""
    descriptor, theirs = PAIRS[name]
    ours = GetMessageClass(descriptor)()
    return ours, fill(draw, ours, theirs)


@pytest.mark.parametrize("name", PAIRS)
@given(st.data())
def test_each_side_reads_what_the_other_writes(name: str, data: st.DataObject) -> None:
    ours, theirs = data.draw(twins(name))
    assert type(ours).FromString(bytes(theirs)) == ours
    assert type(theirs).parse(ours.SerializeToString()) == theirs


def test_a_sidecars_request_reads_as_sent() -> None:
    request = envoy_check_request(
        principal="spiffe://cluster.local/ns/blue/sa/web",
        method="POST",
        path="/orders?id=1",
        host="shop.green.svc",
        headers=[("x-a", "1"), ("x-a", "2")],
        context_extensions={"colour": "green"},
        route_metadata={"istio": {"config": "/apis/x"}},
    )
    attributes = wire.CheckRequest.FromString(request).attributes
    http = attributes.request.http
    assert attributes.source.principal == "spiffe://cluster.local/ns/blue/sa/web"
    assert attributes.destination.address.socket_address.port_value == 8012
    assert attributes.request.time.ToJsonString() == "2026-01-01T12:00:00Z"
    assert (http.method, http.path, http.host) == ("POST", "/orders?id=1", "shop.green.svc")
    assert (http.size, http.protocol, http.scheme) == (-1, "HTTP/1.1", "http")
    assert not http.headers
    assert [(header.key, header.raw_value) for header in http.header_map.headers[-2:]] == [
        ("x-a", b"1"),
        ("x-a", b"2"),
    ]
    assert attributes.context_extensions == {"colour": "green"}
    assert attributes.route_metadata_context.filter_metadata["istio"]["config"] == "/apis/x"


def test_without_raw_headers_repeated_ones_arrive_joined() -> None:
    request = envoy_check_request(headers=[("x-a", "1"), ("x-a", "2")], raw=False)
    http = wire.CheckRequest.FromString(request).attributes.request.http
    assert http.headers["x-a"] == "1,2"
    assert http.headers[":path"] == "/"
    assert not http.HasField("header_map")


def test_a_field_that_envoy_may_add_does_no_harm() -> None:
    request, unknown = envoy_check_request(), b"\xfa\x3f\x01x"  # field 1023
    parse = wire.CheckRequest.FromString
    assert parse(request + unknown).attributes == parse(request).attributes


def test_an_allow_reads_in_envoy_as_meant() -> None:
    header = wire.HeaderValueOption(
        header=wire.HeaderValue(key="x-a", value="1"),
        append_action=wire.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    response = wire.CheckResponse(
        status=wire.Status(code=0),
        ok_response=wire.OkHttpResponse(headers=[header], headers_to_remove=["x-b"]),
    )
    assert envoy_reads(response.SerializeToString()) == auth.CheckResponse(
        status=rpc.Status(code=0),
        ok_response=auth.OkHttpResponse(
            headers=[
                core.HeaderValueOption(
                    header=core.HeaderValue(key="x-a", value="1"),
                    append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
                )
            ],
            headers_to_remove=["x-b"],
        ),
    )


def test_a_denial_reads_in_envoy_as_meant() -> None:
    response = wire.CheckResponse(
        status=wire.Status(code=7, message="token-missing"),
        denied_response=wire.DeniedHttpResponse(
            status=wire.HttpStatus(code=wire.Forbidden), body="token-missing"
        ),
    )
    denial = envoy_reads(response.SerializeToString())
    assert denial.status == rpc.Status(code=7, message="token-missing")
    assert denial.denied_response is not None
    assert denial.denied_response.status is not None
    assert denial.denied_response.status.code == 403
    assert denial.denied_response.body == "token-missing"
    assert (denial.ok_response, denial.error_response) == (None, None)


# Other copies of the same protos may live in our process.


def shapes(stub: Any) -> set[str]:
    file = FileDescriptorProto()
    stub.DESCRIPTOR.CopyToProto(file)
    return {str(message) for message in file.message_type}


def test_every_stub_is_in_our_own_package() -> None:
    assert {wire.DESCRIPTOR.package, health_pb2.DESCRIPTOR.package} == {PACKAGE}


def test_our_health_messages_are_grpcs_and_live_beside_them() -> None:
    grpc_health = pytest.importorskip("grpc_health.v1.health_pb2")
    ours = {message.replace(PACKAGE, "grpc.health.v1") for message in shapes(health_pb2)}
    assert ours <= shapes(grpc_health)
