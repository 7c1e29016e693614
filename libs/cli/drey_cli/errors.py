"""The one error that a command ends with, its exit code, and how a failed call becomes it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from drey_client.errors import call_details, reason_name

if TYPE_CHECKING:
    import grpc

    from drey.common.v1 import errors_pb2
    from drey_client.errors import ClientError


class ExitCode(IntEnum):
    """What a command's exit status says: the part of its interface that scripts branch on."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 3
    DIFFERENT = 4
    INTERRUPTED = 130


EXIT_CODE_HELP = (
    "Exit codes: 0 done · 1 refused or failed · 2 wrong usage · 3 server not reached or key not"
    " accepted · 4 differences found, or not everything verified · 130 interrupted"
)


class CliError(Exception):
    """A command could not do what was asked.

    `message` says what happened, `reason` is the machine-readable name (`NOT_FOUND`), `field` the
    request field at fault or empty, `remedy` what a person can do, `metadata` what the server
    added, `code` the exit status, `partial` what was found all the same, for JSON.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "REFUSED",
        field: str = "",
        remedy: str = "",
        metadata: Mapping[str, str] | None = None,
        status: str = "",
        code: ExitCode = ExitCode.REFUSED,
        partial: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.remedy = remedy
        self.metadata = dict(metadata or {})
        self.status = status
        self.code = code
        self.partial = dict(partial or {})

    def as_dict(self) -> dict[str, object]:
        """The error as one JSON-ready document, every key always there."""
        names = ("message", "reason", "status", "field", "remedy", "metadata")
        error = {name: getattr(self, name) for name in names}
        return {"error": {**error, "exit_code": int(self.code)}}


def usage_error(message: str, *, remedy: str, field: str = "") -> CliError:
    """An error in how the command was called, with what to say instead; exit code 2."""
    return CliError(message, reason="USAGE", field=field, remedy=remedy, code=ExitCode.USAGE)


def not_found(message: str, *, remedy: str) -> CliError:
    """Something was named that is not there."""
    return CliError(message, reason="NOT_FOUND", remedy=remedy)


_AWAY = frozenset({"UNAVAILABLE", "UNAUTHENTICATED", "DEADLINE_EXCEEDED"})


def from_rpc_error(error: grpc.RpcError, *, server: str = "") -> CliError:
    """Translate what gRPC raised. Reads `google.rpc.Status` where the server sent one."""
    call: grpc.Call = error  # type: ignore[assignment]  # every raised RpcError is a Call
    status = call.code().name
    message = call.details() or status
    details = call_details(call)
    reason = details.reason
    if not reason:
        reason, message = status, _without_details(status, message, server)
    return CliError(
        message or details.words,
        reason=reason,
        field=details.field,
        remedy=remedy_for(reason, status, details.metadata),
        metadata=details.metadata,
        status=status,
        code=ExitCode.UNAVAILABLE if status in _AWAY else ExitCode.REFUSED,
    )


def _without_details(status: str, message: str, server: str) -> str:
    """Words for a status that no service of ours made: mostly the connection itself."""
    if status == "UNAVAILABLE" and server:
        return f"cannot reach a Drey server at {server}: {message}"
    if status == "DEADLINE_EXCEEDED" and server:
        return f"no answer from {server} in time"
    return message


def from_client_error(error: ClientError) -> CliError:
    """Translate what the client library raised."""
    return CliError(
        error.message,
        reason=error.reason,
        field=error.field,
        remedy=remedy_for(error.reason, error.status, error.metadata),
        metadata=error.metadata,
        status=error.status,
        code=ExitCode.UNAVAILABLE if error.status in _AWAY else ExitCode.REFUSED,
    )


def from_item_error(item: errors_pb2.ItemError, *, subject: str = "") -> CliError:
    """Translate the error of one item, of a job or of a restore."""
    reason = reason_name(item.reason)
    message = item.message or reason
    return CliError(
        f"{subject}: {message}" if subject else message,
        reason=reason,
        field=item.field,
        remedy=remedy_for(reason),
    )


_REMEDIES = {
    "EMPTY_SELECTOR": "name PVs, or choose with --glob, --tag, --device; --all says everything",
    "MALFORMED_ID": "give an id as the lists show it, a unique part of it, or `latest`",
    "ETAG_MISMATCH": "somebody changed it meanwhile: look again, then repeat",
    "REQUEST_ID_REUSED": "repeat the command; it makes a new request id",
    "UNAUTHENTICATED": "give a key with --key, --key-file, DREY_KEY or a profile",
    "KEY_REVOKED": "ask an admin for a new key (drey key create)",
    "KEY_EXPIRED": "ask an admin for a new key (drey key create)",
    "PERMISSION_DENIED": "ask somebody with the role, or an admin for a key that has it",
    "MESSAGE_TOO_LARGE": "choose fewer PVs at once, or choose by --glob or --tag",
    "DEADLINE_EXCEEDED": "try again with a longer --timeout, or see `drey status`",
    "IMAGE_NOT_FRESH": "see `drey status`; `--source read` reads the channels themselves",
    "COVERAGE_TOO_SMALL": "allow gaps with --max-missing N or --allow-missing; they are recorded",
    "DATABASE_UNAVAILABLE": "see `drey status`; watching goes on meanwhile",
    "IMAGE_UNAVAILABLE": "see `drey status`; `--source read` reads the channels themselves",
    "BUS_UNAVAILABLE": "see `drey status`, then try again",
    "UPSTREAM_UNAVAILABLE": "see `drey status`, then try again",
    "PLAN_DIGEST_MISMATCH": "look at the plan again: drey restore show PLAN",
    "PLAN_EXPIRED": "make a new plan: drey restore plan SNAPSHOT",
    "PLAN_EMPTY": "nothing has to be written; see the reasons: drey restore show PLAN",
    "MACHINE_MOVED": "make a new plan, or accept what moved with --accept-moved",
    "LABELS_MOVED": "make a new plan: drey restore plan SNAPSHOT; moved labels cannot be accepted",
    "DISCONNECTED": "see the IOCs, then make a new plan: drey restore plan SNAPSHOT",
    "NOT_ALL_VERIFIED": "see each PV: drey restore show RESTORE",
    "CHANNELS_HELD": "see the other restore: drey restore show RESTORE; wait for it, or abort it",
    "NOT_IMPLEMENTED": "this version of the server does not have it yet",
    "MALFORMED_FILE": "correct the line named, then import again; nothing was changed",
    "IN_USE": "take it from the PVs first, or repeat with --force",
    "PROTECTED": "it is protected: take the golden mark away first, or keep another admin key",
    "READER_TOO_SLOW": "watch fewer PVs, or with a longer --interval",
    "VALUE_TOO_LARGE": "leave that PV out, or read it by itself",
    "INTERNAL": "a defect of the server: give its operators the trace id",
    "RESOURCE_EXHAUSTED": "end some of the calls that run with this key, or try again in a moment",
    "MALFORMED_MESSAGE": "client and server are of different versions: compare `drey --version`",
    "UNKNOWN_METHOD": "this version of the server does not have it yet",
    "REHEARSAL_TOO_LONG": "give it more time (--for), or choose fewer PVs for such a plan",
    "REHEARSAL_TOO_LARGE": "choose fewer PVs for a plan that is to be rehearsed",
    "REHEARSAL_NOT_ISOLATED": "report this: a rehearsal must see its own machine alone",
    "APPROVAL_REQUIRED": "a second person has to approve the plan first: drey restore approve PLAN",
    "OWN_PLAN": "somebody else has to approve it: drey restore approve PLAN",
    "TOO_MANY": "give fewer at once, or choose by --glob or --tag",
    "NOT_FOUND": "look for it in the lists: drey --help",
    "ALREADY_EXISTS": "choose another name",
    "GATE_NOT_MET": "see each PV: drey restore show RESTORE",
    "GUARD_FAILED": "see the conditions: drey restore show --plan PLAN",
    "TOO_MANY_FAILED": "see each PV: drey restore show RESTORE",
    "TOKEN_UNKNOWN": "start it again",
}

SELF_EXPLAINED = frozenset(
    {
        "INVALID_FIELD",
        "WRONG_STATE",
        "POLICY_CONTRADICTION",
        "UNKNOWN_FIELD",
        "MALFORMED_PAGE_TOKEN",
    }
)
"""Reasons whose message says what would be right, or that no command of ours brings about."""
_LISTINGS = {
    "golden": "drey snapshot golden list",
    "plan": "drey restore list --plans",
    "pv": "drey pv list --search WORD",
    "refusal": "drey job list",
    "scope": "drey pv list --help: choose by name, tag or device",
    "tag": "drey tag groups",
    "tag_group": "drey tag groups",
}
"""Commands that list what is not listed by `drey NAME list`, by the resource."""

_STATUS_REMEDIES = {
    "UNAVAILABLE": "is the server running there? --server or DREY_SERVER says where",
    "UNAUTHENTICATED": _REMEDIES["UNAUTHENTICATED"],
    "DEADLINE_EXCEEDED": _REMEDIES["DEADLINE_EXCEEDED"],
    "RESOURCE_EXHAUSTED": _REMEDIES["MESSAGE_TOO_LARGE"],
    "UNIMPLEMENTED": _REMEDIES["NOT_IMPLEMENTED"],
}


def listing_of(resource: str) -> str:
    """The command that lists what there is of a resource."""
    return _LISTINGS.get(resource, f"drey {resource} list")


def remedy_for(reason: str, status: str = "", metadata: Mapping[str, str] | None = None) -> str:
    """One line of advice for a reason, else for a gRPC status name; empty when there is none.

    `metadata`: of the error, which names the resource that is not there, or is there already.
    """
    if reason in {"NOT_FOUND", "ALREADY_EXISTS"} and metadata and "resource" in metadata:
        return f"see {listing_of(metadata['resource'])}"
    return _REMEDIES.get(reason) or _STATUS_REMEDIES.get(status, "")
