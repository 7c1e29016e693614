"""`drey policy`, and plans of given values, against a server of the contracts."""

from drey.catalog.v1 import catalog_pb2
from drey.policy.v1 import policy_service_pb2
from drey.restore.v1 import restore_service_pb2


def test_a_policy_is_created_for_a_tag_and_says_all_that_was_typed(drey, state):
    answer = drey(
        *("policy", "set", "Kind=motor", "--completion", "done-channel", "--done-channel", ".DMOV"),
        *("--write-timeout", "3m", "--settle", "500ms", "--stage", "-2", "--ramp-step", "0.5"),
        *("--ramp-rate", "2", "--allowed", "-5:", "--comment", "slow"),
    )
    assert answer.code == 0, answer
    [made] = state.of(policy_service_pb2.CreatePolicyRequest)
    policy = made.policy.policy
    assert (made.policy.tag.group, made.policy.tag.tag) == ("Kind", "motor")
    assert policy.completion == catalog_pb2.COMPLETION_DONE_CHANNEL
    assert (policy.done_channel, policy.timeout.seconds, policy.settle.nanos) == (
        ".DMOV",
        180,
        500_000_000,
    )
    assert (policy.stage, policy.ramp_step, policy.ramp_rate) == (-2, 0.5, 2.0)
    assert (policy.allowed.low, policy.allowed.high) == (-5.0, float("inf"))
    assert made.policy.comment == "slow"


def test_a_policy_that_is_there_keeps_what_is_not_said(drey, state):
    assert drey("policy", "set", "PS:1", "--stage", "7").code == 0
    [kept] = state.of(policy_service_pb2.UpdatePolicyRequest)
    assert (kept.policy.etag, kept.policy.policy.stage) == ("a", 7)
    assert (kept.policy.policy.done_channel, kept.policy.comment) == (".DMOV", "slow")
    # another completion has no use for the done channel
    assert drey("policy", "set", "PS:1", "--completion", "sent").code == 0
    assert not state.of(policy_service_pb2.UpdatePolicyRequest)[1].policy.policy.done_channel
    assert drey("policy", "set", "PS:1", "--only", "--stage", "7").code == 0
    only = state.of(policy_service_pb2.UpdatePolicyRequest)[2].policy.policy
    assert only == catalog_pb2.RestorePolicy(stage=7)


def test_policies_are_shown_explained_and_deleted(drey, state):
    listed = drey("policy", "list").out
    assert "PS:1" in listed and ".DMOV" in listed and "3" in listed
    shown = drey("policy", "show", "PS:1").out
    assert "done-channel" in shown and "3 PVs" in shown
    state.answers_all = True
    told = drey("policy", "explain", "A:SET").out
    assert "put-callback, from the defaults" in told
    assert "3, from tag Kind=weak" in told and "none, from the defaults" in told
    assert "say different things of timeout" in told
    assert drey("policy", "delete", "PS:1", "--yes").code == 0
    [gone] = state.of(policy_service_pb2.DeletePolicyRequest)
    assert gone.etag == "a"


def test_what_means_nothing_is_refused(drey):
    for words, why in (
        (["show", "Kind=motor"], "no policy of its own"),
        (["set", "PS:2"], "no option says"),
        (["set", "Kind=a,b", "--stage", "1"], "no single tag"),
        (["set", "PS:2", "--allowed", "5"], "no range"),
        (["set", "PS:2", "--allowed", "a:b"], "no range"),
    ):
        answer = drey("policy", *words)
        assert answer.code in {1, 2} and why in answer.err, (words, answer)


def test_a_plan_is_made_of_typed_values_and_those_of_a_file(drey, state, tmp_path):
    file = tmp_path / "values.csv"
    file.write_text("PV,value\nQUAD:1,1.5\n")
    answer = drey(
        *("restore", "plan", "--values", str(file), "--set", "MODE=Standby"),
        *("--scale", "QUAD:*=2", "--json"),
    )
    assert answer.code == 0, answer
    [made] = state.of(restore_service_pb2.CreatePlanRequest)
    values = {each.name: each.value for each in made.spec.values.values}
    assert values["QUAD:1"].float64_value == 1.5 and values["MODE"].string_value == "Standby"
    assert [list(edit.selector.globs) for edit in made.spec.edits] == [["QUAD:*"]]
    for words, why in (
        (["restore", "plan"], "neither a snapshot nor values"),
        (["restore", "plan", "latest", "--values", str(file)], "a source of its own"),
        (["restore", "plan", "--set", "QUAD:*=1"], "pattern"),
    ):
        refused = drey(*words)
        assert refused.code == 2 and why in refused.err, (words, refused)
