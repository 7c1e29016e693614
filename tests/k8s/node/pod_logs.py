"""What the containers of the node say, those of pods that are gone too."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

_LOOK_S = 0.1
"""A container that is deleted keeps its log for longer."""
_TAIL_LINES = 60


class PodLogs:
    """Keeps every log below `source`, which is removed with its pod, by a second link to it.

    So a kept log goes on as long as its container does. `kept` is on the same file system. Use as a
    context manager.
    """

    def __init__(self, source: Path, kept: Path) -> None:
        self._source, self._kept = source, kept
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PodLogs:
        self._kept.mkdir(parents=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.keep_logs()

    def keep_logs(self) -> None:
        """Keep those that came since the last look."""
        for pod in self._source.iterdir():
            # gone meanwhile
            with suppress(FileNotFoundError):
                for log in pod.glob("*/*.log*"):
                    # one that was rotated has another name, and is the same file
                    name = f"{log.parent.name}.{log.stat().st_ino}.log"
                    self._link(log, self._kept / pod.name / name)

    @staticmethod
    def _link(log: Path, kept: Path) -> None:
        kept.parent.mkdir(exist_ok=True)
        with suppress(FileExistsError):
            os.link(log, kept)

    def tails_since(self, since: float) -> dict[str, str]:
        """The last lines of each log that was written to since then, by pod and container.

        `since`: seconds since 1970.
        """
        self.keep_logs()
        tails = {}
        for log in sorted(self._kept.glob("*/*.log"), key=lambda path: path.stat().st_mtime):
            if log.stat().st_mtime >= since:
                lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
                tails[f"{log.parent.name}/{log.name}"] = "\n".join(lines)
        return tails

    def copy_logs(self, folder: Path) -> None:
        """All that was kept, to a folder that does not exist."""
        self.keep_logs()
        shutil.copytree(self._kept, folder)

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.keep_logs()
