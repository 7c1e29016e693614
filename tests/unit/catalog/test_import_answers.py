"""The answers of an import are what protobuf would make of its rows."""

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey_core.errors import Reason
from drey_core.wire_values import MAX_CHUNK_BYTES
from drey_snapshot.catalog import servicer_files
from drey_snapshot.catalog.usecases.importing import Action, Plan, Row

NAMES = ("A", "SR:BPM1:X", "Öl:Druck", "N" * 200, "N" * 300)


def answered(rows: list[Row]) -> tuple[list[rpc.ImportPvsResponse], list[catalog_pb2.ImportRow]]:
    raw = servicer_files._unpack_result(servicer_files._pack_result(Plan(len(rows), rows), "job"))
    answers = [rpc.ImportPvsResponse.FromString(answer) for answer in raw]
    return answers, [row for answer in answers for row in answer.rows.rows]


def test_a_row_is_encoded_as_protobuf_does_it():
    rows = [
        Row(line, name, action, "Device" if action == Action.CHANGED else "", reason, message)
        for name in NAMES
        for line in (1, 127, 128, 16_384, 3_000_000)
        for action, reason, message in (
            (Action.ADDED, Reason.UNSPECIFIED, ""),
            (Action.CHANGED, Reason.UNSPECIFIED, ""),
            (Action.REFUSED, Reason.INVALID_FIELD, "is no number"),
        )
    ]
    for row in rows:
        expected = servicer_files._row_to_proto(row)
        assert servicer_files._encode_row(row) == expected.SerializeToString()
    answers, seen = answered(rows)
    assert seen == [servicer_files._row_to_proto(r) for r in sorted(rows, key=lambda r: r.line)]
    assert answers[-1].summary.applied
    assert answers[-1].summary.job_id == "job"


def test_many_rows_come_in_answers_of_a_bounded_size():
    rows = [Row(line, "N" * 100, Action.ADDED) for line in range(1, 40_001)]
    answers, seen = answered(rows)
    assert [row.line for row in seen] == [row.line for row in rows]
    assert len(answers) > 2
    assert max(answer.ByteSize() for answer in answers) <= MAX_CHUNK_BYTES + 16
