"""A key store in one Secret of Kubernetes, for servers on more than one machine.

The API server is what keeps it consistent: a change names the resource version that it was made
from, and only one of two such changes is taken. Servers watch that one Secret.

It needs no more than `list`, `watch` and `update` on the Secret by its name. A Secret that is
there without a keyring is filled, so that nobody needs the right to create Secrets, which RBAC
cannot limit to a name.

Source: kubernetes.io/docs/concepts/configuration/secret (size), kubernetes.io/docs/reference/
using-api/api-concepts (resource versions), .../server-side-apply (managed fields).
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from authz.errors import Conflict, KeyStoreError, NoKeyring
from authz.keystore.base import IF_EMPTY
from authz.kube import ApiServer, Changed, Failed, KubeError, Listed, Pace, Resource, Seen, follow
from authz.kube.api import Object

KEY: Final = "keyring"
"""The one key of the Secret's data that is ours."""

MANAGER: Final = "tenant-authz"
"""How the API server calls us where it keeps who set which field: as our user agent does."""

LARGEST: Final = 1 << 20
"""Bytes that all data of a Secret may have: Kubernetes' MaxSecretSize."""

T = TypeVar("T")

_PACE: Final = Pace(relist=600.0)
_FULL = (
    f"cannot grow: the sealed keyring would have {{size}} bytes and a Secret holds {LARGEST}. "
    "Rotate or revoke a root key instead of single namespaces: it renews all of them and takes no "
    "room"
)


