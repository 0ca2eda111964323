"""An API server in a thread: HTTP on loopback, a few kinds of objects, and every way to misbehave.

It keeps to what the API promises: resource versions, conflicts, watches that go on from a version,
bookmarks, 410 for what was compacted, RBAC with resource names, Status objects for errors, and who
set which field (of data only; the whole of it seen on kube-apiserver 1.37.2).
"""

import asyncio
import base64
import hashlib
import json
import ssl
import threading
import urllib.parse
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

T = TypeVar("T")
Object = dict[str, Any]
Key = tuple[str, str, str]
"""Plural, namespace or "", name."""

Writes = Callable[[asyncio.StreamWriter], Awaitable[None]]
PATIENCE = 20.0
TOKEN = "made-up.bearer_token.of-nobody"
SECRET_LIMIT = 1 << 20
DEEP = "(nested)"
"""A value that is sent as one in 5,000 lists: deeper than Python writes or reads."""


class Request(NamedTuple):
    """What was asked."""

    verb: str
    plural: str
    namespace: str
    name: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any
    group: str = ""


@dataclass
class Fault:
    """What is done once instead of the right thing; `after` the right thing, if that is set."""

    status: int = 0
    message: str = "so it was scripted"
    headers: dict[str, str] = field(default_factory=dict)
    write: Writes | None = None
    after: bool = False


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a word."""
    writer.transport.abort()


async def say_nothing(writer: asyncio.StreamWriter) -> None:
    """Keep the connection and say nothing, until the other side loses patience."""
    with suppress(OSError):
        await writer.wait_closed()


def raw(*parts: bytes) -> Writes:
    """Write these bytes, then close the connection."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()

    return write


def chunk(content: bytes) -> bytes:
    """A chunk of a chunked body."""
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FORWARDED = 32 << 10
"""Bytes that a node sends at once: what Go's io.Copy reads."""


