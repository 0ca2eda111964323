"""One API server: list, watch, replace and create, each with a limit on time and size.

Sources: kubernetes.io/docs/reference/using-api/api-concepts (resource versions, watches,
bookmarks, 410), kubernetes.io/docs/reference/access-authn-authz/rbac (resourceNames).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2 as httpx

from authz.kube.connect import connect
from authz.kube.errors import Gone, Interrupted, KubeError, TooMuch

LONGEST: Final = 4 << 20
"""Bytes of one answer, or of one line of a watch. The largest Secret is 1.4 MB in base64."""

Object = dict[str, Any]
"""An object of Kubernetes, as its JSON has it."""

_CONNECT: Final = 3.0  # seconds
_REQUEST: Final = 10.0  # seconds for all of an answer that is no watch
_CHUNK: Final = 500  # objects in one answer to list; fewer where they are large
_LONGEST_QUOTE: Final = 200
_MOST_PATIENCE: Final = 60.0

_METADATA_ONLY = "application/json;as=PartialObjectMetadata{kind};g=meta.k8s.io;v=v1"


@dataclass(frozen=True, slots=True)
class Resource:
    """The objects of one kind: of all namespaces or of one, perhaps only the one with a name."""

    plural: str
    group: str = ""
    version: str = "v1"
    namespace: str | None = None
    name: str | None = None
    metadata_only: bool = False

    @property
    def path(self) -> str:
        """The collection's path below the server's root."""
        root = f"apis/{self.group}/{self.version}" if self.group else f"api/{self.version}"
        place = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"{root}{place}/{self.plural}"

    def __str__(self) -> str:
        kind = f"{self.plural}.{self.group}" if self.group else self.plural
        name = f" {self.name}" if self.name else ""
        return f"{kind}{name}" + (f" in namespace {self.namespace}" if self.namespace else "")


class ApiServer:
    """Connects when it is first needed, and reads its configuration anew after it was refused."""

    def __init__(self) -> None:
        self.clock: float | None = None
        """When the API server last answered, by its clock, in seconds since the epoch."""
        self._client: httpx.AsyncClient | None = None
        self._namespace = ""
        self._opening = asyncio.Lock()

    async def namespace(self) -> str:
        """The namespace that is meant where none is named.

        Raises:
            KubeError: no cluster is configured.
        """
        await self._open()
        return self._namespace

    async def list(
        self, resource: Resource, keep: Callable[[Object], Object | None] = lambda thing: thing
    ) -> tuple[list[Object], str]:
        """All objects there are, and the resource version from which a watch may go on.

        Of each object, only what `keep` makes of it stays in memory; `None` for nothing. One that
        is more than we read comes as its metadata, for whoever made it may do so on purpose.

        A `get` of a single object would not do: it tells the version at which that was changed
        last, and from one so old the API server lets nobody watch.

        Raises:
            KubeError: the API server cannot be asked, or its answer not be read.
        """
        objects: list[Object] = []
        params = _selector(resource)
        part, limit = resource, _CHUNK
        while True:
            params["limit"] = str(limit)
            try:
                answer = await self._request("list", part, "GET", resource.path, params=params)
            except TooMuch:
                if resource.name or (limit == 1 and part.metadata_only):
                    raise
                if limit == 1:
                    part = replace(resource, metadata_only=True)
                limit = max(1, limit // 8)
                continue
            part, limit = resource, min(_CHUNK, limit * 2)
            metadata = _mapping(answer.get("metadata"))
            # Of metadata alone, an API server writes an empty list as null (seen on 1.37.2).
            items = [] if answer.get("items", "") is None else answer.get("items")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise _garbage(resource)
            objects += [kept for item in items if (kept := keep(item)) is not None]
            following = metadata.get("continue")
            if not following:
                return objects, _resource_version(answer, resource)
            params["continue"] = str(following)

    async def replace(
        self,
        resource: Resource,
        changed: Object,
        *,
        subresource: str = "",
        dry_run: bool = False,
    ) -> None:
        """Put an object in the place of the one with its `metadata.resourceVersion`.

        With `dry_run`, everything is done but the storing: see api-concepts, dry-run.

        Raises:
            KubeError: it was not replaced; with status 409, it has another version by now. See
                `KubeError.unknown_outcome`.
        """
        path = f"{resource.path}/{changed['metadata']['name']}"
        if subresource:
            path = f"{path}/{subresource}"
            resource = replace(resource, plural=f"{resource.plural}/{subresource}")
        params = _dry(dry_run)
        await self._request("update", resource, "PUT", path, params=params, body=changed)

    async def create(self, resource: Resource, made: Object, *, dry_run: bool = False) -> Object:
        """Make an object, or have a review answered; it as it then is. `dry_run`: see `replace`.

        Raises:
            KubeError: it was not made; with status 409, there is one already.
        """
        path, params = resource.path, _dry(dry_run)
        return await self._request("create", resource, "POST", path, params=params, body=made)

    async def version(self) -> Object:
        """What the API server says of its version: `gitVersion` and more.

        Raises:
            KubeError: it cannot be asked.
        """
        return await self._request("get", Resource("version"), "GET", "version")

    async def page(self, pod: Resource, port: int, path: str) -> bytes:
        """What a pod answers to a GET of plain HTTP, by way of the API server.

        Raises:
            KubeError: it cannot be reached from there, or not by us, or does not answer with 200.
        """
        place = f"{pod.path}/{pod.name}:{port}/proxy/{path}"
        proxied = replace(pod, plural="pods/proxy")
        try:
            async with (
                asyncio.timeout(_REQUEST),
                self._answer("get", proxied, "GET", place) as response,
            ):
                return await _content(response, proxied)
        except TimeoutError:
            raise _slow("get", proxied) from None

    async def delete(self, resource: Resource, name: str) -> None:
        """Delete an object, and what it owns; some of it may go on ending for a while.

        Raises:
            KubeError: it was not deleted; with status 404, there was none.
        """
        await self._request("delete", resource, "DELETE", f"{resource.path}/{name}")

    async def watch(
        self, resource: Resource, version: str, seconds: float
    ) -> AsyncGenerator[Object | None, None]:
        """Yield `None` when the watch is on, then its events; end after about so many seconds.

        Raises:
            Gone: the version is too old.
            Interrupted: the stream broke off.
            KubeError: the API server cannot be asked, or what it says not be read.
        """
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
            **_selector(resource),
        }
        # The server ends the watch. Where it does not, it is not there any more.
        silence = seconds + _REQUEST
        async with self._answer(
            "watch", resource, "GET", resource.path, params=params, silence=silence
        ) as response:
            yield None
            async for line in _lines(response, resource):
                yield _event(line, resource)

    @asynccontextmanager
    async def upgraded(
        self,
        resource: Resource,
        path: str,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> AsyncIterator[httpx.Response]:
        """A connection of its own that speaks another protocol, as long as the block lasts.

        It is the extension `network_stream` of the answer. RFC 9110, section 7.8.

        Raises:
            KubeError: the API server does not agree, or cannot be asked.
        """
        async with self._answer(
            "create", resource, "GET", path, params=params, headers=headers
        ) as response:
            if response.status_code != 101:
                raise _garbage(resource)
            yield response

    async def close(self) -> None:
        """Close all connections. The next request opens others."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _request(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> Object:
        try:
            async with (
                asyncio.timeout(_REQUEST),
                self._answer(verb, resource, method, path, params=params, body=body) as response,
            ):
                return _mapping(_parsed(await _content(response, resource), resource))
        except TimeoutError:
            raise _slow(verb, resource) from None

    @asynccontextmanager
    async def _answer(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
        silence: float = _REQUEST,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        client = await self._open()
        headers = {"accept": "application/json", **(headers or {})}
        if resource.metadata_only:
            kind = "List" if verb == "list" else ""
            headers["accept"] = _METADATA_ONLY.format(kind=kind)
        if body is not None:
            headers["content-type"] = "application/json"
        timeout = httpx.Timeout(_REQUEST, connect=_CONNECT, read=silence)
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        request = client.build_request(
            method, path, params=params, content=content, headers=headers, timeout=timeout
        )
        try:
            async with asyncio.timeout(_REQUEST):
                response = await client.send(request, stream=True)
            self.clock = _date(response.headers.get("date"))
            async with aclosing(response):
                if response.status_code >= 300:
                    raise await _refusal(verb, resource, response)
                yield response
        except KubeError as error:
            if error.status == 401:
                await self._forget(client)
            raise
        except httpx.ConnectError as error:
            await self._forget(client)
            raise Interrupted(f"the API server cannot be reached: {_brief(error)}") from None
        except TimeoutError:
            raise _slow(verb, resource) from None
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            what = _brief(error) or type(error).__name__
            raise Interrupted(f"the connection to the API server broke: {what}") from None

    async def _open(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is not None:
                return self._client
            client, self._namespace = await asyncio.to_thread(connect)
            self._client = client
            return client

    async def _forget(self, client: httpx.AsyncClient) -> None:
        """Connect anew next time: with the certificates and tokens that are there by then."""
        if self._client is client:
            await self.close()


# -- reading -----------------------------------------------------------------------------------


async def _content(response: httpx.Response, resource: Resource) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > LONGEST:
            raise _too_long(resource)
    return bytes(content)


async def _lines(response: httpx.Response, resource: Resource) -> AsyncIterator[bytes]:
    """Whole lines. What comes before the end and is not one was cut off, and is told again."""
    held = bytearray()
    async for chunk in response.aiter_raw():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            held += line
            if held:
                yield bytes(held)
            held.clear()
        held += rest
        if len(held) > LONGEST:
            raise _too_long(resource)


def _event(line: bytes, resource: Resource) -> Object:
    event = _mapping(_parsed(line, resource))
    if event.get("type") != "ERROR":
        return event
    status = _mapping(event.get("object"))
    code = status.get("code")
    raise _problem("watch", resource, code if isinstance(code, int) else 500, status)


async def _refusal(verb: str, resource: Resource, response: httpx.Response) -> KubeError:
    try:
        status = _mapping(_parsed(await _content(response, resource), resource))
    except KubeError:
        status = {}
    wait = response.headers.get("retry-after", "")
    seconds = min(float(wait), _MOST_PATIENCE) if wait.isascii() and wait.isdigit() else 0.0
    return _problem(verb, resource, response.status_code, status, retry_after=seconds)


def _problem(
    verb: str, resource: Resource, code: int, status: Object, *, retry_after: float = 0.0
) -> KubeError:
    said = _quote(status.get("message"))
    kind: type[KubeError] = KubeError
    match code:
        case 401:
            text = f"does not accept our credentials (401): log in anew, or mount a token{said}"
        case 403:
            text = f"does not let us {verb} {resource} (403): {_missing_rule(verb, resource)}{said}"
        case 404:
            text = f"has no {resource} (404){said}"
        case 410:
            kind, text = (
                Gone,
                f"no longer has the version of {resource} from which we watch (410){said}",
            )
        case 429:
            text = f"is too busy to {verb} {resource} (429): try again in a moment{said}"
        case _:
            text = f"could not {verb} {resource} ({code}){said}"
    return kind(f"the API server {text}", status=code, retry_after=retry_after)


def _date(header: str | None) -> float | None:
    try:
        return None if header is None else parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return None


def _missing_rule(verb: str, resource: Resource) -> str:
    names = f', resourceNames: ["{resource.name}"]' if resource.name and verb != "create" else ""
    where = f"a Role in {resource.namespace}" if resource.namespace else "a ClusterRole"
    return (
        f'{where} must have the rule {{apiGroups: ["{resource.group}"], resources: '
        f'["{resource.plural}"]{names}, verbs: ["{verb}"]}}'
    )


def _selector(resource: Resource) -> dict[str, str]:
    # RBAC lets a rule with resourceNames pass only where the request selects the name like this.
    return {"fieldSelector": f"metadata.name={resource.name}"} if resource.name else {}


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _parsed(content: bytes, resource: Resource) -> Any:
    try:
        return json.loads(content)
    except RecursionError:
        raise TooMuch(f"the answer for {resource} is nested too deeply to be read") from None
    except ValueError:
        raise _garbage(resource) from None


def _mapping(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _resource_version(value: Object, resource: Resource) -> str:
    version = _mapping(value.get("metadata")).get("resourceVersion")
    if not isinstance(version, str) or not version:
        raise _garbage(resource)
    return version


def _garbage(resource: Resource) -> KubeError:
    return KubeError(
        f"the answer for {resource} is not an API server's: check the server in KUBECONFIG"
    )


def _too_long(resource: Resource) -> KubeError:
    return TooMuch(f"the answer for {resource} is longer than {LONGEST} bytes and was not read")


def _slow(verb: str, resource: Resource) -> KubeError:
    return Interrupted(f"the API server took more than {_REQUEST:g} s to {verb} {resource}")


def _quote(message: Any) -> str:
    if not isinstance(message, str) or not message:
        return ""
    printable = "".join(sign if sign.isprintable() else " " for sign in message)
    return f'; it said "{printable[:_LONGEST_QUOTE]}"'


def _brief(error: Exception) -> str:
    return str(error)[:_LONGEST_QUOTE]
