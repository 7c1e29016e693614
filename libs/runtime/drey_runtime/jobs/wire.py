"""Bytes on the bus: `drey.events.v1.JobChanged` and `JobDelivery`, and the subjects."""

from __future__ import annotations

from uuid import UUID

from google.protobuf.message import DecodeError

from drey.events.v1 import changes_pb2


def work_subject(kind: str) -> str:
    """Where jobs of a kind are delivered, below `{namespace}.v1.`."""
    return f"work.{kind}"


def stream_name(namespace: str) -> str:
    """The JetStream stream of jobs."""
    return f"{namespace}_jobs"


def encode_changed(job_id: str, revision: int) -> bytes:
    """A JobChanged."""
    return changes_pb2.JobChanged(job_id=job_id, revision=revision).SerializeToString()


def decode_changed(payload: bytes) -> tuple[str, int] | None:
    """Id and revision, or None for bytes that are none."""
    try:
        message = changes_pb2.JobChanged.FromString(payload)
    except DecodeError:
        return None
    return message.job_id, message.revision


def encode_delivery(job_id: str) -> bytes:
    """A JobDelivery."""
    return changes_pb2.JobDelivery(job_id=job_id).SerializeToString()


def decode_delivery(payload: bytes) -> str | None:
    """The id, or None for bytes that are no delivery of a job: ids of jobs are UUIDs."""
    try:
        return str(UUID(changes_pb2.JobDelivery.FromString(payload).job_id))
    except (DecodeError, ValueError):
        return None
