"""What can go wrong when processes are started, with the fields a caller needs to say why."""

from pathlib import Path


class StackError(Exception):
    """Root of the errors of this package."""


class FolderBusy(StackError):
    """Another process already runs a part in this folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} is in use by another running stack: stop that one, or take another folder"
        )
        self.folder = folder


class PartFailed(StackError):
    """An embedded server did not start, or not in time."""

    def __init__(self, part: str, reason: str, log_tail: str = "") -> None:
        tail = f"\n--- end of its log ---\n{log_tail}" if log_tail else ""
        super().__init__(f"{part}: {reason}{tail}")
        self.part = part
        self.reason = reason
        self.log_tail = log_tail


class ChildFailed(StackError):
    """A supervised child exited before it was ready, or is not to be restarted any more."""

    def __init__(self, name: str, reason: str, returncode: int | None, log_tail: str = "") -> None:
        tail = f"\n--- end of its log ---\n{log_tail}" if log_tail else ""
        super().__init__(f"{name}: {reason} (exit status {returncode}){tail}")
        self.name = name
        self.reason = reason
        self.returncode = returncode
        self.log_tail = log_tail
