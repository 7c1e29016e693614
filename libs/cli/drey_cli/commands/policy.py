"""`drey policy`: how restores treat PVs by default, by device and by tag."""

from __future__ import annotations

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import catalog_pb2, catalog_service_pb2, policy_pb2, policy_service_pb2
from drey_cli.errors import not_found, usage_error
from drey_cli.naming import get_pv
from drey_cli.options import argument, limit_option, option, yes_option
from drey_cli.policy_options import PolicyOptions, policy_options
from drey_cli.render.pvs import policy_pairs, source_text
from drey_cli.render.table import Cell, Pair, Table, facts_table, number_field, table_of, text_field
from drey_cli.render.words import format_count, format_stamp, plural
from drey_cli.selection import parse_tag
from drey_cli.session import CliSession, command, group

policy_command = group(SUMMARIES["policy"])
subject_argument = argument(
    "subject", metavar="DEVICE|GROUP=TAG", help="A device by its name, or a tag."
)


@command(
    "list",
    policy_command,
    gives="{policies}",
    examples=("drey policy list", "drey policy list --search quad"),
)
@option("--search", default="", metavar="WORDS", help="Words of the device, tag or comment.")
@limit_option(100, "Most")
def list_policies(session: CliSession, search: str, limit: int) -> None:
    """List the policies of devices and of tags, and how many PVs each is for."""
    client = session.client
    request = policy_service_pb2.ListPoliciesRequest(search=search)
    listed = client.list_items(client.policies.ListPolicies, request, "policies", limit=limit)
    policies = list(listed)

    def draw_policies() -> Table:
        return table_of(
            policies,
            text_field("for", _subject_text),
            text_field("a restore", lambda each: _policy_text(each.policy), fold=True),
            number_field("PVs", lambda each: format_count(each.pv_count)),
            text_field("comment", lambda each: each.comment, fold=True),
        )

    session.show_document({"policies": policies}, draw_policies)


@command(
    "show",
    policy_command,
    gives="{policy}",
    examples=("drey policy show PS:LI21", "drey policy show Kind=motor"),
)
@subject_argument
def show_policy(session: CliSession, subject: str) -> None:
    """Show the policy of a device or of a tag."""
    policy = _get_policy(session, subject)
    session.show_document({"policy": policy}, lambda: _policy_facts(policy, utc=session.out.utc))


@command(
    "set",
    policy_command,
    gives="{policy}",
    examples=(
        "drey policy set Kind=motor --completion done-channel --done-channel .DMOV"
        " --write-timeout 3m",
        "drey policy set PS:LI21 --ramp-step 0.5 --ramp-rate 2 --comment 'saturates above 2 A/s'",
        "drey policy set Kind=weak --allowed -5:5 --stage 10",
    ),
)
@subject_argument
@policy_options
@option("--comment", help="Why, for people.")
@option("--only", is_flag=True, help="Forget what it said before; else the rest of it stays.")
def set_policy(
    session: CliSession, subject: str, policy: PolicyOptions, comment: str | None, only: bool
) -> None:
    """Say how restores treat the PVs of a device, or those that carry a tag.

    For each part of it the first that says something counts: the PV itself (drey pv set), its tags,
    its device, Drey. Of several tags the strictest counts: the longest settle time, the smallest
    ramp, the range that all allow; tags that say different things of completion, time-out or stage
    contradict each other. What contradicts itself, or makes the policy of a PV do so, is refused.
    Plans that are made from now on follow it; see what holds with drey policy explain PV.
    """
    client = session.client
    current_policy = _find_policy(session, subject)
    wanted = policy_pb2.DefaultPolicy()
    if current_policy is None:
        _set_subject(wanted, subject)
    else:
        wanted.CopyFrom(current_policy)
    if only:
        wanted.ClearField("policy")
    changed_fields = policy.fill(wanted.policy)
    if comment is not None:
        wanted.comment = comment
    if not changed_fields and (current_policy is None or comment is None):
        raise usage_error("no option says what a restore does", remedy="see drey policy set --help")
    if current_policy is None:
        create = policy_service_pb2.CreatePolicyRequest(policy=wanted)
        made = client.call_method(client.policies.CreatePolicy, create).policy
    else:
        update = policy_service_pb2.UpdatePolicyRequest(policy=wanted)
        update.update_mask.paths.extend(["policy", "comment"])
        made = client.call_method(client.policies.UpdatePolicy, update).policy
    session.show_document({"policy": made}, lambda: _policy_facts(made, utc=session.out.utc))


