"""`drey tag`: tags on PVs, tags in groups, groups."""

from __future__ import annotations

from typing import Annotated

import typer

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import catalog_pb2, catalog_service_pb2
from drey_cli.errors import CliError, usage_error
from drey_cli.naming import list_tag_groups, tag_group
from drey_cli.registry import command, command_app
from drey_cli.render.table import Column, Table
from drey_cli.render.times import format_count, plural
from drey_cli.selection import Choice, parse_tag
from drey_cli.session import Session, new_request_id

app = command_app(SUMMARIES["tag"])


TagArgument = Annotated[str, typer.Argument(metavar="GROUP=TAG[,TAG]", help="Group and tags.")]
Force = Annotated[bool, typer.Option("--force", help="Although PVs carry it.")]
_DESCRIPTION = Column("description", fold=True)
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@command(app, "add", examples=("drey tag add Region=LI21 --glob '*:LI21:*'",))
def add(session: Session, choice: Choice, tag: TagArgument) -> None:
    """Put tags on PVs. Groups and tags that are not there are created."""
    _change_tags(session, choice, tag, adds=True)


@command(app, "rm", examples=("drey tag rm Region=LI21 --device SPARE",))
def remove(session: Session, choice: Choice, tag: TagArgument) -> None:
    """Take tags off PVs. The tags themselves stay."""
    _change_tags(session, choice, tag, adds=False)


def _change_tags(session: Session, choice: Choice, text: str, *, adds: bool) -> None:

    group, names = parse_tag(text, option="GROUP=TAG")
    if not names:
        raise usage_error(
            f"{text!r} names no tag of the group", field="GROUP=TAG", remedy="as in Region=LI21"
        )
    refs = [catalog_pb2.TagRef(group=group, tag=name) for name in names]
    client = session.client
    answer = client.call(
        client.catalog.TagPvs,
        catalog_service_pb2.TagPvsRequest(
            selector=choice.required(),
            add=refs if adds else [],
            remove=[] if adds else refs,
            request_id=new_request_id(),
        ),
    )
    session.show(answer, lambda: f"{plural(answer.matched, 'PV')} chosen, {answer.changed} changed")


@command(app, "groups")
def groups(session: Session) -> None:
    """List all groups with their tags, and how many PVs carry each."""
    tag_groups = list(list_tag_groups(session.client))

    def draw_groups() -> Table:
        table = Table((Column("group"), Column("tag"), Column("PVs", right=True), _DESCRIPTION))
        for group in tag_groups:
            table.add(group.name, "", "", group.description)
            for tag in group.tags:
                table.add("", tag.name, format_count(tag.pv_count), "")
        return table

    session.show({"tag_groups": tag_groups}, draw_groups)


@command(app, "create", examples=("drey tag create Region=LI21,LI22",))
def create(
    session: Session,
    group: Annotated[str, typer.Argument(metavar="GROUP[=TAG,...]", help="Group, with tags.")],
    description: Annotated[str, typer.Option("--description", help="Text for people.")] = "",
) -> None:
    """Create a group, with tags; in a group that is there, create the tags."""
    client = session.client
    name, tags = parse_tag(group, option="GROUP")
    same_name = [g for g in list_tag_groups(client) if g.name.casefold() == name.casefold()]
    if same_name and tags:
        for tag in tags:
            client.call(
                client.catalog.CreateTag,
                catalog_service_pb2.CreateTagRequest(
                    tag_group_id=same_name[0].id, name=tag, request_id=new_request_id()
                ),
            )
        made = tag_group(client, same_name[0].id)
    else:
        wanted = catalog_pb2.TagGroup(
            name=name, description=description, tags=[catalog_pb2.Tag(name=tag) for tag in tags]
        )
        made = client.call(
            client.catalog.CreateTagGroup,
            catalog_service_pb2.CreateTagGroupRequest(
                tag_group=wanted, request_id=new_request_id()
            ),
        ).tag_group
    names = ", ".join(tag.name for tag in made.tags) or "no tags"
    session.show({"tag_group": made}, lambda: f"{made.name}: {names}")


