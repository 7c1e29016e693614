"""The simulated machine, looked at by a CA client in a process of its own."""

import csv
import math
from pathlib import Path

import psutil
import pytest

from drey_machine import KINDS, Machine, Plant
from drey_stack.ports import LOOPBACK


@pytest.fixture
async def machine(tmp_path: Path):
    async with Machine(tmp_path, 300) as running:
        yield running


def test_plant_is_the_same_for_the_same_seed_and_counts_right():
    for pvs in (20, 99, 1_000, 40_000):
        plant = Plant(pvs, 5)
        names = [n for row in plant.rows for n in (row.setpoint, row.readback) if n]
        assert len(plant.rows) == pvs == sum(plant.counts.values())
        assert len(set(names)) == len(names) and plant.catalog_csv() == Plant(pvs, 5).catalog_csv()
    assert all(Plant(1_000).counts[kind] for kind in KINDS)
    for pvs in (19, 200_001):
        with pytest.raises(ValueError, match="not between"):
            Plant(pvs)


async def test_every_kind_is_served_and_only_the_dead_are_dead(machine: Machine):
    plant = machine.plant
    values = await machine.read_channels(
        [*plant.setpoints, *plant.readbacks, *plant.dead_addresses], timeout=5
    )
    failed = {name for name, value in values.items() if "error" in value}
    assert failed == set(machine.dead_addresses) and machine.dead_addresses
    one = {kind: values[machine.names(kind)[0]] for kind in plant.counts}
    assert math.isnan(one["nan"]["value"]) and math.isinf(one["infinite"]["value"])
    assert math.copysign(1, one["negative_zero"]["value"]) == -1
    assert one["epoch_1990"]["time_ns"] == 631152000 * 10**9
    assert one["never_processed"]["status"] == 17
    assert one["wave_empty"]["value"] == [] and len(one["wave"]["value"]) == 10
    assert one["string"]["value"] == "Écran à ½ µm"
    assert one["wave_string"]["value"] == ["alpha", "", "with, comma", "ümlaut"]
    severities = {values[name]["severity"] for name in machine.names("alarm")}
    assert severities <= {1, 2, 3} and severities


async def test_catalog(machine: Machine):
    with machine.csv_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["Setpoint"] for row in rows] == [row.setpoint for row in machine.catalog_rows()]
    assert rows[0]["Setpoint"] == "QUAD:LI20:101:BDES" and rows[0]["Region"] == "Injector"


async def test_disturbed_magnets_move_and_settle_within_tolerance(machine: Machine):
    before = await machine.read_channels(machine.names("magnet"))
    moved = await machine.disturb_values(20, seed=3)
    assert len(set(moved)) == 20
    after = await machine.read_channels(machine.names("magnet"))
    assert {n for n in after if after[n]["value"] != before[n]["value"]} == set(moved)
    rows = [row for row in machine.catalog_rows() if row.setpoint in set(moved)]
    for _ in range(10):
        now = await machine.read_channels([row.readback for row in rows])
        off = [abs(now[r.readback]["value"] - after[r.setpoint]["value"]) for r in rows]
        if max(off) < 0.02:
            break
    assert max(off) < 0.02 < rows[0].readback_abs_tolerance


async def test_writes_that_are_refused_clipped_or_pulled_back(machine: Machine):
    clip, back = machine.names("clip")[0], machine.names("pull_back")[0]
    answer = await machine.write_channels(
        {**dict.fromkeys(machine.refused_addresses, 1.0), clip: 9.0, back: 9.0}
    )
    assert {name for name, error in answer.items() if error} >= set(machine.names("refuse_asg"))
    values = await machine.read_channels([*machine.refused_addresses, clip, back])
    assert values[clip]["value"] == values[back]["value"] == 5.0
    assert {values[name]["value"] for name in machine.refused_addresses} == {7.5, 2.5}


async def test_motor_moves_slowly_and_says_when_it_is_done(machine: Machine):
    motor = machine.names("motor")[0].removesuffix(".VAL")
    names = [f"{motor}.{field}" for field in ("VAL", "RBV", "DMOV", "MOVN")]
    start = [v["value"] for v in (await machine.read_channels(names)).values()]
    assert start[2:] == [1, 0]
    await machine.write_channels({names[0]: start[0] + 30})
    moving = [v["value"] for v in (await machine.read_channels(names)).values()]
    assert moving[2:] == [0, 1] and start[1] <= moving[1] < moving[0]
    for _ in range(20):
        done = [v["value"] for v in (await machine.read_channels(names)).values()]
        if done[2]:
            break
    assert done[1] == done[0] == start[0] + 30 and done[2:] == [1, 0]


async def test_it_listens_on_loopback_only(machine: Machine):
    process = psutil.Process(machine.pid)
    sockets = [c for c in process.net_connections("inet") if c.status in {"LISTEN", "NONE"}]
    bound = {c.laddr.ip for c in sockets if c.laddr.port in {machine.port, machine.repeater_port}}
    assert bound == {LOOPBACK}
    assert not [c for c in sockets if c.status == "LISTEN" and c.laddr.ip != LOOPBACK]
    environment = process.environ()
    assert machine.client_environment["EPICS_CA_AUTO_ADDR_LIST"] == "NO"
    assert "5064" not in {environment.get("EPICS_CA_SERVER_PORT"), str(machine.port)}


async def test_two_machines_do_not_see_each_other(machine: Machine, tmp_path: Path):
    async with Machine(tmp_path / "other", 20) as other:
        only_here = machine.names("magnet")[-1]
        assert "error" in (await other.read_channels([only_here], timeout=1.0))[only_here]
        assert "error" not in (await machine.read_channels([only_here]))[only_here]


async def test_back_on_the_same_port_with_other_types(machine: Machine):
    wave, label = machine.names("wave")[0], machine.names("int32")[0]
    port, pid = machine.port, machine.pid
    await machine.kill()
    assert not psutil.pid_exists(pid)
    await machine.start(variant="changed")
    assert machine.port == port and machine.pid != pid
    values = await machine.read_channels([wave, label])
    assert len(values[wave]["value"]) == 20 and isinstance(values[label]["value"], float)


async def test_stop_leaves_nothing(tmp_path: Path):
    async with Machine(tmp_path, 20) as machine:
        await machine.read_channels(machine.names("magnet"))
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info["cmdline"])]
    assert left == [] and not (tmp_path / "machine.json").exists()
