"""What only the history of attempts knows, as clients are shown it: the past of frames that do not run."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from msgspec import msgpack, structs

from drqueue.master.core.records import AttemptRecord
from drqueue.master.storage import Storage
from drqueue.proto.views import AttemptView, FrameView

T = TypeVar("T")

#: Bytes that the attempts at one frame take in an answer; of more, the latest are shown.
_ATTEMPTS_BYTES = 224 * 1024


class Reader(Protocol):
    """How the history is asked: in the storage's own thread. `alarm`: why nothing can be written, or ""."""

    alarm: str

    async def read(self, ask: Callable[[Storage], T]) -> T:
        """Run `ask` there and return what it returns."""


def latest(views: tuple[AttemptView, ...]) -> tuple[AttemptView, ...]:
    """As many of the last ones as fit into an answer."""
    room = _ATTEMPTS_BYTES
    for at in range(len(views) - 1, -1, -1):
        room -= len(msgpack.encode(views[at]))
        if room < 0:
            return views[at + 1 :]
    return views


def wants_history(view: FrameView) -> bool:
    """Whether a frame has a past that its view does not show yet."""
    return view.state in ("DONE", "FAILED", "CANCELLED") or (view.state == "WAITING" and view.attempt > 0)


async def fill_frames(history: Reader, views: tuple[FrameView, ...]) -> tuple[FrameView, ...]:
    """Add the latest attempt, from the history, to views of frames that do not run."""
    wanted: dict[tuple[int, int], list[int]] = {}
    for view in views:
        if wants_history(view):
            wanted.setdefault((view.job, view.layer), []).append(view.number)
    found: dict[tuple[int, int, int], AttemptRecord] = {}
    for (job, layer), numbers in wanted.items():
        rows = await history.read(
            lambda storage, job=job, layer=layer, numbers=numbers: storage.latest_attempts(  # type: ignore[misc]
                job, layer, numbers
            )
        )
        found.update({(job, layer, number): row for number, row in rows.items()})
    return tuple(_filled(view, found.get((view.job, view.layer, view.number))) for view in views)


def _filled(view: FrameView, row: AttemptRecord | None) -> FrameView:
    if row is None or not wants_history(view):
        return view
    return structs.replace(
        view,
        attempt=row.attempt,
        slave=row.slave_name,
        slave_id=row.slave,
        started_at=row.started_at,
        ended_at=row.ended_at,
        code=row.code,
        signal=row.signal,
        reason=row.reason,
        text=row.text,
        cpu_s=row.cpu_s,
        peak_mb=row.peak_mb,
        progress=1.0 if view.state == "DONE" else 0.0,
    )


def attempt_view(row: AttemptRecord) -> AttemptView:
    """A row of the history as clients see it."""
    return AttemptView(
        job=row.job,
        layer=row.layer,
        frame=row.frame,
        number=row.number,
        attempt=row.attempt,
        slave=row.slave_name,
        slave_id=row.slave,
        assigned_at=row.assigned_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        code=row.code,
        signal=row.signal,
        reason=row.reason,
        text=row.text,
        cpu_s=row.cpu_s,
        peak_mb=row.peak_mb,
        log_bytes=row.log_bytes,
        eligible_at=row.eligible_at,
        cores=row.cores,
        memory_mb=row.memory_mb,
        gpus=row.gpus,
    )
