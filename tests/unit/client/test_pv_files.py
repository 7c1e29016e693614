"""What an import sends, and what its answers say."""

from __future__ import annotations

import io
from uuid import UUID

import pytest

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
from drey_client import ClientError
from drey_client.pv_files import import_requests, read_import


def test_a_file_goes_whole_in_parts_after_its_options() -> None:
    content = b"Setpoint\n" + b"A:B\n" * 300_000
    sent: list[int] = []
    options, *chunks = import_requests(
        io.BytesIO(content), "a.csv", keep_existing=True, on_sent=sent.append
    )
    assert options.options.format == catalog_pb2.FILE_FORMAT_CSV
    assert (options.options.file_name, options.options.keep_existing) == ("a.csv", True)
    assert not options.options.dry_run and UUID(options.options.request_id)
    assert b"".join(chunk.data for chunk in chunks) == content
    assert len(chunks) > 1 and max(len(chunk.data) for chunk in chunks) <= 1 << 20
    assert sum(sent) == len(content)


def test_answers_without_a_summary_are_an_error() -> None:
    answer = catalog_service_pb2.ImportPvsResponse()
    answer.rows.rows.add(line=2, name="A:B")
    with pytest.raises(ClientError, match="nothing is known of it"):
        read_import([answer])
    end = catalog_service_pb2.ImportPvsResponse(summary=catalog_pb2.ImportSummary(rows=1))
    done = read_import([answer, end])
    assert [row.name for row in done.rows] == ["A:B"] and done.summary.rows == 1
