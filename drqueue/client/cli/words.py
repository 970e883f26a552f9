"""Words that several commands share: numbers of things, why a frame ended as it did, which frames failed."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drqueue.client.asking import Did
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.views import AttemptView, Counts, FrameView, JobView

#: Failed frames that are looked at to tell of them, and groups of them that are told.
LOOK_AT = 200
TELL = 3
_RUNS = 4

_STOPPED = {
    "kill": "killed",
    "hard-stop": "ended by hard-stop",
    "requeue": "ended to be rendered again",
    "rerun": "ended to be rendered again",
    "delete": "ended as its job was deleted",
    "cancel": "ended as its job was cancelled",
    "finish": "ended, as the frame was called done",
}
_REASONS = {
    "no-command": "the program does not exist on that node, or cannot be run",
    "no-cwd": "the working directory does not exist on that node",
    "spawn-failed": "the node could not start it",
    "timeout": "it ran longer than its time limit",
    "missing-output": "a declared output is missing",
    "log-limit": "its log became too large",
    "oom": "memory ran out, and the kernel killed it",
    "bad-order": "a placeholder, a variable or the working directory cannot be used",
    "keeper-died": "how it ended is unknown, as its keeper died",
    "lease": "its slave was without the master for too long, and ended it",
    "shutdown": "its slave was shut down",
    "lost": "its slave was lost",
    "killed": "killed at its slave",
}


def many(number: float, word: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def amount_text(amount: float) -> str:
    """An amount as people write it: no fraction where there is none, else thousandths at most."""
    return f"{amount:.3f}".rstrip("0").rstrip(".")


def told(did: "Did", what: str, **named: str) -> None:
    """What was done, on stderr: a sentence where somebody looks, and what the master has to say."""
    from drqueue.client.cli import output
    from drqueue.client.cli.common import asked, say

    if asked().json:
        output.show_json({**named, "count": did.count, "note": did.note})
    elif did.note or sys.stderr.isatty():
        line = what if sys.stderr.isatty() else ""
        say("; ".join(part for part in (line, did.note) if part))


def ending(view: "FrameView | AttemptView") -> str:
    """Why an attempt ended as it did, in a few words; "" where it ended well, or never began."""
    if view.reason == "stopped":
        return _STOPPED.get(view.text, view.text or "stopped")
    if view.text or view.reason:
        return view.text or _REASONS.get(view.reason, view.reason)
    if view.signal is not None:
        return f"ended by signal {view.signal}"
    return f"exit status {view.code}" if view.code else ""


def bad_ending(counts: "Counts") -> str:
    """`3 frames failed, 1 cancelled`; "" where none did."""
    parts = [f"{many(counts.failed, 'frame')} failed"] if counts.failed else []
    if counts.cancelled:
        parts.append(f"{counts.cancelled if parts else many(counts.cancelled, 'frame')} cancelled")
    return ", ".join(parts)


def runs(numbers: Sequence[int]) -> list[str]:
    """Numbers in order as the parts of a frame range: 1 2 3 7 is `1-3`, `7`."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def failures(views: Iterable["FrameView"], *, several: bool) -> list[str]:
    """`frames 1-3, 7: exit status 1`, a line for each reason; `several`: the layers are named, too."""
    groups: dict[tuple[str, str], list[FrameView]] = {}
    for view in views:
        groups.setdefault((view.layer_name if several else "", ending(view)), []).append(view)
    lines = []
    for (layer, why), found in groups.items():
        parts = runs([view.number for view in found])
        numbers = ", ".join(parts[:_RUNS]) + (" ..." if len(parts) > _RUNS else "")
        word = "frame" if len(found) == 1 else "frames"
        lines.append(f"{word} {f'{layer}:' if layer else ''}{numbers}: {why or 'failed'}")
    return lines


async def told_failures(farm: "AsyncClient", job: "JobView", *, several: bool) -> list[str]:
    """The first failures of a job, a line for each reason, and how to see all of them; [] for none."""
    if not job.counts.failed:
        return []
    views: list[FrameView] = []
    async for view in farm.each_frame(job.id, states=("FAILED",)):
        views.append(view)
        if len(views) == LOOK_AT:
            break
    lines = failures(views, several=several)
    all_told = len(lines) <= TELL and len(views) < LOOK_AT
    return [*lines[:TELL], f"{'see' if all_told else 'and more:'} drqueue frames {job.id} --state FAILED"]