@command(app, "rename", examples=("drey tag rename Region=LI21 'Linac 21'",))
def rename(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="GROUP[=TAG]", help="Group, or tag of it.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="New name.")],
) -> None:
    """Rename a group, or a tag of a group."""
    client = session.client
    group_name, tags = _parse_one(what)
    group = tag_group(client, group_name)
    if tags:
        tag = _tag_of(group, tags[0])
        change = catalog_service_pb2.UpdateTagRequest(
            tag=catalog_pb2.Tag(id=tag.id, name=name, etag=tag.etag), request_id=new_request_id()
        )
        change.update_mask.paths.append("name")
        client.call(client.catalog.UpdateTag, change)
    else:
        request = catalog_service_pb2.UpdateTagGroupRequest(
            tag_group=catalog_pb2.TagGroup(id=group.id, name=name, etag=group.etag),
            request_id=new_request_id(),
        )
        request.update_mask.paths.append("name")
        client.call(client.catalog.UpdateTagGroup, request)
    made = tag_group(session.client, group.id)
    session.show({"tag_group": made}, lambda: f"renamed to {name}")


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
    raise CliError(
        f"group {group.name!r} has no tag {name!r}",
        reason="NOT_FOUND",
        remedy="see drey tag groups",
    )


@command(app, "delete", examples=("drey tag delete Region=LI21 --force",))
def delete(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="GROUP[=TAG]", help="Group, or tag of it.")],
    force: Force = False,
    yes: Yes = False,
) -> None:
    """Delete a group with its tags, or one tag of it, from the catalog."""
    client = session.client
    group_name, tags = _parse_one(what)
    group = tag_group(client, group_name)
    session.confirm(f"Delete {what}?", yes=yes)
    if tags:
        changed = client.call(
            client.catalog.DeleteTag,
            catalog_service_pb2.DeleteTagRequest(
                id=_tag_of(group, tags[0]).id, force=force, request_id=new_request_id()
            ),
        ).pvs_changed
    else:
        changed = client.call(
            client.catalog.DeleteTagGroup,
            catalog_service_pb2.DeleteTagGroupRequest(
                id=group.id, force=force, request_id=new_request_id()
            ),
        ).pvs_changed
    session.show(
        {"pvs_changed": changed}, lambda: f"deleted {what}; {plural(changed, 'PV')} lost a tag"
    )


@command(app, "undelete", examples=("drey tag undelete Region=LI21",))
def undelete(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="GROUP[=TAG]", help="Group, or tag of it.")],
) -> None:
    """Bring back a deleted group with its tags, or one tag, on the PVs that carried them."""
    client = session.client
    name, tags = _parse_one(what)
    candidates = [
        group
        for group in list_tag_groups(client, include_deleted=True)
        if group.name.casefold() == name.casefold() and group.HasField("delete_time") != bool(tags)
    ]
    deleted_tags = [
        tag
        for group in candidates
        for tag in group.tags
        if tags and tag.HasField("delete_time") and tag.name.casefold() == tags[0].casefold()
    ]
    if not (deleted_tags if tags else candidates):
        raise CliError(
            f"nothing that was deleted is called {what!r}",
            reason="NOT_FOUND",
            remedy="a tag of a deleted group comes back with the group",
        )
    if tags:
        latest = max(deleted_tags, key=lambda tag: tag.delete_time.ToNanoseconds())
        changed = client.call(
            client.catalog.UndeleteTag,
            catalog_service_pb2.UndeleteTagRequest(id=latest.id, request_id=new_request_id()),
        ).pvs_changed
    else:
        group = max(candidates, key=lambda group: group.delete_time.ToNanoseconds())
        changed = client.call(
            client.catalog.UndeleteTagGroup,
            catalog_service_pb2.UndeleteTagGroupRequest(id=group.id, request_id=new_request_id()),
        ).pvs_changed
    session.show({"pvs_changed": changed}, lambda: f"{what} is back on {plural(changed, 'PV')}")
