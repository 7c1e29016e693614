"""The form in which values are sent, `drey.common.v1.ValueForm`."""

from __future__ import annotations

from drey.common.v1 import form_pb2
from drey_core.errors import InvalidArgument, Unimplemented


def in_columns(form: int, field: str = "form") -> bool:
    """Whether values are to be sent as columns, else as rows; unspecified means rows.

    Raises `Unimplemented` for Arrow IPC, `InvalidArgument` for a number that is no form.
    """
    if form == form_pb2.VALUE_FORM_ARROW:
        raise Unimplemented(
            f"{field}: Arrow IPC is not built in this version; ask for rows or columns",
            field=field,
        )
    if form not in form_pb2.ValueForm.values():
        raise InvalidArgument(f"{field}: {form} is not one of its values", field=field)
    return form == form_pb2.VALUE_FORM_COLUMNS
