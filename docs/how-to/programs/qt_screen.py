"""A screen of PVs in Qt, kept live by `drey_client`.

python qt_screen.py SERVER KEY PV...
"""

import asyncio
import sys

import qasync
from PyQt6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PyQt6.QtGui import QColor
from PyQt6.QtWidgets import QApplication, QLabel, QTableView, QVBoxLayout, QWidget

from drey_client import Client, ClientError, LiveChange, LivePv

HEADS = ("PV", "Setpoint", "Readback", "Unit")
GRAY = QColor("gray")


class PvModel(QAbstractTableModel):
    """The PVs by name. Only the rows that changed are drawn again."""

    def __init__(self) -> None:
        super().__init__()
        self.live = False
        self._pvs: dict[str, LivePv] = {}
        self._rows: dict[str, int] = {}
        self._names: list[str] = []

    def apply(self, change: LiveChange) -> None:
        """Take up what changed."""
        was_live, self.live = self.live, change.live
        found = {pv.name: pv for pv in change.pvs}
        if change.whole:
            self._pvs.clear()
        if change.whole or change.left or not found.keys() <= self._pvs.keys():
            self.beginResetModel()
            self._pvs.update(found)
            for name in change.left:
                self._pvs.pop(name, None)
            self._names = sorted(self._pvs)
            self._rows = {name: row for row, name in enumerate(self._names)}
            self.endResetModel()
            return
        self._pvs.update(found)
        rows = [self._rows[name] for name in found]
        if was_live != self.live:
            rows = list(range(len(self._names)))
        for row in rows:
            self.dataChanged.emit(self.index(row, 0), self.index(row, len(HEADS) - 1))

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        return len(self._names)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        return len(HEADS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> str | None:
        if role != Qt.ItemDataRole.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        return HEADS[section]

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = 0) -> object:
        pv = self._pvs[self._names[index.row()]]
        channels = [value for value in (pv.setpoint, pv.readback) if value is not None]
        if role == Qt.ItemDataRole.DisplayRole:
            setpoint, readback = ("" if v is None else str(v) for v in (pv.setpoint, pv.readback))
            return (pv.name, setpoint, readback, pv.units)[index.column()]
        if role == Qt.ItemDataRole.ForegroundRole:
            # what is not surely of now is gray
            return None if self.live and all(value.fresh for value in channels) else GRAY
        return None


class Screen(QWidget):
    """The table, and below it how the connection does."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.status = PvModel(), QLabel("connecting …")
        view = QTableView()
        view.setModel(self.model)
        layout = QVBoxLayout(self)
        layout.addWidget(view)
        layout.addWidget(self.status)
        self.resize(700, 500)

    def show_change(self, change: LiveChange) -> None:
        """Draw what changed."""
        self.model.apply(change)
        self.status.setText("live" if change.live else f"not live: {change.notice}")

    async def follow(self, server: str, key: str, pvs: list[str]) -> None:
        """Until the window is closed. The watch connects again by itself."""
        try:
            async with Client(server, key) as drey:
                async for change in drey.watch(pvs):
                    self.show_change(change)
        except ClientError as error:  # what no new connection mends, such as a revoked key
            self.status.setText(str(error))


async def main(screen: Screen, server: str, key: str, *pvs: str) -> None:
    """Show the screen until its window is closed."""
    closed = asyncio.Event()
    QApplication.instance().lastWindowClosed.connect(closed.set)
    screen.show()
    following = asyncio.create_task(screen.follow(server, key, list(pvs)))
    await closed.wait()
    following.cancel()
    await asyncio.wait([following])


if __name__ == "__main__":
    application = QApplication(sys.argv[:1])
    application.setQuitOnLastWindowClosed(False)  # what is connected is closed first
    qasync.run(main(Screen(), *sys.argv[1:]))