@command(
    "delete",
    policy_command,
    gives="{deleted}",
    examples=("drey policy delete Kind=motor",),
)
@subject_argument
@yes_option
def delete_policy(session: CliSession, subject: str, yes: bool) -> None:
    """Delete the policy of a device or of a tag: its PVs go back to what else is said of them."""
    client = session.client
    policy = _get_policy(session, subject)
    what = f"the policy of {_subject_text(policy)}, of {plural(policy.pv_count, 'PV')}"
    session.confirm_action(f"Delete {what}?", yes=yes)
    request = policy_service_pb2.DeletePolicyRequest(id=policy.id, etag=policy.etag)
    client.call_method(client.policies.DeletePolicy, request)
    session.show_document({"deleted": policy.id}, lambda: f"deleted {what}")


@command(
    "explain",
    policy_command,
    gives="GetEffectivePolicyResponse",
    examples=("drey policy explain QUAD:LI21:101:BDES",),
)
@argument("pv", help="Name or id.")
def explain_policy(session: CliSession, pv: str) -> None:
    """Say how a restore would treat a PV, and who says each part of it."""
    client = session.client
    held = get_pv(client, pv).pv
    request = catalog_service_pb2.GetEffectivePolicyRequest(id=held.id)
    effective = client.call_method(client.catalog.GetEffectivePolicy, request)

    def draw_policy() -> Table:
        speakers: dict[str, list[str]] = {}
        for source in effective.sources:
            speakers.setdefault(source.policy_field, []).append(source_text(source))
        values = {
            name.removeprefix("restore: "): text for name, text in policy_pairs(effective.policy)
        }
        pairs: list[Pair] = []
        for part, who in speakers.items():
            name = part.replace("_", " ")
            pairs.append((name, f"{values.get(name, 'none')}, from {' and '.join(who)}"))
        pairs += [("contradiction", Cell(why, "bold red")) for why in effective.contradictions]
        return facts_table(pairs, title=held.name)

    session.show_document(effective, draw_policy)


def _find_policy(session: CliSession, subject: str) -> policy_pb2.DefaultPolicy | None:
    """The policy of a device or tag as it is typed, or None."""
    wanted = policy_pb2.DefaultPolicy()
    _set_subject(wanted, subject)
    request = policy_service_pb2.ListPoliciesRequest(device=wanted.device)
    if wanted.HasField("tag"):
        request.tag.CopyFrom(wanted.tag)
    client = session.client
    policies = client.list_items(client.policies.ListPolicies, request, "policies", limit=1)
    return next(iter(policies), None)


def _get_policy(session: CliSession, subject: str) -> policy_pb2.DefaultPolicy:
    policy = _find_policy(session, subject)
    if policy is None:
        raise not_found(f"{subject} has no policy of its own", remedy="see drey policy list")
    return policy


def _set_subject(policy: policy_pb2.DefaultPolicy, subject: str) -> None:
    """`GROUP=TAG` is a tag, everything else a device."""
    if "=" not in subject:
        policy.device = subject
        return
    name, tags = parse_tag(subject, option="GROUP=TAG")
    if len(tags) != 1:
        raise usage_error(f"{subject!r} names no single tag", remedy="as in Kind=motor")
    policy.tag.CopyFrom(catalog_pb2.TagRef(group=name, tag=tags[0]))


def _subject_text(policy: policy_pb2.DefaultPolicy) -> str:
    tag = policy.tag
    return f"{tag.group}={tag.tag}" if policy.HasField("tag") else policy.device


def _policy_text(policy: catalog_pb2.RestorePolicy) -> str:
    return ", ".join(
        f"{name.removeprefix('restore: ')} {text}" for name, text in policy_pairs(policy)
    )


def _policy_facts(policy: policy_pb2.DefaultPolicy, *, utc: bool) -> Table:
    pairs = [
        ("for", f"{_subject_text(policy)}, {plural(policy.pv_count, 'PV')}"),
        *policy_pairs(policy.policy),
        ("set by", f"{policy.actor.principal}, {format_stamp(policy.update_time, utc=utc)}"),
    ]
    if policy.comment:
        pairs.append(("comment", policy.comment))
    return facts_table(pairs)
