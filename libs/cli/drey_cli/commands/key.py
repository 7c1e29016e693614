"""`drey key`: API keys, and their tables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from drey_cli import naming
from drey_cli.commands import SUMMARIES
from drey_cli.contracts import access_pb2, access_service_pb2
from drey_cli.durations import parse_duration
from drey_cli.errors import CliError
from drey_cli.exits import ExitCode
from drey_cli.naming import key_id
from drey_cli.registry import command, command_app
from drey_cli.render.table import Cell, Field, Table, table_of, text_field
from drey_cli.render.times import format_time
from drey_cli.session import Session, new_request_id

app = command_app(SUMMARIES["key"])


@command(
    app,
    "create",
    examples=(
        "drey key create alice --role operator --role editor --lifetime 90d",
        "drey key create gui --role viewer --out gui.key",
    ),
)
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the holder.")],
    roles: Annotated[
        list[str],
        typer.Option(
            "--role",
            metavar="ROLE",
            help="What the holder may do; may be repeated. `drey key roles` lists them.",
        ),
    ],
    lifetime: Annotated[
        str, typer.Option("--lifetime", metavar="TIME", help="As 30d. Default: for ever.")
    ] = "",
    out: Annotated[
        str, typer.Option("--out", metavar="FILE", help="Write the secret there, mode 0600.")
    ] = "",
) -> None:
    """Create a key. Its secret is shown this once only."""
    request = access_service_pb2.CreateKeyRequest(
        name=name,
        grants=[access_pb2.Grant(role=role) for role in roles],
        request_id=new_request_id(),
    )
    if lifetime:
        request.lifetime.CopyFrom(parse_duration(lifetime, option="--lifetime"))
    # Opened before the key is made: a secret that cannot be kept must not come into being.
    target = _secret_file(out) if out else None
    answer = session.client.call(session.client.access.CreateKey, request)
    if target is not None:
        with os.fdopen(target, "w", encoding="utf-8") as file:
            file.write(answer.secret + "\n")
        answer.ClearField("secret")
    if session.out.json:
        session.out.document(answer)
        return
    session.out.note(f"key {answer.key.id} for {name} ({', '.join(roles)})")
    if target is None:
        session.out.note("the secret, shown this once:")
        session.out.text(answer.secret)
    else:
        session.out.note(f"the secret is in {out}")


def _secret_file(path: str) -> int:
    try:
        return os.open(Path(path).expanduser(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CliError(
            f"cannot create {path}: {error.strerror}",
            field="--out",
            remedy="name a new file, in a folder that you may write",
        ) from error


@command(app, "list")
def list_keys(
    session: Session,
    dead: Annotated[bool, typer.Option("--dead", help="Revoked and expired ones too.")] = False,
) -> None:
    """List keys by the name of the holder."""
    keys = list(naming.list_keys(session.client, include_dead=dead))
    session.show({"keys": keys}, lambda: keys_table(keys, utc=session.out.utc))


@command(app, "revoke", examples=("drey key revoke alice",))
def revoke(
    session: Session,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Holder, id, or part of the id.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Revoke a key: no gateway accepts it a second later, and its watches are cut."""
    client = session.client
    identity = key_id(client, key)
    session.confirm(f"Revoke {key} ({identity})?", yes=yes)
    answer = client.call(client.access.RevokeKey, access_service_pb2.RevokeKeyRequest(id=identity))
    session.show(
        {"key": answer.key}, lambda: f"revoked the key of {answer.key.name} ({answer.key.id})"
    )


@command(app, "roles", examples=("drey key roles --permissions",))
def list_roles(
    session: Session,
    permissions: Annotated[
        bool, typer.Option("--permissions", help="With every permission of each.")
    ] = False,
) -> None:
    """List the roles that a key may hold, and what each is for."""
    client = session.client
    answer = client.call(client.access.ListRoles, access_service_pb2.ListRolesRequest())
    session.show(answer, lambda: roles_table(answer.roles, permissions=permissions))


@command(app, "bootstrap", examples=("drey key bootstrap --postgres-url postgresql://host/drey",))
def bootstrap(
    session: Session,
    postgres_url: Annotated[
        str,
        typer.Option("--postgres-url", metavar="URL", help="Database. [env DREY_POSTGRES_URL]"),
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Name of the holder.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Although an admin key lives.")] = False,
) -> None:
    """Make the first admin key, straight in the database; needs the gateway installed here.

    The one command that is no client of the server: there is no key yet to ask it with.
    """
    import subprocess
    import sys
    from importlib.util import find_spec

    if find_spec("drey_gateway") is None:
        raise CliError(
            "the gateway is not installed here",
            reason="NOT_INSTALLED",
            remedy="run it where drey-gateway is installed",
        )
    arguments = [sys.executable, "-m", "drey_gateway.bootstrap"]
    environment = dict(os.environ)
    if postgres_url:
        # By the environment: arguments can be read by every user of the host.
        environment["DREY_POSTGRES_URL"] = postgres_url
    if name:
        arguments += ["--name", name]
    if force:
        arguments.append("--force")
    done = subprocess.run(
        arguments, env=environment, check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise typer.Exit(ExitCode.REFUSED if done.returncode > 0 else ExitCode.INTERRUPTED)
    secret = done.stdout.strip()
    session.show({"secret": secret}, lambda: secret)


def keys_table(keys: Iterable[access_pb2.Key], *, utc: bool) -> Table:
    """One line a key."""

    def end_cell(key: access_pb2.Key) -> Cell | str:
        if key.HasField("revoke_time"):
            return Cell(f"revoked {format_time(key.revoke_time.ToNanoseconds(), utc=utc)}", "red")
        return format_time(key.expire_time.ToNanoseconds(), utc=utc)

    return table_of(
        keys,
        text_field(
            "holder",
            lambda key: Cell(key.name, "dim strike" if key.HasField("revoke_time") else ""),
        ),
        text_field("roles", lambda key: ", ".join(grant.role for grant in key.grants), fold=True),
        text_field("begins with", lambda key: f"{key.prefix}…"),
        text_field("created", lambda key: format_time(key.create_time.ToNanoseconds(), utc=utc)),
        text_field("by", lambda key: key.created_by),
        text_field("expires", end_cell),
        text_field("id", lambda key: key.id),
    )


def roles_table(roles: Iterable[access_pb2.Role], *, permissions: bool) -> Table:
    """One line a role; with its permissions where they are asked for."""
    fields: list[Field[access_pb2.Role]] = [
        text_field("role", lambda role: role.name),
        text_field("what it is for", lambda role: role.description, fold=True),
    ]
    if permissions:
        fields.append(text_field("permissions", lambda role: " ".join(role.permissions), fold=True))
    return table_of(roles, *fields)
