"""As much of a kubelet as `pods/portforward` takes, with the code by which kubelets do it.

A real API server passes a port-forward on to the pod's node. The node here is a small program
around Kubernetes' own k8s.io/cri-streaming, which kubelets and container runtimes serve it with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from authz.lab.controlplane import build
from authz.lab.controlplane.api import Api
from authz.lab.controlplane.versions import KUBERNETES
from authz.lab.harness.processes import child

NODE: Final = "node"
_MAIN: Final = """package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
)

// Each file NAMESPACE.POD.PORT in it has the address to which that port leads.
type folder string

func (f folder) PortForward(
	_ context.Context, pod, _ string, port int32, stream io.ReadWriteCloser,
) error {
	address, err := os.ReadFile(filepath.Join(string(f), fmt.Sprintf("%s.%d", pod, port)))
	if err != nil {
		return errors.New("connection refused")
	}
	conn, err := net.Dial("tcp", string(address))
	if err != nil {
		return err
	}
	defer conn.Close()
	go io.Copy(conn, stream)
	_, err = io.Copy(stream, conn)
	return err
}

func main() {
	serve := func(w http.ResponseWriter, r *http.Request) {
		pod := strings.Split(strings.TrimPrefix(r.URL.Path, "/portForward/"), "/")
		options, err := portforward.NewV4Options(r)
		if err != nil || len(pod) != 2 {
			http.Error(w, r.URL.Path, 400)
			return
		}
		portforward.ServePortForward(
			w, r, folder(os.Args[1]), strings.Join(pod, "."), "", options,
			time.Minute, time.Minute, portforward.SupportedProtocols)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(serve))
	server.StartTLS()
	fmt.Fprintln(os.Stderr, server.Listener.Addr().(*net.TCPAddr).Port)
	select {}
}
"""


def program() -> build.Program:
    """The node's program."""

    def make(work: Path, file: Path) -> None:
        build._write_module(work)
        (work / "kubelet").mkdir()
        (work / "kubelet" / "main.go").write_text(_MAIN)
        build._build(work, file, "./kubelet", mod="mod")

    return build.Program("port-forward", KUBERNETES, make)


@asynccontextmanager
async def running(api: Api, folder: Path) -> AsyncIterator[Path]:
    """A node, as long as the block lasts; the folder of its ports."""
    ports, log = folder / "ports", folder / "kubelet.log"
    ports.mkdir()
    async with child("kubelet", [program().file, ports], log) as process:

        async def said() -> bool:
            return log.read_text().endswith("\n")

        await process.until(said)
        await api.apply([_node(int(log.read_text().split()[0]))])
        yield ports


def _node(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    }
