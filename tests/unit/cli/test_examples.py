"""Examples can be typed on the simulated machine, and every refusal has a remedy."""

import re
import shlex
from itertools import pairwise

import pytest

from drey.common.v1.errors_pb2 import ErrorReason
from drey_cli.errors import SELF_EXPLAINED, listing_of, remedy_for
from drey_cli.main import every_command
from drey_client.errors import reason_name
from drey_machine.plant import Plant

PLANT = Plant()
NAMES = {*PLANT.setpoints, *PLANT.readbacks}
DEVICES = {row.device for row in PLANT.rows}
TAGS = {
    *(f"Area={row.area}" for row in PLANT.rows),
    *(f"Region={row.region}" for row in PLANT.rows),
    *(f"Subsystem={row.subsystem}" for row in PLANT.rows),
}
PV_NAME = re.compile(r"[A-Z]{3,}:LI\d\d:\d+:[\w.]+")
OWN_NAMES = {("pv", "add"), ("pv", "rm"), ("tag", "add"), ("tag", "rm"), ("key", "create")}
"""Their examples speak of what is not there yet, or not any more."""
EXAMPLES = [
    (words, example)
    for words, command in every_command()
    for example in getattr(command, "examples", ())
    if words not in OWN_NAMES
]


@pytest.mark.parametrize(("words", "example"), EXAMPLES, ids=[each for _, each in EXAMPLES])
def test_an_example_names_what_the_simulated_machine_has(words, example):
    typed = shlex.split(example, comments=True)
    assert set(PV_NAME.findall(example)) <= NAMES
    for option, value in pairwise(typed):
        if option == "--device":
            assert value in DEVICES
        elif option == "--tag":
            group, _, tags = value.partition("=")
            assert {f"{group}={tag}" for tag in tags.split(",")} <= TAGS


def test_every_reason_has_a_remedy_or_says_enough():
    reasons = {reason_name(number) for number in ErrorReason.values()} - {"UNSPECIFIED"}
    assert {reason for reason in reasons if not remedy_for(reason)} == SELF_EXPLAINED


@pytest.mark.parametrize(
    "resource", ["golden", "key", "plan", "policy", "pv", "refusal", "snapshot", "tag", "tag_group"]
)
def test_what_is_not_there_is_listed_by_a_command_that_there_is(resource):
    told = remedy_for("NOT_FOUND", "NOT_FOUND", {"resource": resource})
    assert listing_of(resource) in told
    words = tuple(word for word in listing_of(resource).split()[1:] if re.fullmatch("[a-z]+", word))
    assert words in {each for each, _ in every_command()}
