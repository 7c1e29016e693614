"""Calls to a service in the name of somebody, signed as its gateway would."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import grpc

from drey_runtime.auth import TOKEN_METADATA, Metadata, Principal, TokenSigner
from drey_runtime.signed import SignedChannel

_AS = "x-test-as"


def in_the_name_of(name: str, *roles: str) -> Metadata:
    """Metadata of a call over a channel of `signed_as_gateway`."""
    return ((_AS, f"{','.join(roles)} {name}"),)


def signed_as_gateway(channel: grpc.aio.Channel, keys: Path, audience: str) -> grpc.aio.Channel:
    """A channel to the part `audience`, with the keys in a folder."""
    signer = TokenSigner.from_file("gateway", keys / "gateway.pem")

    def dress(method: str, metadata: Metadata) -> Metadata:
        return tuple(
            (TOKEN_METADATA, signer.sign_token(_make_principal(value), audience, method))
            if key == _AS
            else (key, value)
            for key, value in metadata
        )

    return cast(grpc.aio.Channel, SignedChannel(channel, dress))


def _make_principal(text: str) -> Principal:
    roles, _, name = text.partition(" ")
    return Principal(name, tuple(roles.split(",")))
