"""A gateway with a certificate speaks TLS only; the services behind it are as before."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey_stack import HttpOptions
from drey_stack.whole import Stack, StackOptions
from drey_testing.certificates import Authority

HANGS_S = 120


def test_with_a_certificate_it_speaks_tls_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    gateway = authority.sign("gateway")
    chain = tmp_path / "chain.pem"  # the command trusts what the gateway shows
    chain.write_bytes(gateway.certificate.read_bytes() + authority.certificate.read_bytes())
    settings = {"DREY_TLS_CERT": str(chain), "DREY_TLS_KEY": str(gateway.key)}
    options = StackOptions(
        tmp_path / "state", monitors=0, environment=settings, http=HttpOptions(), fsync=False
    )

    async def whole() -> None:
        async with Stack(options) as stack:
            await _trusted(stack, authority.certificate.read_bytes())
            await _plain(stack)
            await asyncio.to_thread(_over_http, stack, authority.certificate)
            # the command finds server, key and certificate in the state folder
            command = [sys.executable, "-m", "drey_cli.main", "--state", str(stack.folder)]
            done = await asyncio.to_thread(
                subprocess.run,
                [*command, "whoami", "--json"],
                capture_output=True,
                text=True,
                timeout=HANGS_S,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "admin" in done.stdout

    asyncio.run(whole())


def _over_http(stack: Stack, authority: Path) -> None:
    """HTTP is served by the same certificate, and reaches the gateway by TLS too."""
    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = False  # the certificate is the gateway's
    context.set_alpn_protocols(["h2"])
    address = urlsplit(stack.web)
    assert address.scheme == "https"
    with (
        socket.create_connection((address.hostname or "", address.port or 0), HANGS_S) as plain,
        context.wrap_socket(plain) as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"
    context.set_alpn_protocols(["http/1.1"])
    connection = http.client.HTTPSConnection(address.netloc, timeout=HANGS_S, context=context)
    try:
        headers = {"authorization": f"Bearer {stack.key}"}
        connection.request("GET", "/v1/whoami", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        assert b'"admin"' in response.read()
    finally:
        connection.close()


async def _trusted(stack: Stack, certificate: bytes) -> None:
    credentials = grpc.ssl_channel_credentials(certificate)
    async with grpc.aio.secure_channel(stack.server, credentials) as channel:
        stub = access_service_pb2_grpc.AccessServiceStub(channel)
        metadata = (("authorization", f"Bearer {stack.key}"),)
        async with asyncio.timeout(HANGS_S):
            while True:
                try:
                    answer = await stub.WhoAmI(
                        access_service_pb2.WhoAmIRequest(), metadata=metadata, timeout=60
                    )
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                    await asyncio.sleep(0.1)
        assert answer.principal == "admin"


async def _plain(stack: Stack) -> None:
    async with grpc.aio.insecure_channel(stack.server) as channel:
        stub = access_service_pb2_grpc.AccessServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.WhoAmI(access_service_pb2.WhoAmIRequest(), timeout=3)
