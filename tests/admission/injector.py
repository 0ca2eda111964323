"""The real injector: istiod's webhook, with the templates of its own module."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from ruamel.yaml import YAML

from authz.domain.identity import SpiffeId
from authz.lab.controlplane import build
from authz.lab.controlplane.running import Plane
from authz.lab.harness.certs import Authority
from authz.lab.harness.processes import child
from tests.admission.rows import Json

_TEMPLATES = {
    "sidecar": "injection-template",
    "gateway": "gateway-injection-template",
    "grpc-agent": "grpc-agent",
}


@asynccontextmanager
async def injecting(plane: Plane, istio: str) -> AsyncIterator[Json]:
    """Run an istiod that injects, with its CNI plugin; give the webhook to register."""
    folder = plane.directory / "injector"
    settings = folder / "var" / "lib" / "istio" / "inject"
    settings.mkdir(parents=True)
    config, values = _settings(build.istio_module(istio))
    (settings / "config").write_text(json.dumps(config))
    (settings / "values").write_text(json.dumps(values))
    (folder / "mesh.json").write_text("{}")
    authority = Authority(folder / "pki", "injector")
    identity = SpiffeId.parse("spiffe://cluster.local/ns/istio-system/sa/istiod")
    own = authority.issue(identity, dns_name="localhost")
    ads, secure, http, https, monitoring = _ports(5)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "POD_NAME": "istiod",
        "POD_NAMESPACE": "istio-system",
        "REVISION": "default",
        "JWT_POLICY": "third-party-jwt",
        "ROOT_CA_DIR": str(folder / "cacerts"),
        "INJECTION_WEBHOOK_CONFIG_NAME": "",
        "VALIDATION_WEBHOOK_CONFIG_NAME": "",
        "ENABLE_LEADER_ELECTION": "false",
        "PILOT_ENABLE_GATEWAY_API": "false",
    }
    argv: list[str | Path] = [
        *(build.istiod(istio).file, "discovery", "--kubeconfig", plane.kubeconfig),
        *("--meshConfig", folder / "mesh.json", "--ctrlz_port", "0", "--shutdownDuration", "0s"),
        *("--grpcAddr", ads, "--secureGRPCAddr", secure, "--httpAddr", http),
        *("--httpsAddr", https, "--monitoringAddr", monitoring),
        *("--tlsCertFile", own.cert_file, "--tlsKeyFile", own.key_file),
        *("--caCertFile", own.ca_file),
    ]
    log = plane.directory / "injector.log"
    async with child("istiod", argv, log, env, folder) as process, httpx.AsyncClient() as client:

        async def ready() -> bool:
            try:
                return (await client.get(f"http://{http}/ready")).status_code == 200
            except httpx.HTTPError:
                return False

        await process.until(ready)
        yield _webhook(https.rpartition(":")[2], own.ca_file)


def _settings(module: Path) -> tuple[Json, Json]:
    """What the chart puts into the ConfigMap istio-sidecar-injector, with the CNI plugin."""
    chart = module / "manifests" / "charts" / "istio-control" / "istio-discovery"
    defaults = YAML(typ="safe", pure=True).load((chart / "values.yaml").read_text())
    values = defaults["_internal_defaults_do_not_set"]
    values["global"] |= {"hub": "registry.test/istio", "tag": "dev"}
    values["pilot"] = {"cni": {"enabled": True, "provider": "default"}, "env": {}}
    templates = {
        name: (chart / "files" / f"{file}.yaml").read_text() for name, file in _TEMPLATES.items()
    }
    config = {"policy": "enabled", "defaultTemplates": ["sidecar"], "templates": templates}
    kept = ("global", "sidecarInjectorWebhook", "revision", "pilot", "gateways")
    return config, {key: values[key] for key in kept}


def _webhook(port: str, ca_file: Path) -> Json:
    """As the chart has it for the default revision and namespaces with istio-injection=enabled."""
    off = {"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}
    on = {"key": "istio-injection", "operator": "In", "values": ["enabled"]}
    hook = {
        "name": "namespace.sidecar-injector.istio.io",
        "clientConfig": {
            "url": f"https://localhost:{port}/inject",
            "caBundle": base64.b64encode(ca_file.read_bytes()).decode(),
        },
        "rules": [
            {
                "operations": ["CREATE"],
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods"],
            }
        ],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchExpressions": [on]},
        "objectSelector": {"matchExpressions": [off]},
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector"},
        "webhooks": [hook],
    }


def _ports(count: int) -> list[str]:
    """Addresses of loopback that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{it.getsockname()[1]}" for it in sockets]
    for it in sockets:
        it.close()
    return found
