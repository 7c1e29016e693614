"""`drey key` and `drey whoami`: API keys, their tables, and what the caller's own allows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from drey_cli import naming
from drey_cli.commands import SUMMARIES
from drey_cli.contracts import access_pb2, access_service_pb2
from drey_cli.errors import CliError, ExitCode
from drey_cli.naming import key_id
from drey_cli.options import SPAN, argument, option, yes_option
from drey_cli.render.snapshots import selector_words
from drey_cli.render.table import (
    Cell,
    Field,
    Table,
    id_field,
    spare_field,
    table_of,
    text_field,
    time_cell,
    time_field,
)
from drey_cli.render.words import format_stamp
from drey_cli.selection import Choice, choosing_by_option
from drey_cli.session import CliSession, command, group

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

key_command = group(SUMMARIES["key"])


@command(
    "whoami",
    gives="WhoAmIResponse",
    examples=("drey whoami", "drey whoami --json | jq -r .permissions[]"),
)
def whoami_command(session: CliSession) -> None:
    """Say who you are to the server, and what you may do."""
    client = session.client
    answer = client.call_method(client.access.WhoAmI, access_service_pb2.WhoAmIRequest())
    if session.out.json:
        session.out.write_document(answer)
        return
    until = ""
    if answer.HasField("expire_time"):
        until = f", until {format_stamp(answer.expire_time, utc=session.out.utc)}"
    roles = ", ".join(map(_grant_words, answer.grants))
    session.out.print_text(f"{answer.principal} ({roles}{until}) at {client.connection.server}")
    session.out.print_note(f"may: {' '.join(answer.permissions)}")


@command(
    "create",
    key_command,
    gives="CreateKeyResponse, without the secret where it is in a file",
    examples=(
        "drey key create alice --role operator --role editor --lifetime 90d",
        "drey key create gui --role viewer --out gui.key",
        "drey key create shift-rf --role restorer --tag Area=RF",
    ),
)
@argument("name", help="Name of the holder.")
@option(
    "--role",
    "roles",
    required=True,
    multiple=True,
    help="What the holder may do; repeat. `drey key roles` lists them.",
)
@option("--lifetime", type=SPAN, metavar="TIME", help="As 30d. Default: for ever.")
@option("--out", default="", metavar="FILE", help="Write the secret there, mode 0600.")
@choosing_by_option
def create_key(
    session: CliSession,
    choice: Choice,
    name: str,
    roles: list[str],
    lifetime: Duration | None,
    out: str,
) -> None:
    """Create a key. Its secret is shown this once only.

    With a choice of PVs its roles hold for these only: operator, editor, restorer and approver can
    be limited so. Looking is for all PVs.
    """
    selector = choice.optional_selector()
    request = access_service_pb2.CreateKeyRequest(
        name=name,
        grants=[access_pb2.Grant(role=role, selector=selector) for role in roles],
        lifetime=lifetime,
    )
    # Opened before the key is made: a secret that cannot be kept must not come into being.
    target = _secret_file(out) if out else None
    answer = session.client.call_method(session.client.access.CreateKey, request)
    if target is not None:
        with os.fdopen(target, "w", encoding="utf-8") as file:
            file.write(answer.secret + "\n")
        answer.ClearField("secret")
    if session.out.json:
        session.out.write_document(answer)
        return
    session.out.print_note(f"key {answer.key.id} for {name} ({', '.join(roles)})")
    if target is None:
        session.out.print_note("the secret, shown this once:")
        session.out.print_text(answer.secret)
    else:
        session.out.print_note(f"the secret is in {out}")


def _secret_file(path: str) -> int:
    try:
        return os.open(Path(path).expanduser(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CliError(
            f"cannot create {path}: {error.strerror}",
            field="--out",
            remedy="name a new file, in a folder that you may write",
        ) from error


@command("list", key_command, gives="{keys}", examples=("drey key list --dead",))
@option("--dead", is_flag=True, help="Revoked and expired ones too.")
def list_keys(session: CliSession, dead: bool) -> None:
    """List keys by the name of the holder."""
    keys = list(naming.list_keys(session.client, include_dead=dead))
    session.show_document({"keys": keys}, lambda: keys_table(keys, utc=session.out.utc))


@command("revoke", key_command, gives="RevokeKeyResponse", examples=("drey key revoke alice",))
@argument("key", help="Holder, id, or part of the id.")
@yes_option
def revoke_key(session: CliSession, key: str, yes: bool) -> None:
    """Revoke a key: no gateway accepts it a second later, and its watches are cut."""
    client = session.client
    identity = key_id(client, key)
    session.confirm_action(f"Revoke {key} ({identity})?", yes=yes)
    answer = client.call_method(
        client.access.RevokeKey, access_service_pb2.RevokeKeyRequest(id=identity)
    )
    session.show_document(answer, lambda: f"revoked the key of {answer.key.name} ({answer.key.id})")


@command(
    "roles", key_command, gives="ListRolesResponse", examples=("drey key roles --permissions",)
)
@option("--permissions", is_flag=True, help="With every permission of each.")
def list_roles(session: CliSession, permissions: bool) -> None:
    """List the roles that a key may hold, and what each is for."""
    client = session.client
    answer = client.call_method(client.access.ListRoles, access_service_pb2.ListRolesRequest())
    session.show_document(answer, lambda: roles_table(answer.roles, permissions=permissions))


@command(
    "bootstrap",
    key_command,
    gives="{secret}",
    examples=("drey key bootstrap --postgres-url postgresql://host/drey",),
)
@option("--postgres-url", default="", metavar="URL", help="Database. (env DREY_POSTGRES_URL)")
@option("--name", default="", help="Name of the holder.")
@option("--force", is_flag=True, help="Although an admin key lives.")
def bootstrap_key(session: CliSession, postgres_url: str, name: str, force: bool) -> None:
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
        raise CliError(
            "no key was made",
            reason="BOOTSTRAP_FAILED",
            remedy="see what the gateway's program wrote before this",
            code=ExitCode.REFUSED if done.returncode > 0 else ExitCode.INTERRUPTED,
        )
    secret = done.stdout.strip()
    session.show_document({"secret": secret}, lambda: secret)


def keys_table(keys: Iterable[access_pb2.Key], *, utc: bool) -> Table:
    """One line a key."""

    def end_cell(key: access_pb2.Key) -> Cell | str:
        if key.HasField("revoke_time"):
            return Cell(f"revoked {format_stamp(key.revoke_time, utc=utc)}", "red")
        return time_cell(key.expire_time.ToNanoseconds(), utc=utc)

    return table_of(
        keys,
        text_field(
            "holder",
            lambda key: Cell(key.name, "dim strike" if key.HasField("revoke_time") else ""),
        ),
        text_field("roles", lambda key: ", ".join(map(_grant_words, key.grants)), fold=True),
        spare_field(text_field("begins with", lambda key: f"{key.prefix}…")),
        spare_field(time_field("created", lambda key: key.create_time, utc=utc)),
        spare_field(text_field("by", lambda key: key.created_by)),
        text_field("expires", end_cell),
        id_field("id", lambda key: key.id),
    )


def _grant_words(grant: access_pb2.Grant) -> str:
    """The role, and the PVs to which it is limited."""
    if not grant.HasField("selector"):
        return grant.role
    return f"{grant.role} of {selector_words(grant.selector)}"


def roles_table(roles: Iterable[access_pb2.Role], *, permissions: bool) -> Table:
    """One line a role; with its permissions where they are asked for."""
    fields: list[Field[access_pb2.Role]] = [
        text_field("role", lambda role: role.name),
        text_field("what it is for", lambda role: role.description, fold=True),
    ]
    if permissions:
        fields.append(text_field("permissions", lambda role: " ".join(role.permissions), fold=True))
    return table_of(roles, *fields)
