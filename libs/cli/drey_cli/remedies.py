"""What a person can do about a refusal, by its reason. Shown under the server's own words."""

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
    "APPROVAL_REQUIRED": "a second person has to approve the plan first",
}

_STATUS_REMEDIES = {
    "UNAVAILABLE": "is the server running there? --server or DREY_SERVER says where",
    "UNAUTHENTICATED": _REMEDIES["UNAUTHENTICATED"],
    "DEADLINE_EXCEEDED": _REMEDIES["DEADLINE_EXCEEDED"],
    "RESOURCE_EXHAUSTED": _REMEDIES["MESSAGE_TOO_LARGE"],
    "UNIMPLEMENTED": _REMEDIES["NOT_IMPLEMENTED"],
}


def remedy_for(reason: str, status: str = "") -> str:
    """One line of advice for a reason, else for a gRPC status name; empty when there is none."""
    return _REMEDIES.get(reason) or _STATUS_REMEDIES.get(status, "")
