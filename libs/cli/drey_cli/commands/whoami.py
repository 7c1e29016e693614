"""`drey whoami`."""

from __future__ import annotations

from drey_cli.contracts import access_service_pb2
from drey_cli.registry import command, command_app
from drey_cli.session import Session

app = command_app()


@command(app, "whoami")
def whoami(session: Session) -> None:
    """Say who you are to the server, and what you may do."""
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
