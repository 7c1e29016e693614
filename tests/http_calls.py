"""Calls over HTTP as a browser or `curl` makes them, for tests."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

HANGS_S = 120
_TRAILERS = 0x80


@dataclass(frozen=True)
class HttpAnswer:
    """Status, headers and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """That of the error's details; empty where it is none."""
        details = self.json.get("details", []) if self.status != 200 else []
        return "".join(d["reason"] for d in details if d["@type"].endswith("google.rpc.ErrorInfo"))

    @property
    def grpc_reason(self) -> str:
        """That of a gRPC-Web answer without messages, whose status is in its headers."""
        encoded = self.headers["grpc-status-details-bin"]
        raw = b64decode(encoded + "=" * (-len(encoded) % 4))
        info = error_details_pb2.ErrorInfo()
        assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(raw).details)
        return info.reason


@contextmanager
def open_call(
    url: str, verb: str, path: str, body: bytes | None = None, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """An answer whose body is still to be read; an underscore of a header's name is a hyphen."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANGS_S)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(verb, path, body, named)
        response = connection.getresponse()
        yield response
        response.close()
    finally:
        connection.close()


def call_http(
    url: str, verb: str, path: str, body: Any = None, *, key: str = "", **headers: str
) -> HttpAnswer:
    """The whole answer. A body that is not bytes is sent as JSON."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    if key:
        headers["authorization"] = f"Bearer {key}"
    with open_call(url, verb, path, raw, **headers) as response:
        names = {name.lower(): value for name, value in response.getheaders()}
        return HttpAnswer(response.status, names, response.read())


def send_raw(url: str, request: bytes) -> HttpAnswer:
    """The answer to bytes that need not be HTTP, on a connection of their own."""
    with socket.create_connection(urlsplit(url).netloc.split(":"), timeout=HANGS_S) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return HttpAnswer(response.status, dict(response.getheaders()), response.read())


def grpc_web_frames(
    url: str, method: str, request: Message, key: str
) -> Iterator[bytes | dict[str, str]]:
    """The messages of a gRPC-Web call, and its trailers as the last."""
    raw = request.SerializeToString()
    framed = struct.pack(">BI", 0, len(raw)) + raw
    headers = {"content_type": "application/grpc-web+proto", "x_grpc_web": "1"}
    headers["authorization"] = f"Bearer {key}"
    with open_call(url, "POST", method, framed, **headers) as response:
        assert response.status == 200, response.status
        if "grpc-status" in response.headers:  # a refusal without a message has no body
            yield dict(response.getheaders())
        while head := response.read(5):
            flags, length = struct.unpack(">BI", head)
            content = response.read(length)
            if flags & _TRAILERS:
                lines = content.decode().strip().split("\r\n")
                yield dict(line.split(":", 1) for line in lines)
            else:
                yield content
