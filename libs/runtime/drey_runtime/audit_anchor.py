"""Anchors of the audit trail outside of the database: its owner cannot cut the end off unseen.

The head of the chain goes, signed, as a line of JSON into a file that only this process writes, and
as a line into its log. One who has the database's owner has neither.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drey_core.errors import Unavailable
from drey_runtime import audit
from drey_runtime.clock import now_ns
from drey_runtime.database import Connection, Database

log = logging.getLogger(__name__)

LOG_MESSAGE = "audit anchor"
"""The log line of each anchor, with `sequence` and `hash`; where logs are kept, so are these."""

_LONGEST_LINE = 4096


@dataclass(frozen=True)
class Anchor:
    """The head of the chain as it was at a time."""

    head: audit.Head
    time_ns: int


class AnchorFile:
    """The file of one process: appended to, never rewritten. Methods block for a disk write.

    A line without its end is an anchor that was never set: the disk was full, or the process was
    killed while it wrote. It counts for nothing, and the next one takes its place.
    """

    def __init__(self, path: Path, key: Ed25519PrivateKey) -> None:
        self.path = path
        self._key = key
        self._turn = threading.Lock()

    @classmethod
    def open_file(cls, path: Path, signing_key: Path) -> AnchorFile:
        """Lines are signed with the Ed25519 key in `signing_key` (PEM). OSError, ValueError."""
        key = serialization.load_pem_private_key(signing_key.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{signing_key} is not an Ed25519 private key")
        return cls(path, key)

    def append_anchor(self, anchor: Anchor) -> None:
        """Add an anchor; it is on disk afterwards."""
        fields: dict[str, Any] = {
            "sequence": anchor.head.seq,
            "hash": anchor.head.hash.hex(),
            "time_ns": anchor.time_ns,
        }
        line = (
            json.dumps(fields | {"signature": self._key.sign(_signed_bytes(fields)).hex()}) + "\n"
        )
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._turn, os.fdopen(handle, "r+b", buffering=0) as file:
            start = max(os.fstat(handle).st_size - _LONGEST_LINE, 0)
            torn = os.pread(handle, _LONGEST_LINE, start)
            file.truncate(start + torn.rfind(b"\n") + 1)
            if file.write(line.encode()) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file.fileno())

    def load_anchors(self) -> tuple[list[Anchor], list[str]]:
        """(the anchors, oldest first; what is wrong with other lines of the file)."""
        anchors, problems = [], []
        try:
            with self._turn:
                text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return [], []
        for number, line in enumerate(text.split("\n")[:-1], 1):
            try:
                anchors.append(self._parse_anchor(line))
            except (ValueError, KeyError, TypeError, InvalidSignature):
                problems.append(f"line {number} of {self.path.name} is not an anchor that we set")
        return anchors, problems

    def _parse_anchor(self, line: str) -> Anchor:
        fields = json.loads(line)
        signature = bytes.fromhex(fields.pop("signature"))
        self._key.public_key().verify(signature, _signed_bytes(fields))
        head = audit.Head(int(fields["sequence"]), bytes.fromhex(fields["hash"]))
        return Anchor(head, int(fields["time_ns"]))


def _signed_bytes(fields: dict[str, Any]) -> bytes:
    return b"drey-audit-anchor\0" + json.dumps(fields, sort_keys=True).encode()


class AuditAnchors:
    """Sets an anchor whenever the trail has grown, at most each `period_s`; `file` None: logs only.

    Looks each time whether what was anchored last is still there, and says it as an ERROR if not.
    """

    def __init__(self, database: Database, file: AnchorFile | None, period_s: float) -> None:
        self._database, self._file, self._period_s = database, file, period_s
        self._last: audit.Head | None = None

    async def load_anchors(self) -> tuple[list[Anchor], list[str]]:
        """As `AnchorFile.read`; nothing where no file is kept."""
        return ([], []) if self._file is None else await asyncio.to_thread(self._file.load_anchors)

    async def run(self) -> None:
        """Until cancelled. While Postgres is away nothing grows; a full disk is tried again."""
        anchors, problems = await self.load_anchors()
        for problem in problems:
            log.error("the anchors of the audit trail were touched: %s", problem)
        if anchors:
            self._last = anchors[-1].head
        while True:
            try:
                await self.write_anchor()
            except Unavailable as error:
                log.debug("the audit trail is not anchored now: %s", error.message)
            except OSError as error:
                log.error("an anchor of the audit trail cannot be written: %s", error)
            await asyncio.sleep(self._period_s)

    async def write_anchor(self) -> None:
        """Set an anchor where the trail has grown. Raises `Unavailable`."""
        last = self._last

        async def read_head(conn: Connection) -> tuple[audit.Head | None, bytes | None]:
            kept = None if last is None else await audit.read_hash(conn, last.seq)
            return await audit.read_head(conn), kept

        head, kept = await self._database.run_reading(read_head)
        if last is not None and kept != last.hash:
            log.error(
                "the audit trail is not the one that was anchored: run `drey audit verify`",
                extra={"sequence": last.seq, "hash": last.hash.hex()},
            )
            return
        if head is None or head == last:
            return
        if self._file is not None:
            await asyncio.to_thread(self._file.append_anchor, Anchor(head, now_ns()))
        log.info(LOG_MESSAGE, extra={"sequence": head.seq, "hash": head.hash.hex()})
        self._last = head
