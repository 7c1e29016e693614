"""`drey breaker open|close|automatic IOC`: whether an IOC is asked at all."""

from __future__ import annotations

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import breaker_pb2, system_service_pb2
from drey_cli.options import argument, reason_option
from drey_cli.output import Drawn
from drey_cli.render.words import short_name
from drey_cli.session import CliSession, command, group

ioc_argument = argument("ioc", help="Address of the IOC, `host:port`, as `drey status` shows it.")
breaker_command = group(SUMMARIES["breaker"])


@command(
    "open",
    breaker_command,
    gives="ForceBreakerResponse",
    examples=("drey breaker open ioc7:5064 --reason 'it is being repaired'",),
)
@ioc_argument
@reason_option
def open_breaker(session: CliSession, ioc: str, reason: str) -> None:
    """Hold it open: forced reads and restores leave the IOC alone, and so do probes."""
    _force_breaker(session, ioc, "HELD_OPEN", reason)


@command(
    "close",
    breaker_command,
    gives="ForceBreakerResponse",
    examples=("drey breaker close ioc7:5064 --reason 'it is slow, and that is known'",),
)
@ioc_argument
@reason_option
def close_breaker(session: CliSession, ioc: str, reason: str) -> None:
    """Hold it closed: the IOC is asked, whatever it does not answer."""
    _force_breaker(session, ioc, "HELD_CLOSED", reason)


@command(
    "automatic",
    breaker_command,
    gives="ForceBreakerResponse",
    examples=("drey breaker automatic ioc7:5064",),
)
@ioc_argument
@reason_option
def free_breaker(session: CliSession, ioc: str, reason: str) -> None:
    """Let it open and close by itself again."""
    _force_breaker(session, ioc, "AUTOMATIC", reason)


def _force_breaker(session: CliSession, ioc: str, mode: str, reason: str) -> None:
    request = system_service_pb2.ForceBreakerRequest(
        ioc=ioc, mode=breaker_pb2.BreakerMode.Value(f"BREAKER_MODE_{mode}"), reason=reason
    )
    answer = session.client.call_method(session.client.system.ForceBreaker, request)

    def draw() -> Drawn:
        word = short_name(breaker_pb2.BreakerMode, answer.breaker.mode).replace("-", " ")
        return [f"The breaker of {answer.breaker.ioc} is {word}."]

    session.show_document(answer, draw)
