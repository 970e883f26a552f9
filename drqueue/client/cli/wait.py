"""`drqueue wait`, and how waiting is shown: bars on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import JOB_ID, asked, common, say

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.views import JobView

#: Where no terminal is, a line is worth printing after this many seconds or this part of the whole.
LINE_S = 15.0
LINE_PART = 0.1


@click.command(short_help="Wait for jobs to finish.")
@click.argument("job_ids", metavar="ID ...", type=JOB_ID, nargs=-1, required=True)
@common
def wait(job_ids: tuple[int, ...]) -> int:
    """Wait until jobs are finished; succeed only if every frame is done. Survives a restart of the master."""
    options = asked()
    return options.talk(lambda farm: follow(farm, job_ids, as_json=options.json))


async def follow(farm: "AsyncClient", job_ids: tuple[int, ...], *, as_json: bool, quiet: bool = False) -> int:
    """Wait with progress on stderr; the exit status. `quiet`: no word on stdout about jobs that went well."""
    from drqueue.client.waiting import all_done

    job_ids = tuple(dict.fromkeys(job_ids))
    with progress() as show:
        views = await farm.wait(job_ids, show)
    good = all(all_done(view) for view in views)
    if as_json:
        output.show_json(views[0] if quiet else views)
        return 0 if good else 1
    for view in views:
        line = f"job {view.id} finished: {summary(view)}"
        if not quiet:
            print(output.clean(line))
        elif not all_done(view):
            say(line)
    return 0 if good else 1


def summary(view: "JobView") -> str:
    """`24 of 24 frames done`, and what else became of them."""
    counts = view.counts
    rest = [
        f"{number} {word}"
        for number, word in ((counts.failed, "failed"), (counts.cancelled, "cancelled"))
        if number
    ]
    return ", ".join([f"{counts.done} of {counts.total} frames done", *rest])


@contextmanager
def progress() -> "Iterator[Callable[[Mapping[int, JobView]], None]]":
    """What to call with jobs' views at every change."""
    if sys.stderr.isatty() and not output_is_dumb():
        with _bars() as show:
            yield show
    else:
        yield _Lines()


def output_is_dumb() -> bool:
    """Whether the terminal cannot move its cursor."""
    import os

    return os.environ.get("TERM", "dumb") == "dumb"


@contextmanager
def _bars() -> "Iterator[Callable[[Mapping[int, JobView]], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
    from rich.table import Column

    bars: dict[int, TaskID] = {}
    live = Progress(
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True), markup=False),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TextColumn("{task.fields[frames]}", markup=False),
        TextColumn("{task.fields[left]}", justify="right", table_column=Column(min_width=9), markup=False),
        console=Console(stderr=True, highlight=False),
        expand=True,
    )

    def show(views: "Mapping[int, JobView]") -> None:
        for number, view in views.items():
            if number not in bars:
                bars[number] = live.add_task("", total=1.0, frames="", left="")
            live.update(
                bars[number],
                description=output.clean(f"{number} {view.name}"),
                completed=output.part(view),
                frames=short(view),
                left=left(view),
            )

    with live:
        yield show


def short(view: "JobView") -> str:
    """Frames in a few columns: `12/24 2 run 1 fail`."""
    counts = view.counts
    parts = [f"{counts.done}/{counts.total}"]
    if counts.running + counts.assigned:
        parts.append(f"{counts.running + counts.assigned} run")
    if counts.failed:
        parts.append(f"{counts.failed} fail")
    return " ".join(parts)


def left(view: "JobView") -> str:
    """The time that is left, or why there is none to tell."""
    if view.state != "ACTIVE":
        return view.state.lower()
    if not view.eta_at:
        return "ETA -"
    return f"ETA {output.duration(max(0.0, view.eta_at - time.time()))}"


class _Lines:
    """Progress where no terminal is: one line for a job when there is something to say."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[str, int, float, float]] = {}

    def __call__(self, views: "Mapping[int, JobView]") -> None:
        now = time.monotonic()
        for number, view in views.items():
            state, failed, done, at = self._said.get(number, ("", 0, 0.0, 0.0))
            news = (
                state != view.state
                or failed != view.counts.failed
                or view.progress - done >= LINE_PART
                or (now - at >= LINE_S and view.progress != done)
            )
            if news:
                say(f"job {number}: {output.percent(output.part(view))}, {short(view)}, {left(view)}")
                self._said[number] = (view.state, view.counts.failed, view.progress, now)
