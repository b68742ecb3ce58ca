"""No test reaches beyond this machine: connections other than to loopback raise."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any


class NetworkRefused(RuntimeError):
    """A test, or what it called, tried to reach another machine."""


def refuse_network() -> None:
    """From now on this process can connect to itself only; looking up another host's name fails too."""

    def refusing(call: Any) -> Any:
        def connect(self: socket.socket, address: Any, *rest: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
                raise NetworkRefused(f"a test tried to reach {address[0]}")
            return call(self, address, *rest)

        return connect

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        if not _is_loopback(host):
            raise NetworkRefused(f"a test tried to look up {host}")
        return real_look_up(host, *rest, **options)

    real_look_up = socket.getaddrinfo
    socket.socket.connect = refusing(socket.socket.connect)  # type: ignore[method-assign]
    socket.socket.connect_ex = refusing(socket.socket.connect_ex)  # type: ignore[method-assign]
    socket.getaddrinfo = look_up


def _is_loopback(host: Any) -> bool:
    if host in (None, "", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
