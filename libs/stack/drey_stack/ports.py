"""Free ports on the loopback interface."""

import random
import socket
from collections import deque
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LOWEST = 20_000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: deque[int] = deque(maxlen=200)
"""Ports that were chosen lately, and may not be bound yet."""
_share = [0, 1]


def take_share(number: int, of: int) -> None:
    """Choose every `of`-th port only from here on: `number`, below `of`, is this process's own.

    Processes that choose many ports beside each other would now and then choose the same one, in
    the second or two until a server binds it.
    """
    _share[:] = number, of


def _ephemeral_start() -> int:
    """First port that the kernel hands out to outgoing connections."""
    try:
        return int(_RANGE_FILE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def is_free(port: int, *, udp: bool = True) -> bool:
    """Whether a server could bind `port` on 127.0.0.1 now (TCP, and UDP unless `udp` is false)."""
    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM] if udp else [socket.SOCK_STREAM]
    for kind in kinds:
        with socket.socket(socket.AF_INET, kind) as sock:
            if kind == socket.SOCK_STREAM:
                # as servers do: a port in TIME_WAIT is free, a listening one is not
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


def free_port(avoid: frozenset[int] | set[int] = frozenset()) -> int:
    """A port that is free for TCP and UDP on 127.0.0.1.

    It lies below the range of outgoing connections where there is room: a client that keeps
    knocking at a dead server's port inside that range can end up connected to itself, and the
    server cannot come back. Raises OSError when none is found.
    """
    low, high = _LOWEST, _ephemeral_start()
    if high - low < 1_000:
        low, high = 61_001, 65_500
    number, of = _share
    chooser = random.SystemRandom()
    for _ in range(500):
        port = chooser.randrange(low + number, high, of)
        if port not in avoid and port not in _given and is_free(port):
            _given.append(port)
            return port
    raise OSError(f"no free port between {low} and {high} on {LOOPBACK}")


def reached_at(host: str) -> str:
    """Where a neighbour reaches a server that listens at `host`, perhaps at every address."""
    return {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)
