"""`drey tag`: tags on PVs, tags in groups, groups."""

from __future__ import annotations

from typing import TypeVar

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import catalog_pb2, catalog_service_pb2
from drey_cli.errors import not_found, usage_error
from drey_cli.naming import list_tag_groups, tag_group
from drey_cli.options import argument, option, yes_option
from drey_cli.render.table import Column, Table
from drey_cli.render.words import format_count, plural
from drey_cli.selection import Choice, choosing, parse_tag
from drey_cli.session import CliSession, command, group

# as texts, so that the contracts are not loaded yet
T = TypeVar("T", "catalog_pb2.Tag", "catalog_pb2.TagGroup")

tag_command = group(SUMMARIES["tag"])
tag_argument = argument("tag", metavar="GROUP=TAG[,TAG]", help="Group and tags.")
what_argument = argument("what", metavar="GROUP[=TAG]", help="Group, or tag of it.")


@command(
    "add",
    tag_command,
    gives="TagPvsResponse",
    examples=("drey tag add Region=LI21 --glob '*:LI21:*'",),
)
@tag_argument
@choosing
def add_tag(session: CliSession, choice: Choice, tag: str) -> None:
    """Put tags on PVs. Groups and tags that are not there are created."""
    _change_tags(session, choice, tag, adds=True)


@command(
    "rm", tag_command, gives="TagPvsResponse", examples=("drey tag rm Region=LI21 --device SPARE",)
)
@tag_argument
@choosing
def remove_tag(session: CliSession, choice: Choice, tag: str) -> None:
    """Take tags off PVs. The tags themselves stay."""
    _change_tags(session, choice, tag, adds=False)


def _change_tags(session: CliSession, choice: Choice, text: str, *, adds: bool) -> None:
    name, tags = parse_tag(text, option="GROUP=TAG")
    if not tags:
        raise usage_error(
            f"{text!r} names no tag of the group", field="GROUP=TAG", remedy="as in Region=LI21"
        )
    refs = [catalog_pb2.TagRef(group=name, tag=tag) for tag in tags]
    client = session.client
    request = catalog_service_pb2.TagPvsRequest(
        selector=choice.required_selector(), add=refs if adds else [], remove=[] if adds else refs
    )
    answer = client.call_method(client.catalog.TagPvs, request)
    session.show_document(
        answer, lambda: f"{plural(answer.matched, 'PV')} chosen, {answer.changed} changed"
    )


@command("groups", tag_command, gives="{tag_groups}", examples=("drey tag groups",))
def list_groups(session: CliSession) -> None:
    """List all groups with their tags, and how many PVs carry each."""
    tag_groups = list(list_tag_groups(session.client))

    def draw_groups() -> Table:
        headings = Column("group"), Column("tag"), Column("PVs", right=True)
        table = Table((*headings, Column("description", fold=True)))
        for each in tag_groups:
            table.add_row(each.name, "", "", each.description)
            for tag in each.tags:
                table.add_row("", tag.name, format_count(tag.pv_count), "")
        return table

    session.show_document({"tag_groups": tag_groups}, draw_groups)


@command("create", tag_command, gives="{tag_group}", examples=("drey tag create Region=LI21,LI22",))
@argument("group", metavar="GROUP[=TAG,...]", help="Group, with tags.")
@option("--description", default="", help="Text for people.")
def create_tag(session: CliSession, group: str, description: str) -> None:
    """Create a group, with tags; in a group that is there, create the tags."""
    client = session.client
    name, tags = parse_tag(group, option="GROUP")
    same_name = [g for g in list_tag_groups(client) if g.name.casefold() == name.casefold()]
    if same_name and tags:
        for tag in tags:
            request = catalog_service_pb2.CreateTagRequest(tag_group_id=same_name[0].id, name=tag)
            client.call_method(client.catalog.CreateTag, request)
        made = tag_group(client, same_name[0].id)
    else:
        wanted = catalog_pb2.TagGroup(
            name=name, description=description, tags=[catalog_pb2.Tag(name=tag) for tag in tags]
        )
        made = client.call_method(
            client.catalog.CreateTagGroup,
            catalog_service_pb2.CreateTagGroupRequest(tag_group=wanted),
        ).tag_group
    names = ", ".join(tag.name for tag in made.tags) or "no tags"
    session.show_document({"tag_group": made}, lambda: f"{made.name}: {names}")


