"""Passes changes of sessions on to the gateway in which the session lives, over NATS.

A caller's calls reach any replica, its session lives in one. A change goes there as it came, with
a token that the gateway signs, as for every part behind it: nobody is trusted by address.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from drey.common.v1 import errors_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey_core.errors import (
    DreyError,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from drey_gateway.mapping_asked import read_change
from drey_gateway.sessions import SessionBook, no_session
from drey_runtime.auth import GATEWAY, TOKEN_METADATA, TokenSigner, current_principal
from drey_runtime.bus import Bus
from drey_runtime.nats_client import Msg

_METHOD = pb.DESCRIPTOR.services_by_name["MonitorService"].methods_by_name["ModifyWatch"].full_name
_DEADLINE_S = 5.0
_REFUSALS = {
    Reason.NOT_FOUND: NotFound,
    Reason.INVALID_FIELD: InvalidArgument,
    Reason.RESOURCE_EXHAUSTED: ResourceExhausted,
}


class SessionRelay:
    """Lets the session that is meant take a change, wherever it lives."""

    def __init__(self, book: SessionBook, bus: Bus, signer: TokenSigner) -> None:
        self._book, self._bus, self._signer = book, bus, signer
        self._verifier = signer.token_verifier(GATEWAY)

    async def subscribe_to_bus(self) -> None:
        """Begin to listen for changes of the sessions here; may be called while NATS is away."""
        await self._bus.subscribe_handler(
            self._gateway_subject(self._book.gateway_id), self._answer_change
        )

    async def relay_change(self, request: pb.ModifyWatchRequest) -> None:
        """Pass a change on, as the principal who calls. Raises `DreyError`."""
        change, principal = read_change(request), current_principal.get()
        gateway_id, _, _ = request.session.partition(".")
        if gateway_id == self._book.gateway_id:
            self._book.modify_session(request.session, change, principal.key_id)
            return
        if not gateway_id.isalnum():
            raise no_session(request.session)
        token = self._signer.sign_token(principal, GATEWAY, _METHOD)
        subject, payload = self._gateway_subject(gateway_id), request.SerializeToString()
        try:
            raw = await self._bus.request_answer(
                subject, payload, {TOKEN_METADATA: token}, _DEADLINE_S
            )
        except Unavailable:
            # NATS may not have known yet that the gateway is dead; a change is taken once only
            raw = await self._bus.request_answer(
                subject, payload, {TOKEN_METADATA: token}, _DEADLINE_S
            )
        if raw is None:
            raise no_session(request.session)
        refusal = errors_pb2.ItemError.FromString(raw)
        if refusal.reason:
            error = _REFUSALS.get(Reason(refusal.reason), DreyError)
            raise error(refusal.message, reason=Reason(refusal.reason), field=refusal.field)

    def _gateway_subject(self, gateway_id: str) -> str:
        return self._bus.full_subject("sessions", gateway_id)

    async def _answer_change(self, message: Msg) -> None:
        answer = errors_pb2.ItemError()
        try:
            principal = self._verifier.authenticate_call(dict(message.headers or {}), _METHOD)
            request = pb.ModifyWatchRequest.FromString(message.data)
            self._book.modify_session(request.session, read_change(request), principal.key_id)
        except DecodeError as error:
            answer.reason = errors_pb2.ERROR_REASON_MALFORMED_MESSAGE
            answer.message = f"not a ModifyWatchRequest: {error}"
        except DreyError as error:
            answer.reason = int(error.reason)  # type: ignore[assignment]
            answer.field, answer.message = error.field, error.message
        await message.respond(answer.SerializeToString())
