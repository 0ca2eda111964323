"""The box in which attacks are played, who is in it beside the standard cluster, and its rules."""

from __future__ import annotations

import asyncio
import copy
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from authz._proto.ext_authz_pb2 import CheckRequest, CheckResponse
from authz.domain import tokens
from authz.domain.identity import SpiffeId
from authz.domain.reason import InvalidToken
from authz.lab.box.istio.client import NoAnswer, Tls
from authz.lab.box.istio.mesh import AUTHZ, Mesh
from authz.lab.box.paths.table import called
from authz.lab.harness.certs import Certificate
from authz.lab.world.model import DOMAIN, Json
from authz.lab.world.standard_policy import standard_policy
from authz.testing import Outcome, token_set
from authz.wire import virtual_service_name
from tests.mutations import ROOT, Mutation

TOKEN: Final = "x-tenant-token"
CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"

Documents: TypeAlias = tuple[Json, ...]
TokenSource: TypeAlias = Callable[["Box"], Awaitable[str]]
"""How somebody came by a token."""
Action: TypeAlias = Callable[["Box"], Awaitable[str]]
"""What somebody does; what came of it in a few words, such as `403 token-invalid`."""


GRANTS: Final[list[Mapping[str, object]]] = [
    {"to": "acme-db", "from": "initech", "service_account": "plain"},
    {"to": "acme-db", "from": "initech", "service_account": "read.er"},
    {"to": "acme-db", "from": "initech", "port": 9091},
    {"to": "acme-web", "from": "initech", "port": 9091},
]


NAMES: Final = "{{.Name}}.{{.Namespace}}.example.com"
"""How Knative names services in the box."""
NAMESPACES: Final = {
    "acme-db": {"public": False},
    "initech": {"public": ["hello", "idle"]},
    "umbrella": {"mode": "shadow"},
}


def policy(*more_grants: Mapping[str, object], **changes: object) -> str:
    """The policy of the box, with more grants or other top-level fields."""
    own: dict[str, object] = {"host_templates": [NAMES], "namespaces": NAMESPACES}
    return standard_policy(grants=[*GRANTS, *more_grants], **{**own, **changes})


# -- rules that can be taken away ----------------------------------------------------------------


@dataclass(frozen=True)
class Without:
    """The box without one rule, or with one that others have instead of it."""

    what: str
    """In words, for the list of attacks."""

    documents: Callable[[Documents], Iterable[Json]] | None = None
    pods: tuple[str, ...] = ()
    """Whose proxies the documents are for."""

    policy: str = ""
    mutants: tuple[Mutation, ...] = ()


NOTHING: Final = Without("with every rule")


def without_document(name: str, *pods: str, kind: str = "") -> Without:
    """Without a shipped document; or only that of a `kind`, if several share the name."""

    def change(documents: Documents) -> list[Json]:
        kept = [
            it for it in documents if it["metadata"]["name"] != name or kind not in {"", it["kind"]}
        ]
        assert len(kept) < len(documents), f"{name} is not shipped"
        return kept

    return Without(f"without {kind or 'EnvoyFilter'} `{name}`", change, pods)


def changed_filter(
    what: str, document: str, change: Callable[[Json], None], *pods: str, left_out: str = ""
) -> Without:
    """With a shipped EnvoyFilter that is changed in place, and without the documents of a name.

    `change` gets the filter's spec.
    """

    def changed(documents: Documents) -> list[Json]:
        kept = [it for it in documents if it["metadata"]["name"] != left_out]
        result = copy.deepcopy(kept)
        (found,) = (
            it
            for it in result
            if it["metadata"]["name"] == document and it["kind"] == "EnvoyFilter"
        )
        change(found["spec"])
        return result

    return Without(what, changed, pods)


def without_rule(*mutants: Mutation) -> Without:
    """With a server that lacks rules of its own."""
    return Without(" and ".join(f"rule: not “{it.name}”" for it in mutants), mutants=mutants)


Headers: TypeAlias = Sequence[tuple[str, str]]


def claims_of(token: str) -> str:
    """`token acme-web→acme-db`, or what was sent, if that is no token."""
    try:
        claims = tokens.parse(token).claims
    except InvalidToken:
        return f"“{token}”"
    return f"token {claims.source}→{claims.destination}"


def check_message(principal: str = "", headers: Headers = (), route_of: str = "") -> bytes:
    """A CheckRequest as anybody could write it."""
    request = CheckRequest()
    request.attributes.source.principal = principal
    if route_of:
        istio = request.attributes.route_metadata_context.filter_metadata["istio"]
        istio.fields["config"].string_value = virtual_service_name(route_of, "any")
    for key, value in headers:
        raw = value.encode()
        request.attributes.request.http.header_map.headers.add(key=key, raw_value=raw)
    return request.SerializeToString()


def grpc_call(message: bytes, metadata: Headers) -> dict[str, Any]:
    """A unary gRPC call, as an HTTP client makes it."""
    return {
        "method": "POST",
        "headers": [("content-type", "application/grpc"), ("te", "trailers"), *metadata],
        "body": b"\0" + len(message).to_bytes(4, "big") + message,
    }


