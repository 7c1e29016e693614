"""Messages as JSON: the standard mapping of Protocol Buffers, with the names of the protos.

64-bit integers are strings, so that no reader rounds them; NaN and infinities are strings; bytes
are base64. Fields without presence are always there, so that scripts need no defaults.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message


def as_document(message: Message) -> dict[str, Any]:
    """The message as a JSON-ready dictionary."""
    from google.protobuf.json_format import MessageToDict

    document: dict[str, Any] = MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    return document


def as_documents(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Each message as a JSON-ready dictionary."""
    return [as_document(message) for message in messages]
