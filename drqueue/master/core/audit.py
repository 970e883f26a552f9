"""Who did what, and what was refused: rows for the audit, saved with the step that they tell of.

What was refused, and whatever else can be made to happen often, is counted: within a minute the same is one
row, whose count is written at the first time, then every ten seconds at most, and at the end. So a flood of
refusals is no flood of commits, and a flood of different ones is soon told of as one.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import structs

from drqueue.master.core.records import AnyRecord, AuditRecord
from drqueue.proto.messages import Audit
from drqueue.proto.roles import Who
from drqueue.proto.views import AuditView

#: Seconds in which the same is one row, and between two writings of its count.
WINDOW_S: Final = 60.0
WRITE_S: Final = 10.0
#: Different things that one peer is told of in such a time, all peers together, and of them those that have
#: not proven who they are (who may have many addresses); the rest is summed up.
DIFFERENT_MOST: Final = 50
WINDOWS_MOST: Final = 2000
STRANGERS_MOST: Final = 100
FURTHER: Final = "further requests"
#: Characters of a row's parts.
_WHAT_MOST = 200
_TEXT_MOST = 300
_WHO_MOST = 100
#: Bytes of an answer's rows.
_PAGE_BYTES = 224 * 1024

_Key = tuple[str, str, str, str]


class _Window:
    """A row that may be raised; `written` is the count that was saved, `at` and `opened` the core's clock."""

    __slots__ = ("at", "opened", "row", "source", "written")

    def __init__(self, row: AuditRecord, now: float, source: str) -> None:
        self.row = row
        self.source = source
        self.written = row.count
        self.opened = self.at = now


class AuditTrail:
    """Makes the rows; `last` is the id of the latest."""

    def __init__(self) -> None:
        self.last = 0
        #: There are rows since the last step.
        self.news = False
        self._windows: dict[_Key, _Window] = {}
        #: How many windows are open for those without a name, and for a source.
        self._strangers = 0
        self._different: dict[str, int] = {}
        self._closed_at = 0.0

    def done(self, who: Who, what: str, outcome: str, text: str, wall: float, save: list[AnyRecord]) -> None:
        """One row for something that was done."""
        save.append(self._row(who, what, outcome, text, wall, 1))

    def count(
        self,
        who: Who,
        what: str,
        outcome: str,
        text: str,
        wall: float,
        save: list[AnyRecord],
        *,
        now: float,
        times: int = 1,
        source: str = "",
    ) -> None:
        """Something that may happen often happened so many times. `source`: who can make it happen, where
        that is not the peer."""
        self.flush(now, save)
        source = _clean(source or who.peer, _WHO_MOST)
        key = self._key(who, source, _clean(what, _WHAT_MOST), outcome)
        window = self._windows.get(key)
        if window is None:
            told = structs.replace(who, name=key[0], peer=key[1])
            row = self._row(told, key[2], key[3] or "various", "" if key[2] == FURTHER else text, wall, times)
            save.append(row)
            self._windows[key] = _Window(row, now, source)
            self._strangers += not key[0]
            self._different[source] = self._different.get(source, 0) + 1
            return
        window.row = structs.replace(window.row, count=window.row.count + times)
        if now - window.at >= WRITE_S:
            self._write(window, now, save)

    def flush(self, now: float, save: list[AnyRecord]) -> None:
        """Write counts that are due, and end what is older than a minute; to be called every few seconds."""
        if now - self._closed_at < 1.0 and self._windows:
            return
        self._closed_at = now
        for key, window in list(self._windows.items()):
            over = now - window.opened >= WINDOW_S
            if over or now - window.at >= WRITE_S:
                self._write(window, now, save)
            if over:
                del self._windows[key]
                self._strangers -= not key[0]
                left = self._different[window.source] - 1
                if left:
                    self._different[window.source] = left
                else:
                    del self._different[window.source]

    def _key(self, who: Who, source: str, what: str, outcome: str) -> _Key:
        key = (_clean(who.name, _WHO_MOST), _clean(who.peer, _WHO_MOST), what, _clean(outcome, _WHO_MOST))
        if key in self._windows:
            return key
        if self._different.get(source, 0) >= DIFFERENT_MOST:
            return ("", source, FURTHER, "")
        if len(self._windows) >= WINDOWS_MOST or (not key[0] and self._strangers >= STRANGERS_MOST):
            return ("", "many", FURTHER, "")
        return key

    def _row(self, who: Who, what: str, outcome: str, text: str, wall: float, count: int) -> AuditRecord:
        self.last += 1
        self.news = True
        return AuditRecord(
            id=self.last,
            at=wall,
            who=_clean(who.name, _WHO_MOST),
            role=_clean(who.role, _WHO_MOST),
            peer=_clean(who.peer, _WHO_MOST),
            what=_clean(what, _WHAT_MOST),
            outcome=_clean(outcome, _WHO_MOST),
            text=_clean(text, _TEXT_MOST),
            count=count,
        )

    def _write(self, window: _Window, now: float, save: list[AnyRecord]) -> None:
        if window.row.count != window.written:
            save.append(window.row)
            self.news = True
            window.written = window.row.count
            window.at = now


def _clean(text: str, most: int) -> str:
    """What others wrote, on one line, without what a terminal would obey."""
    text = text[: 2 * most].encode(errors="replace").decode()
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def audit_page(rows: Iterable[AuditRecord], rq: int, cursor: int) -> Audit:
    """The answer to ListAudit: rows by id, from `cursor` on, as many as fit into a packet."""
    found: list[AuditView] = []
    room = _PAGE_BYTES
    for row in rows:
        view = AuditView(**structs.asdict(row))
        room -= len(msgspec.msgpack.encode(view))
        if room < 0:
            break
        found.append(view)
        cursor = row.id + 1
    return Audit(rq=rq, rows=tuple(found), next=cursor)