@command(
    "rename", tag_command, gives="{tag_group}", examples=("drey tag rename Region=LI21 'Linac 21'",)
)
@what_argument
@argument("name", help="New name.")
def rename_tag(session: CliSession, what: str, name: str) -> None:
    """Rename a group, or a tag of a group."""
    client = session.client
    group_name, tags = _parse_one(what)
    group = tag_group(client, group_name)
    if tags:
        tag = _tag_of(group, tags[0])
        change = catalog_service_pb2.UpdateTagRequest(
            tag=catalog_pb2.Tag(id=tag.id, name=name, etag=tag.etag)
        )
        change.update_mask.paths.append("name")
        client.call_method(client.catalog.UpdateTag, change)
    else:
        request = catalog_service_pb2.UpdateTagGroupRequest(
            tag_group=catalog_pb2.TagGroup(id=group.id, name=name, etag=group.etag)
        )
        request.update_mask.paths.append("name")
        client.call_method(client.catalog.UpdateTagGroup, request)
    made = tag_group(client, group.id)
    session.show_document({"tag_group": made}, lambda: f"renamed to {name}")


def _parse_one(what: str) -> tuple[str, list[str]]:
    """A group, and the one tag that is named, or none."""
    group, tags = parse_tag(what, option="GROUP=TAG")
    if len(tags) > 1:
        raise usage_error(
            f"{what} names {len(tags)} tags", field="GROUP=TAG", remedy="give one tag at a time"
        )
    return group, tags


def _tag_of(group: catalog_pb2.TagGroup, name: str) -> catalog_pb2.Tag:
    for tag in group.tags:
        if tag.name.casefold() == name.casefold():
            return tag
    raise not_found(f"group {group.name!r} has no tag {name!r}", remedy="see drey tag groups")


@command(
    "delete", tag_command, gives="{pvs_changed}", examples=("drey tag delete Region=LI21 --force",)
)
@what_argument
@option("--force", is_flag=True, help="Although PVs carry it.")
@yes_option
def delete_tag(session: CliSession, what: str, force: bool, yes: bool) -> None:
    """Delete a group with its tags, or one tag of it, from the catalog."""
    client = session.client
    group_name, tags = _parse_one(what)
    group = tag_group(client, group_name)
    session.confirm_action(f"Delete {what}?", yes=yes)
    if tags:
        tag_id = _tag_of(group, tags[0]).id
        request = catalog_service_pb2.DeleteTagRequest(id=tag_id, force=force)
        changed = client.call_method(client.catalog.DeleteTag, request).pvs_changed
    else:
        whole = catalog_service_pb2.DeleteTagGroupRequest(id=group.id, force=force)
        changed = client.call_method(client.catalog.DeleteTagGroup, whole).pvs_changed
    session.show_document(
        {"pvs_changed": changed}, lambda: f"deleted {what}; {plural(changed, 'PV')} lost a tag"
    )


@command(
    "undelete", tag_command, gives="{pvs_changed}", examples=("drey tag undelete Region=LI21",)
)
@what_argument
def undelete_tag(session: CliSession, what: str) -> None:
    """Bring back a deleted group with its tags, or one tag, on the PVs that carried them."""
    client = session.client
    name, tags = _parse_one(what)
    same_name = [
        group
        for group in list_tag_groups(client, include_deleted=True)
        if group.name.casefold() == name.casefold()
    ]
    if tags:
        deleted_tags = [
            tag
            for group in same_name
            for tag in group.tags
            if not group.HasField("delete_time")
            and tag.HasField("delete_time")
            and tag.name.casefold() == tags[0].casefold()
        ]
        tag_id = _last_deleted(deleted_tags, what).id
        request = catalog_service_pb2.UndeleteTagRequest(id=tag_id)
        changed = client.call_method(client.catalog.UndeleteTag, request).pvs_changed
    else:
        deleted_groups = [group for group in same_name if group.HasField("delete_time")]
        group_id = _last_deleted(deleted_groups, what).id
        whole = catalog_service_pb2.UndeleteTagGroupRequest(id=group_id)
        changed = client.call_method(client.catalog.UndeleteTagGroup, whole).pvs_changed
    session.show_document(
        {"pvs_changed": changed}, lambda: f"{what} is back on {plural(changed, 'PV')}"
    )


def _last_deleted(candidates: list[T], what: str) -> T:
    if not candidates:
        raise not_found(
            f"nothing that was deleted is called {what!r}",
            remedy="a tag of a deleted group comes back with the group",
        )
    return max(candidates, key=lambda each: each.delete_time.ToNanoseconds())
