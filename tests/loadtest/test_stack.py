"""The stack's own addresses."""

import ipaddress
import os
import socket

from authz.lab.harness.ports import free_ports
from loadtest import processes
from loadtest.stack import own_host


def test_a_stack_has_a_loopback_address_of_its_own() -> None:
    hosts = {own_host() for _ in range(200)}
    assert len(hosts) > 190
    assert all(ipaddress.ip_address(host).is_loopback for host in hosts)
    assert "127.0.0.1" not in hosts


def test_free_ports_differ_and_are_free() -> None:
    host = own_host()
    ports = free_ports([host], each=20)
    assert len(set(ports)) == 20
    for port in ports:
        socket.create_server(port).close()


def test_who_listens_on_a_port_is_found() -> None:
    with socket.create_server((own_host(), 0)) as server:
        port = server.getsockname()[1]
        assert processes.listening(port) >= processes.family(os.getpid())
    assert processes.listening(port) == frozenset()
