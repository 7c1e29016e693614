"""The one error that a command ends with."""

from __future__ import annotations

from collections.abc import Mapping

from drey_cli.exits import ExitCode


class CliError(Exception):
    """A command could not do what was asked.

    `message` says what happened, `reason` is the machine-readable name (`NOT_FOUND`), `field` the
    request field at fault or empty, `remedy` what a person can do, `metadata` what the server
    added, `code` the exit status, `partial` what was found all the same, for JSON.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "REFUSED",
        field: str = "",
        remedy: str = "",
        metadata: Mapping[str, str] | None = None,
        status: str = "",
        code: ExitCode = ExitCode.REFUSED,
        partial: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.remedy = remedy
        self.metadata = dict(metadata or {})
        self.status = status
        self.code = code
        self.partial = dict(partial or {})

    def as_dict(self) -> dict[str, object]:
        """The error as one JSON-ready document, every key always there."""
        return {
            "error": {
                "message": self.message,
                "reason": self.reason,
                "status": self.status,
                "field": self.field,
                "remedy": self.remedy,
                "metadata": self.metadata,
                "exit_code": int(self.code),
            }
        }


def usage_error(message: str, *, remedy: str, field: str = "") -> CliError:
    """An error in how the command was called, with what to say instead; exit code 2."""
    return CliError(message, reason="USAGE", field=field, remedy=remedy, code=ExitCode.USAGE)
