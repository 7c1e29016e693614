"""A channel to another part whose calls carry a token each: a token is good for one method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc

from drey_runtime import telemetry
from drey_runtime.auth import Metadata, TokenSigner

Dress = Callable[[str, Metadata], Metadata]


class SignedChannel:
    """As `grpc.aio.Channel` to the generated stubs; `dress` gives the metadata of a call.

    It takes `/package.Service/Method` and what the caller said.
    """

    def __init__(self, channel: grpc.aio.Channel, dress: Dress) -> None:
        self._channel, self._dress = channel, dress

    @classmethod
    def channel_signed_by(
        cls, channel: grpc.aio.Channel, signer: TokenSigner | None, audience: str
    ) -> grpc.aio.Channel:
        """A channel to the part `audience`, signed by this one, with the trace; for stubs only."""

        def dress_metadata(method: str, metadata: Metadata) -> Metadata:
            own = signer.own_metadata(audience, method) if signer is not None else ()
            return (*metadata, *own, *telemetry.trace_headers().items())

        return cast(grpc.aio.Channel, cls(channel, dress_metadata))

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """As the channel's."""
        return self._signed_method(method, self._channel.unary_unary(method, *args, **options))

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """As the channel's."""
        return self._signed_method(method, self._channel.unary_stream(method, *args, **options))

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """As the channel's."""
        return self._signed_method(method, self._channel.stream_unary(method, *args, **options))

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """As the channel's."""
        return self._signed_method(method, self._channel.stream_stream(method, *args, **options))

    def _signed_method(self, method: str, call: Any) -> Callable[..., Any]:
        def signed_call(*requests: Any, metadata: Any = (), **more: Any) -> Any:
            whole = self._dress(method, tuple(metadata or ()))
            return call(*requests, metadata=whole, **more)

        return signed_call
