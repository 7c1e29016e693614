"""A gateway with a certificate speaks TLS only; the services behind it are as before."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey_stack.whole import Stack, StackOptions

pytestmark = pytest.mark.timeout(200)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drey test")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def test_with_a_certificate_it_speaks_tls_only(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    settings = {"DREY_TLS_CERT": str(certificate), "DREY_TLS_KEY": str(key)}
    options = StackOptions(tmp_path / "state", monitors=0, environment=settings, fsync=False)

    async def whole() -> None:
        async with Stack(options) as stack:
            await _trusted(stack, certificate.read_bytes())
            await _plain(stack)
            # the command finds server, key and certificate in the state folder
            command = [sys.executable, "-m", "drey_cli.main", "--state", str(stack.folder)]
            done = await asyncio.to_thread(
                subprocess.run,
                [*command, "key", "whoami", "--json"],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "admin" in done.stdout

    asyncio.run(whole())


async def _trusted(stack: Stack, certificate: bytes) -> None:
    credentials = grpc.ssl_channel_credentials(certificate)
    async with grpc.aio.secure_channel(stack.server, credentials) as channel:
        stub = access_service_pb2_grpc.AccessServiceStub(channel)
        metadata = (("authorization", f"Bearer {stack.key}"),)
        for _ in range(100):
            try:
                answer = await stub.WhoAmI(
                    access_service_pb2.WhoAmIRequest(), metadata=metadata, timeout=5
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
