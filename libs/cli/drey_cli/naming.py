"""From what a person types to an id: a full id, a unique part of one, `latest`, an exact title."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from drey_cli.contracts import (
    access_pb2,
    access_service_pb2,
    catalog_pb2,
    catalog_service_pb2,
    job_service_pb2,
    restore_service_pb2,
    snapshot_pb2,
    snapshot_service_pb2,
)
from drey_cli.errors import CliError, listing_of, not_found

if TYPE_CHECKING:
    from drey_cli.client import CliClient

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PART = re.compile(r"[0-9a-f-]{4,36}", re.IGNORECASE)
_LATEST = re.compile(r"latest(?:~(\d+))?")
_PAGE = 1000


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def match_id(text: str, ids: Iterable[tuple[str, str]], *, what: str) -> str:
    """The one id that `text` is a title, a beginning or an ending of.

    `ids` are (id, title). A title that fits exactly goes before parts of ids. Raises NOT_FOUND, or
    AMBIGUOUS with the candidates.
    """
    part = text.lower() if _PART.fullmatch(text) else None
    by_title: list[str] = []
    by_part: list[str] = []
    for identity, title in ids:
        if title == text:
            by_title.append(identity)
        if part is not None and (identity.startswith(part) or identity.endswith(part)):
            by_part.append(identity)
    matches = by_title or by_part
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise no_such(what, text)
    shown = ", ".join(matches[:5]) + (", …" if len(matches) > 5 else "")
    raise CliError(
        f"{len(matches)} {what}s are named {text!r}: {shown}",
        reason="AMBIGUOUS",
        remedy="give the whole id",
    )


def no_such(what: str, text: str) -> CliError:
    """The error for something that nothing is named."""
    return not_found(f"there is no {what} {text!r}", remedy=f"see {listing_of(what)}")


def _resolve_id(
    text: str, newest_first: Callable[[], Iterator[tuple[str, str]]], *, what: str
) -> str:
    if is_uuid(text):
        return text.lower()
    latest = _LATEST.fullmatch(text)
    if latest is None:
        return match_id(text, newest_first(), what=what)
    wanted = int(latest[1] or 0)
    for index, (identity, _) in enumerate(newest_first()):
        if index == wanted:
            return identity
    raise no_such(what, text)


def list_snapshots(
    client: CliClient,
    *,
    page_size: int = _PAGE,
    include_deleted: bool = False,
    golden_only: bool = False,
) -> Iterator[snapshot_pb2.Snapshot]:
    """Snapshots, newest first."""
    request = snapshot_service_pb2.ListSnapshotsRequest(
        include_deleted=include_deleted, golden_only=golden_only
    )
    return client.list_items(client.snapshots.ListSnapshots, request, "snapshots", most=page_size)


def deleted_snapshot_id(client: CliClient, text: str) -> str:
    """Id of a deleted snapshot by id, part of an id, or exact title."""
    snapshots = list_snapshots(client, include_deleted=True)
    return match_id(
        text, ((s.id, s.title) for s in snapshots if s.HasField("delete_time")), what="snapshot"
    )


def snapshot_id(client: CliClient, text: str) -> str:
    """Id of a snapshot by id, part of an id, `latest`, `latest~N`, or exact title."""
    latest = _LATEST.fullmatch(text)
    size = min(_PAGE, int(latest[1] or 0) + 1) if latest else _PAGE

    def listed_snapshots() -> Iterator[tuple[str, str]]:
        return ((each.id, each.title) for each in list_snapshots(client, page_size=size))

    return _resolve_id(text, listed_snapshots, what="snapshot")


def plan_id(client: CliClient, text: str, *, own: bool = False) -> str:
    """Id of a plan by id, part of an id, or `latest`; with `own` the caller's newest."""
    request = restore_service_pb2.ListPlansRequest()
    request.principal = own_name(client, text) if own else ""

    def listed_plans() -> Iterator[tuple[str, str]]:
        for plan in client.list_items(client.restores.ListPlans, request, "plans"):
            # a server that does not know the filter gives everybody's
            if request.principal in ("", plan.actor.principal):
                yield plan.id, ""

    remedy = "make one: drey restore plan SNAPSHOT; that of another needs its id, see"
    return _resolve_own(
        text, listed_plans, "plan", request.principal, f"{remedy} drey restore list --plans"
    )


def restore_id(client: CliClient, text: str, *, own: bool = False) -> str:
    """Id of a restore by id, part of an id, or `latest`; with `own` the caller's newest."""
    request = restore_service_pb2.ListRestoresRequest()
    request.principal = own_name(client, text) if own else ""

    def listed_restores() -> Iterator[tuple[str, str]]:
        restores = client.list_items(client.restores.ListRestores, request, "restores")
        return ((restore.id, "") for restore in restores)

    remedy = "that of another needs its id, see drey restore list"
    return _resolve_own(text, listed_restores, "restore", request.principal, remedy)


def own_name(client: CliClient, text: str) -> str:
    """The caller, where `text` is `latest`: nobody acts on what is another's by accident."""
    if _LATEST.fullmatch(text) is None:
        return ""
    return client.call_method(client.access.WhoAmI, access_service_pb2.WhoAmIRequest()).principal


def _resolve_own(
    text: str,
    newest_first: Callable[[], Iterator[tuple[str, str]]],
    what: str,
    principal: str,
    remedy: str,
) -> str:
    try:
        return _resolve_id(text, newest_first, what=what)
    except CliError as error:
        if not principal or error.reason != "NOT_FOUND":
            raise
        raise not_found(f"{principal} has no {what} {text!r}", remedy=remedy) from error


def job_id(client: CliClient, text: str) -> str:
    """Id of a job by id, part of an id, or `latest`."""

    def listed_jobs() -> Iterator[tuple[str, str]]:
        request = job_service_pb2.ListJobsRequest()
        return ((job.id, "") for job in client.list_items(client.jobs.ListJobs, request, "jobs"))

    return _resolve_id(text, listed_jobs, what="job")


def list_keys(client: CliClient, *, include_dead: bool = False) -> Iterator[access_pb2.Key]:
    request = access_service_pb2.ListKeysRequest(include_dead=include_dead)
    return client.list_items(client.access.ListKeys, request, "keys")


def key_id(client: CliClient, text: str) -> str:
    """Id of a living key by id, part of an id, or the name of its holder."""
    if is_uuid(text):
        return text.lower()
    return match_id(text, ((key.id, key.name) for key in list_keys(client)), what="key")


def get_pv(client: CliClient, text: str) -> catalog_service_pb2.GetPvResponse:
    """A PV with its metadata, by name or by id."""
    request = (
        catalog_service_pb2.GetPvRequest(id=text.lower())
        if is_uuid(text)
        else catalog_service_pb2.GetPvRequest(name=text)
    )
    return client.call_method(client.catalog.GetPv, request)


def list_tag_groups(
    client: CliClient, *, include_deleted: bool = False
) -> Iterator[catalog_pb2.TagGroup]:
    request = catalog_service_pb2.ListTagGroupsRequest(include_deleted=include_deleted)
    return client.list_items(client.catalog.ListTagGroups, request, "tag_groups")


def tag_group(client: CliClient, name: str) -> catalog_pb2.TagGroup:
    """A group by name (case ignored) or id."""
    for group in list_tag_groups(client):
        if group.id == name or group.name.casefold() == name.casefold():
            return group
    raise not_found(f"there is no tag group {name!r}", remedy="see drey tag groups")