class KubernetesBackend:
    """Keeps one sealed record in the data of a Secret.

    Args:
        name: the Secret's name.
        namespace: where it is; `None` for the namespace of the service account or kubeconfig.
        pace: when to watch anew.
    """

    def __init__(
        self,
        name: str,
        namespace: str | None = None,
        *,
        pace: Pace = _PACE,
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._pace = pace
        self._api = ApiServer()
        self._managers: frozenset[str] = frozenset()
        self._closed = asyncio.Event()

    def __str__(self) -> str:
        place = f"{self._namespace}/{self._name}" if self._namespace else self._name
        return f"key store kubernetes:{place}"

    async def read(self) -> bytes:
        """See `Backend.read`."""
        try:
            return self._record(await self._secret())
        except KubeError as error:
            raise self._explained(error) from None

    async def write(self, record: bytes, *, replaces: bytes | None, rehearse: bool = False) -> None:
        """See `Backend.write`. A rehearsal goes by the API server's `dryRun`, admission and all."""
        try:
            secret = await self._secret()
        except KubeError as error:
            raise self._explained(error) from None
        if replaces is None:
            self._must_be_empty(secret)
        elif self._record(secret) != replaces:
            raise self._overtaken()
        try:
            await self._put(secret, record, dry_run=rehearse)
        except KubeError as error:
            if error.status == 409:
                raise self._overtaken() from None
            if error.unknown_outcome and not rehearse and await self._is_stored(record):
                return
            raise self._explained(error) from None

    def put_by(self) -> str | None:
        """See `Backend.put_by`. The API server knows, unless something took that off."""
        if not self._managers or MANAGER in self._managers:
            return None
        return f"was put there by {', '.join(sorted(self._managers))}, not by `authz keys`"

    def clock(self) -> float | None:
        """See `Backend.clock`: the API server's."""
        return self._api.clock

    async def looks(self) -> AsyncGenerator[bytes | KeyStoreError, None]:
        """See `Backend.looks`."""
        held: bytes | KeyStoreError = KeyStoreError(f"{self} has not been read yet")
        async with aclosing(_until(self._closed, self._seen())) as seen:
            async for look in seen:
                match look:
                    case Failed(error):
                        yield self._explained(error)
                        continue
                    case Listed(objects):
                        held = self._look(objects[0] if objects else None, before=held)
                    case Changed(thing, deleted):
                        held = self._look(None if deleted else thing, before=held)
                yield held

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed.set()
        await self._api.close()

    async def _seen(self) -> AsyncGenerator[Seen, None]:
        while True:
            try:
                resource = await self._resource()
            except KubeError as error:  # a kubeconfig that is not there yet
                yield Failed(error)
                await self._pace.sleep(self._pace.uniform(0.5, 1.0))
                continue
            async with aclosing(follow(self._api, resource, self._pace)) as seen:
                async for look in seen:
                    yield look

    async def _resource(self) -> Resource:
        if self._namespace is None:
            self._namespace = await self._api.namespace()
        return Resource("secrets", namespace=self._namespace, name=self._name)

    async def _secret(self) -> Object | None:
        objects, _ = await self._api.list(await self._resource())
        return objects[0] if objects else None

    async def _put(self, secret: Object | None, record: bytes, *, dry_run: bool) -> None:
        data = _data(secret)
        data[KEY] = base64.b64encode(record).decode()
        size = sum(_decoded_size(str(value)) for value in data.values())
        if size > LARGEST:
            raise KeyStoreError(f"{self} {_FULL.format(size=size)}")
        resource = await self._resource()
        if secret is None:
            metadata: Any = {"name": self._name, "namespace": self._namespace}
            made = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"}
            thing = {**made, "metadata": metadata, "data": data}
            await self._api.create(resource, thing, dry_run=dry_run)
        else:
            metadata = dict(secret["metadata"])
            metadata.pop("managedFields", None)  # the API server keeps its own record of these
            kind = {"apiVersion": "v1", "kind": "Secret"}  # items of a list do not say it
            thing = {**secret, **kind, "metadata": metadata, "data": data}
            await self._api.replace(resource, thing, dry_run=dry_run)

    async def _is_stored(self, record: bytes) -> bool:
        """Whether a change was made although its answer was lost. No two records are the same."""
        with suppress(KubeError, KeyStoreError):
            return self._record(await self._secret()) == record
        raise KeyStoreError(
            f"{self} stopped answering in the middle of the change, so that it is unknown whether "
            "it was made: see `authz keys list` before you repeat it"
        )

    def _look(
        self, secret: Object | None, *, before: bytes | KeyStoreError
    ) -> bytes | KeyStoreError:
        try:
            record = self._record(secret)
        except KeyStoreError as error:
            return error
        return before if record == before else record

    def _record(self, secret: Object | None) -> bytes:
        if secret is None:
            raise NoKeyring(f"{self} does not exist: {IF_EMPTY}")
        encoded = _data(secret).get(KEY)
        self._managers = frozenset(_managers(secret))
        if encoded is None:
            raise NoKeyring(f"{self} holds no keyring: {IF_EMPTY}")
        try:
            record = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise KeyStoreError(f"{self} is damaged: restore a backup") from None
        if len(record) > LARGEST:
            raise KeyStoreError(f"{self} is larger than a Secret can be: restore a backup")
        return record

    def _must_be_empty(self, secret: Object | None) -> None:
        if KEY in _data(secret):
            raise Conflict(
                f"{self} holds a keyring already, and a new one would lock out every tenant: "
                "use it, or choose another name"
            )

    def _overtaken(self) -> Conflict:
        return Conflict(f"{self} was changed by somebody else: repeat the change")

    def _explained(self, error: KubeError) -> KeyStoreError:
        return KeyStoreError(f"{self}: {error}")


def _data(secret: Object | None) -> dict[str, Any]:
    data = None if secret is None else secret.get("data")
    return dict(data) if isinstance(data, dict) else {}


def _managers(secret: Object) -> Iterator[str]:
    """Who set the keyring, as far as the API server noted it."""
    metadata = secret.get("metadata")
    entries = metadata.get("managedFields") if isinstance(metadata, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        try:
            if f"f:{KEY}" in entry["fieldsV1"]["f:data"]:
                yield str(entry["manager"])
        except (KeyError, TypeError):
            continue


def _decoded_size(encoded: str) -> int:
    return len(encoded) * 3 // 4 - encoded.count("=")


async def _until(closed: asyncio.Event, things: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yield what comes until the event is set, and then end, whatever is being waited for."""
    end = asyncio.create_task(closed.wait())
    async with aclosing(things):
        try:
            while True:
                following = asyncio.ensure_future(anext(things))
                try:
                    await asyncio.wait([following, end], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not following.done():
                        following.cancel()
                        await asyncio.wait([following])
                if closed.is_set() or following.cancelled():
                    return
                yield following.result()
        finally:
            end.cancel()