class Box:
    """A running box, and what is done in it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._without = NOTHING
        self._before: dict[str, int] = {}
        self._issued: dict[str, Certificate] = {}

    # ---- doing ----

    async def call(
        self,
        pod: str,
        url: str,
        *,
        token: TokenSource | str = "",
        headers: Headers = (),
        **how: Any,
    ) -> Outcome:
        """A request, and what came of it."""
        value = token if isinstance(token, str) else await token(self)
        if "/" in how.get("via", ""):  # a pod's name, as everywhere here
            name, _, port = how["via"].partition(":")
            how["via"] = f"{self.mesh.address(name)}:{port}"
        carried = [(TOKEN, value)] if value else []
        return await called(self.mesh, pod, url, headers=[*headers, *carried], **how)

    async def raw(
        self, pod: str, to: str, sent: bytes, *, first: float, seconds: float, **how: Any
    ) -> bytes:
        """What comes back on a raw connection until it is closed or silent.

        `first` is how many seconds to wait for the first of it, `seconds` for more.
        """
        try:
            async with self.mesh.connected(pod, to, **how) as connection:
                if sent:
                    await connection.send(sent)
                received = await connection.receive(first)
                return received + (await connection.everything(seconds) if received else b"")
        except (NoAnswer, OSError):
            return b""

    async def check(
        self,
        who: str | Certificate,
        *metadata: tuple[str, str],
        principal: str = "",
        headers: Headers = (),
        route_of: str = "",
    ) -> CheckResponse | None:
        """Ask the service itself, from the attacker's pod, with somebody's certificate.

        `route_of` is the namespace whose route a gateway would ask about.
        """
        certificate = self.mesh.certificate(who) if isinstance(who, str) else who
        message = check_message(principal, headers, route_of)
        try:
            answer = await self.mesh.call(
                "mallory/bare",
                f"http://authz.authz-system:9000{CHECK}",
                **grpc_call(message, metadata),
                http2=True,
                tls=Tls(certificate, f"authz.authz-system.svc.{DOMAIN}", ("h2",)),
            )
        except NoAnswer:
            return None
        return CheckResponse.FromString(answer.body[5:])

    async def signed(
        self, who: str | Certificate, cluster_name: str, question: str = "sign", route_of: str = ""
    ) -> str:
        """A token as the service gives it to somebody for an upstream cluster."""
        asked = ("x-authz-question", question), ("x-authz-upstream", cluster_name)
        response = await self.check(who, *asked, route_of=route_of)
        assert response is not None
        return token_set(response)

    async def taken(self, pod: str) -> str:
        """The tokens that a pod's app saw, since they were last forgotten."""
        seen = [token for it in await self.mesh.seen(pod) for token in it.header(TOKEN)]
        return ", ".join(map(claims_of, seen)) or "no token"

    def identity(self, spiffe_id: str) -> Certificate:
        """A certificate of the mesh's authority for any identity."""
        if spiffe_id not in self._issued:
            # In a folder of its own: the box names files by namespace and account alone.
            authority = copy.copy(self.mesh.authority)
            authority._directory = self.mesh.directory / f"certificates-{len(self._issued)}"
            authority._directory.mkdir()
            self._issued[spiffe_id] = authority.issue(SpiffeId.parse(spiffe_id))
        return self._issued[spiffe_id]

    # ---- rules ----

    async def use(self, without: Without | None) -> None:
        """Take a rule away, and bring back the one that was away before."""
        after = without or NOTHING
        before, self._without = self._without, after
        if after is before:
            return
        if back := set(before.pods) - set(after.pods):
            await self.patch(self.mesh.shipped, sorted(back))
        if after.documents is not None:
            await self.patch(after.documents(self.mesh.shipped), after.pods)
        await self.mesh.set_policy(after.policy or policy())
        if before.mutants or after.mutants:
            await self.mesh.kill(AUTHZ)
            self._program(after.mutants)
            await self.mesh.start_authz()
        if self.mesh.reuse:
            await self._forget_answers()

    async def _forget_answers(self) -> None:
        """Start the proxies again that may have kept one of the rules as they were."""
        mesh = self.mesh
        told = await self._let_in()
        pods = [pod for pod, number in told.items() if number > self._before.get(pod, 0)]
        await asyncio.gather(*map(mesh.start_proxy_again, pods))
        await mesh.settled()
        self._before = await self._let_in()

    async def _let_in(self) -> dict[str, int]:
        """How often each proxy was told to let something go on."""
        counts = {pod: await self.mesh.checks(pod, kept=False) for pod in self.mesh.proxies}
        return {
            pod: sum(n for (_, word), n in it.items() if word == "ok") for pod, it in counts.items()
        }

    async def patch(self, documents: Iterable[Json], pods: Sequence[str]) -> None:
        """Start the proxies of some pods again, as if these were the documents in the cluster."""
        await self.mesh.install([*self.mesh.world.documents, *documents], pods)

    def _program(self, mutants: tuple[Mutation, ...]) -> None:
        """Let the server, when it next starts, be the one with these mutations."""
        environment = self.mesh.authz.environment
        for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
            environment.pop(name, None)
        if mutants:
            environment["PYTHONPATH"] = str(mutated(mutants, self.mesh.directory / "mutant"))
            environment["PYTHONSAFEPATH"] = "1"  # not the working directory's package


def mutated(mutants: Iterable[Mutation], folder: Path) -> Path:
    """Make a copy of the package with `mutants` in `folder`; links where nothing differs."""
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "authz"
    package.mkdir(parents=True)
    (package / "domain").mkdir()
    entries = [*(ROOT / "authz").iterdir(), *(ROOT / "authz" / "domain").iterdir()]
    for entry in entries:
        if entry.name not in {"__pycache__", "domain"}:
            (package / entry.relative_to(ROOT / "authz")).symlink_to(entry)
    for mutant in mutants:
        module = package / "domain" / f"{mutant.module}.py"
        source = module.read_text()
        assert source.count(mutant.rule) == 1, f"{mutant.name}: not there, or not only once"
        module.unlink()
        module.write_text(source.replace(mutant.rule, mutant.instead))
    return folder
