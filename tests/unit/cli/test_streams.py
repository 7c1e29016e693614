"""Arrays in parts, and the state of a watch."""

from drey.common.v1 import value_pb2
from drey.monitor.v1 import monitor_service_pb2
from drey_client.parts import whole_rows
from drey_client.watch_state import WatchModel

Response = monitor_service_pb2.WatchPvsResponse


def row(number, value, **more):
    return value_pb2.PvRow(
        name=f"P{number}", number=number, setpoint=value_pb2.Value(float64_value=value, **more)
    )


def bytes_part(number, first, data, total):
    value = value_pb2.Value(
        uint8_array=data, part={"first_element": first, "total_elements": total}
    )
    return value_pb2.PvRow(name=f"P{number}", number=number, setpoint=value)


def test_parts_become_whole_in_order():
    rows = [row(1, 1.0), bytes_part(2, 0, b"ab", 5), bytes_part(2, 2, b"cd", 5)]
    rows += [bytes_part(2, 4, b"e", 5), row(3, 3.0)]
    whole = list(whole_rows(rows))
    assert [each.number for each in whole] == [1, 2, 3]
    assert whole[1].setpoint.uint8_array == b"abcde"
    assert not whole[1].setpoint.HasField("part")


def string_part(first, total, **data):
    value = value_pb2.Value(part={"first_element": first, "total_elements": total}, **data)
    return value_pb2.PvRow(name="P2", number=2, setpoint=value)


def test_parts_of_strings_are_counted_in_bytes():
    parts = [string_part(0, 8, string_value="µµ"), string_part(4, 8, string_value="€x")]
    (whole,) = whole_rows(parts)
    assert whole.setpoint.string_value == "µµ€x" and not whole.setpoint.HasField("part")
    parts = [string_part(0, 3, raw_string_value=b"\xff"), string_part(1, 3, raw_string_value=b"ab")]
    (whole,) = whole_rows(parts)
    assert whole.setpoint.raw_string_value == b"\xffab"


def test_a_value_whose_rest_never_came_keeps_its_mark():
    (broken,) = whole_rows([bytes_part(2, 0, b"ab", 5)])
    assert broken.setpoint.part.total_elements == 5


def baseline(model, *rows, keeps=False, token="t"):
    model.apply_message(Response(baseline_begin={"pv_count": len(rows), "keeps_state": keeps}))
    model.apply_message(Response(baseline={"rows": rows}))
    model.apply_message(Response(baseline_end={"token": token}))


def test_baseline_and_diffs_fold():
    model = WatchModel()
    baseline(model, row(1, 1.0), row(2, 2.0))
    assert model.complete and model.token == "t"
    change = model.apply_message(Response(diff={"rows": [row(2, 5.0)], "merged": 4}))
    assert [each.number for each in change.rows] == [2]
    assert model.rows[2].setpoint.float64_value == 5.0 and model.merged == 4
    model.apply_message(Response(left={"pvs": [{"number": 1, "name": "P1"}]}))
    assert set(model.rows) == {2}


def test_a_lost_stream_makes_all_stale_until_it_goes_on():
    model = WatchModel()
    baseline(model, row(1, 1.0, freshness=value_pb2.FRESHNESS_FRESH))
    model.mark_lost()
    assert model.stale_count == 1 and not model.connected
    baseline(model, keeps=True, token="u")
    assert model.stale_count == 0 and set(model.rows) == {1} and model.token == "u"
    baseline(model, row(9, 1.0))
    assert set(model.rows) == {9}


def test_freshness_and_stalling_are_told_once():
    model = WatchModel()
    baseline(model, row(1, 1.0))
    change = model.apply_message(
        Response(freshness={"freshness": 2, "all": True, "reason": "silent"})
    )
    assert change.notice == "stale: all PVs: silent" and model.stale_count == 1
    assert model.apply_message(Response(checkpoint={"stalled": True, "token": "x"})).notice
    assert not model.apply_message(Response(checkpoint={"stalled": True})).notice
    assert model.token == "x"


def test_a_diff_changes_what_it_holds_and_no_other_channel():
    model = WatchModel()
    both = value_pb2.PvRow(
        number=7, name="A", setpoint={"float64_value": 1.0}, readback={"float64_value": 2.0}
    )
    baseline(model, both)
    change = model.apply_message(
        Response(diff={"rows": [{"number": 7, "name": "A", "setpoint": {"float64_value": 3.0}}]})
    )
    for row in (model.rows[7], *change.rows):
        assert (row.setpoint.float64_value, row.readback.float64_value) == (3.0, 2.0)
    # it has other channels now: it leaves, without a word to people, and comes without a readback
    left = Response(left={"pvs": [{"number": 7, "name": "A", "reason": 3}]})
    assert model.apply_message(left).notice == ""
    model.apply_message(Response(diff={"rows": [{"number": 7, "name": "A", "setpoint": {}}]}))
    assert not model.rows[7].HasField("readback")