def frame(content: bytes, opcode: int = 2) -> bytes:
    """A frame of a WebSocket as servers send it, the whole of a message: RFC 6455, section 5.2."""
    head = bytes([0x80 | opcode])
    if len(content) < 126:
        return head + bytes([len(content)]) + content
    if len(content) < 1 << 16:
        return head + b"\x7e" + len(content).to_bytes(2, "big") + content
    return head + b"\x7f" + len(content).to_bytes(8, "big") + content


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Watch:
    """A watch that is open."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()


class ApiDouble:
    """Start it with `running`. Everything may be called from other threads."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[Key, Object] = {}
        self.requests: list[Request] = []
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        """By verb, in turn."""
        self.down = False
        """Whether every connection is closed at once."""
        self.forbidden: set[str] = set()
        """Verbs that RBAC refuses."""
        self.refused: dict[str, int] = {}
        """Status of every answer about a kind: 403, or 404 where it is not installed."""
        self.token: str | None = None
        """The only one that is accepted; `None` for all."""
        self.rules: dict[str, list[tuple[str, Object]]] | None = None
        """RBAC: by token, rules and the namespace in which each counts, "" for all."""
        self.bookmark_every = 0.05
        self.gone_as_event = False
        self.date: str | None = None
        """What it says that the time is."""
        self.connections = 0
        self.ports: dict[tuple[str, str, int], bytes | Writes] = {}
        """By namespace, pod and port: what comes from there, raw, by port-forward.

        Or what is done with the WebSocket instead. Where there is nothing, the node says so.
        """
        self.port: int
        self._tls = tls
        self._version = 1000
        self._compacted = 0
        self._uids = 0
        self._history: list[tuple[int, Key, str, Object]] = []
        self._watches: set[Watch] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event

    # -- from other threads --------------------------------------------------------------------

    @classmethod
    @contextmanager
    def running(cls, tls: ssl.SSLContext | None = None) -> Iterator[Self]:
        double = cls(tls)
        thread = threading.Thread(target=lambda: asyncio.run(double._live()), daemon=True)
        thread.start()
        assert double._started.wait(PATIENCE)
        try:
            yield double
        finally:
            double._loop.call_soon_threadsafe(double._end.set)
            thread.join(PATIENCE)
            assert not thread.is_alive()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def kubeconfig(
        self,
        path: Path,
        *,
        token: str = TOKEN,
        namespace: str = "authz-system",
        ca: Path | None = None,
    ) -> Path:
        """Write a kubeconfig that leads here. JSON is YAML."""
        cluster: Object = {"server": self.url}
        if ca is not None:
            cluster["certificate-authority"] = str(ca)
        content = {
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [
                {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": namespace}}
            ],
        }
        path.write_text(json.dumps(content))
        return path

    def fault(self, verb: str, *faults: Fault) -> None:
        self._do(self._script(verb, faults))

    def put(self, plural: str, thing: Object, *, manager: str | None = None) -> Object:
        """Make or change an object, as somebody else would; without a manager, nobody notes who."""
        return self._do(self._put(_key(plural, thing), thing, manager))

    def put_many(self, plural: str, things: list[Object]) -> None:
        """Make many objects at once."""

        async def making() -> None:
            for thing in things:
                await self._put(_key(plural, thing), thing)

        self._do(making())

    def delete(self, plural: str, namespace: str, name: str) -> None:
        self._do(self._delete((plural, namespace, name)))

    def get(self, plural: str, namespace: str, name: str) -> Object:
        return self.objects[plural, namespace, name]

    def compact(self) -> None:
        """Forget all versions but the last."""
        self._do(self._compact())

    def tell(self, line: bytes) -> None:
        """Send a line, or what there is instead of one, to every watch."""
        self._do(self._tell(line))

    def end_watches(self) -> None:
        """End every watch in good order."""
        self._do(self._tell(None))

    def cut(self) -> None:
        """Cut all connections, whatever is on its way."""
        self._do(self._cut())

    @contextmanager
    def away(self) -> Iterator[None]:
        """Close every connection at once, until the end of the block."""
        self.down = True
        self.cut()
        try:
            yield
        finally:
            self.down = False

    def asked(self, verb: str) -> list[Request]:
        return [request for request in list(self.requests) if request.verb == verb]

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    # -- in its own thread ---------------------------------------------------------------------

    async def _live(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._end.wait()
        server.close()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _script(self, verb: str, faults: tuple[Fault, ...]) -> None:
        self.faults[verb] += faults

    async def _compact(self) -> None:
        self._version += 1
        self._compacted = self._version
        self._history.clear()

    async def _tell(self, line: bytes | None) -> None:
        for watch in self._watches:
            watch.lines.put_nowait(line)

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _put(self, key: Key, thing: Object, manager: str | None = None) -> Object:
        self._version += 1
        before = self.objects.get(key)
        self._uids += before is None
        stored: Object = json.loads(json.dumps(thing))
        stored["metadata"] = {
            "uid": f"uid-{self._uids}" if before is None else before["metadata"]["uid"],
            **stored["metadata"],
            "resourceVersion": str(self._version),
        }
        if manager is not None:
            stored["metadata"]["managedFields"] = _managed(before, stored, manager)
        self.objects[key] = stored
        self._note(key, "ADDED" if before is None else "MODIFIED", stored)
        return stored

    async def _delete(self, key: Key) -> None:
        self._version += 1
        gone = self.objects.pop(key)
        gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self._version)}}
        self._note(key, "DELETED", gone)

    def _note(self, key: Key, kind: str, thing: Object) -> None:
        self._history.append((self._version, key, kind, thing))
        for watch in self._watches:
            if _fits(watch.request, key):
                watch.lines.put_nowait(_line(kind, _shown(watch.request, thing)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while not self.down:
                request = await _read(reader)
                self.requests.append(request)
                await self._answer(request, reader, writer)
                if "upgrade" in request.headers:
                    return
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whatever ends it, it is the end
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if (
            self.token is not None
            and request.headers.get("authorization") != f"Bearer {self.token}"
        ):
            return _send(writer, 401, _status(401, "Unauthorized"))
        if self.rules is not None and not self._is_allowed(request):
            return _send(writer, 403, _status(403, f"{request.plural}: cannot {request.verb}"))
        if request.verb in self.forbidden or self._is_unnamed_secret(request):
            return _send(writer, 403, _status(403, f"secrets is forbidden: cannot {request.verb}"))
        if status := self.refused.get(request.plural):
            return _send(writer, status, _status(status, f"{request.plural}: so it was scripted"))
        scripted = self.faults[request.verb]
        fault = scripted.popleft() if scripted else None
        if fault is None and "upgrade" in request.headers:
            return await self._forward(request, reader, writer)
        if fault is None:
            return await self._right(request, writer)
        if fault.after:
            await self._right(request, None)
        if fault.write is not None:
            return await fault.write(writer)
        return _send(writer, fault.status, _status(fault.status, fault.message), fault.headers)

    def _is_allowed(self, request: Request) -> bool:
        assert self.rules is not None
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        name, _, subresource = request.name.partition("/")
        what = f"{request.plural}/{subresource}" if subresource else request.plural
        return any(
            place in ("", request.namespace)
            and request.group in rule["apiGroups"]
            and what in rule["resources"]
            and request.verb in rule["verbs"]
            and (name in rule["resourceNames"] if "resourceNames" in rule else True)
            for place, rule in self.rules.get(token, ())
        )

    def _is_unnamed_secret(self, request: Request) -> bool:
        """RBAC with resourceNames lets nobody list or watch who does not select the name."""
        return request.plural == "secrets" and not request.name and request.verb != "create"

    async def _right(self, request: Request, writer: asyncio.StreamWriter | None) -> None:
        if request.plural == "version" and writer is not None:
            return _send(writer, 200, {"gitVersion": "v1.34.0"})
        if request.verb == "other" and writer is not None:
            return _send(writer, 404, _status(404, "there is nothing here"))
        if request.verb == "watch":
            assert writer is not None
            return await self._watch(request, writer)
        status, content = await {
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "delete": self._remove,
        }[request.verb](request)
        if writer is not None:
            _send(writer, status, content, {} if self.date is None else {"Date": self.date})
        return None

    async def _forward(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A kubelet's side of v4.channel.k8s.io, which the API server passes on."""
        pod, _, subresource = request.name.partition("/")
        assert subresource == "portforward"
        if ("pods", request.namespace, pod) not in self.objects:
            return _send(writer, 404, _status(404, f'pods "{pod}" not found'))
        if "*/*" not in request.headers.get("accept", "*/*"):  # as containerd's server does
            return _send(writer, 406, _status(406, "Not Acceptable"))
        assert request.headers["sec-websocket-protocol"] == "v4.channel.k8s.io"
        key = request.headers["sec-websocket-key"].encode()
        accept = base64.b64encode(
            hashlib.sha1(key + WEBSOCKET, usedforsecurity=False).digest()
        ).decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nSec-WebSocket-Accept: {accept}\r\n"
            "\r\n".encode()
        )
        port = int(request.params["ports"])
        for channel in (b"\0", b"\1"):
            writer.write(frame(channel + port.to_bytes(2, "little")))
        head = await reader.readexactly(2)  # of what is asked, masked and short
        await reader.readexactly(4 + (head[1] & 0x7F))
        said = self.ports.get((request.namespace, pod, port))
        if said is None:
            text = f"error forwarding port {port} to pod {pod}, uid : connection refused"
            writer.write(frame(b"\1" + text.encode()))
        elif callable(said):
            return await said(writer)
        else:
            for start in range(0, len(said), FORWARDED):
                writer.write(frame(b"\0" + said[start : start + FORWARDED]))
                await writer.drain()
        writer.write(frame(b"", 8))
        writer.close()
        await writer.wait_closed()
        return None

    async def _list(self, request: Request) -> tuple[int, Object]:
        start, version = 0, self._version
        if token := request.params.get("continue"):
            version, start = (int(part) for part in token.split(":"))
            if version < self._compacted:
                return 410, _status(410, "The provided continue parameter is too old")
        fitting = [thing for key, thing in sorted(self.objects.items()) if _fits(request, key)]
        end = start + int(request.params.get("limit") or len(fitting) or 1)
        metadata: Object = {"resourceVersion": str(version)}
        if end < len(fitting):
            metadata["continue"] = f"{version}:{end}"
        items = [_shown(request, thing) for thing in fitting[start:end]]
        # Of metadata alone, an empty list is null (seen on kube-apiserver 1.37.2).
        null = not items and "PartialObjectMetadata" in request.headers.get("accept", "")
        found = None if null else items
        return 200, {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": found}

    async def _create(self, request: Request) -> tuple[int, Object]:
        key = _key(request.plural, request.body)
        if key in self.objects:
            return 409, _status(409, f'{request.plural} "{key[2]}" already exists')
        if problem := _too_large(request.body):
            return problem
        if "dryRun" in request.params:
            return 201, request.body
        return 201, await self._put(key, request.body, _manager(request))

    async def _update(self, request: Request) -> tuple[int, Object]:
        name, _, subresource = request.name.partition("/")
        key = (request.plural, request.namespace, name)
        before = self.objects.get(key)
        if before is None:
            return 404, _status(404, f'{request.plural} "{name}" not found')
        given, own = request.body["metadata"], before["metadata"]
        version = given.get("resourceVersion")
        if version not in (None, own["resourceVersion"]) or given.get("uid") not in (
            None,
            own["uid"],
        ):
            return 409, _status(409, "the object has been modified; please apply your changes")
        if problem := _too_large(request.body):
            return problem
        if "dryRun" in request.params:
            return 200, request.body
        if subresource:
            return 200, await self._put(key, {**before, "status": request.body.get("status")})
        return 200, await self._put(key, request.body, _manager(request))

    async def _remove(self, request: Request) -> tuple[int, Object]:
        key = (request.plural, request.namespace, request.name)
        if key not in self.objects:
            return 404, _status(404, f'{request.plural} "{request.name}" not found')
        await self._delete(key)
        return 200, _status(200, "deleted")

    async def _watch(self, request: Request, writer: asyncio.StreamWriter) -> None:
        since = int(request.params["resourceVersion"])
        if since < self._compacted:
            status = _status(410, f"too old resource version: {since} ({self._compacted})")
            if not self.gone_as_event:
                return _send(writer, 410, status)
            writer.write(STREAM + chunk(_line("ERROR", status)) + b"0\r\n\r\n")
            return None
        watch = Watch(request)
        for version, key, kind, thing in self._history:
            if version > since and _fits(request, key):
                watch.lines.put_nowait(_line(kind, _shown(request, thing)))
        self._watches.add(watch)
        end = self._loop.time() + float(request.params.get("timeoutSeconds", 1800))
        writer.write(STREAM)
        await writer.drain()
        try:
            while (left := end - self._loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(left, self.bookmark_every)):
                        line = await watch.lines.get()
                except TimeoutError:
                    line = self._bookmark(request)
                if line is None:
                    break
                writer.write(chunk(line))
                await writer.drain()
        finally:
            self._watches.discard(watch)
        writer.write(b"0\r\n\r\n")
        return None

    def _bookmark(self, request: Request) -> bytes:
        assert request.params.get("allowWatchBookmarks") == "true"
        return _line("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}})


def _key(plural: str, thing: Object) -> Key:
    return plural, thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def _manager(request: Request) -> str:
    return request.headers.get("user-agent", "").partition("/")[0]


def _managed(before: Object | None, after: Object, manager: str) -> list[Object]:
    """Who set which key of the data: whoever changed it last."""
    owners: dict[str, list[str]] = {}
    for name, value in (after.get("data") or {}).items():
        owner = manager
        if before is not None and (before.get("data") or {}).get(name) == value:
            owner = next(
                (
                    entry["manager"]
                    for entry in before["metadata"].get("managedFields", ())
                    if f"f:{name}" in entry["fieldsV1"]["f:data"]
                ),
                manager,
            )
        owners.setdefault(owner, []).append(name)
    return [
        {"manager": owner, "fieldsV1": {"f:data": {f"f:{name}": {} for name in names}}}
        for owner, names in owners.items()
    ]


def _fits(request: Request, key: Key) -> bool:
    plural, namespace, name = key
    return (
        plural == request.plural
        and request.namespace in ("", namespace)
        and request.name in ("", name)
    )


def _shown(request: Request, thing: Object) -> Object:
    if "PartialObjectMetadata" in request.headers.get("accept", ""):
        return {"metadata": thing["metadata"]}
    return thing


def _line(kind: str, thing: Object) -> bytes:
    return _dumped({"type": kind, "object": thing}) + b"\n"


def _dumped(content: Object) -> bytes:
    text = json.dumps(content)
    return text.replace(json.dumps(DEEP), "[" * 5000 + "]" * 5000).encode()


def _status(code: int, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "message": message,
    }


def _too_large(thing: Object) -> tuple[int, Object] | None:
    size = sum(len(base64.b64decode(value)) for value in (thing.get("data") or {}).values())
    return (422, _status(422, "data: Too long")) if size > SECRET_LIMIT else None


def _send(
    writer: asyncio.StreamWriter,
    status: int,
    content: Object,
    headers: dict[str, str] | None = None,
) -> None:
    body = _dumped(content)
    lines = [
        f"HTTP/1.1 {status} Scripted",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    path, _, query = target.partition("?")
    params = dict(urllib.parse.parse_qsl(query))
    steps = path.strip("/").split("/")
    if (
        steps[0] not in ("api", "apis") or len(steps) < 3
    ):  # such as /version, which kubectl asks for
        return Request("other", steps[0], "", "", params, headers, None)
    group = "" if steps[0] == "api" else steps[1]
    steps = steps[3:] if group else steps[2:]
    namespace = ""
    if steps[0] == "namespaces" and len(steps) > 2:
        namespace, steps = steps[1], steps[2:]
    name = "/".join(steps[1:]) or params.get("fieldSelector", "").removeprefix("metadata.name=")
    verb = {"POST": "create", "PUT": "update", "DELETE": "delete"}.get(method)
    if "upgrade" in headers:
        verb = "create"  # `get`, too
    if verb is None:
        verb = "watch" if params.get("watch") == "true" else "list"
    content = json.loads(body) if body else None
    return Request(verb, steps[0], namespace, name, params, headers, content, group)
