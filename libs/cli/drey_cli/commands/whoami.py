"""`drey whoami`."""

from __future__ import annotations

import typer

from drey_cli.registry import command
from drey_cli.session import Session


def whoami(session: Session) -> None:
    """Say who you are to the server, and what you may do."""
    from drey.access.v1 import access_service_pb2

    client = session.client
    answer = client.call(client.access.WhoAmI, access_service_pb2.WhoAmIRequest())
    if session.out.json:
        session.out.document(answer)
        return
    until = ""
    if answer.HasField("expire_time"):
        until = f", until {session.time(answer.expire_time.ToNanoseconds())}"
    roles = ", ".join(answer.roles)
    session.out.text(f"{answer.principal} ({roles}{until}) at {client.connection.server}")
    session.out.note(f"may: {' '.join(answer.permissions)}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "whoami")(whoami)
