"""`drqueue wait`, and how waiting is shown: bars on a terminal, a line now and then elsewhere."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import JOB_ID, asked, common, interrupted, say, say_below
from drqueue.client.cli.words import many, told_failures

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.views import JobView

#: Where no terminal is, a line is worth printing after this many seconds or this part of the whole.
LINE_S = 15.0
LINE_PART = 0.1
#: How often jobs of which nothing runs are looked at.
ADVISE_S = 2.0
#: Codes of reasons that go by themselves while the farm works.
PASSING = frozenset(
    {
        *("turn", "back-off", "ending", "max-running", "max-per-slave", "avoided", "slaves", "seat", "burst"),
        *("cores", "memory", "gpu", "disk", "amount", "load"),
        *("limit", "limit-user", "limit-project", "limit-pool"),
    }
)


@click.command(short_help="Wait for jobs to finish.")
@click.argument("job_ids", metavar="ID ...", type=JOB_ID, nargs=-1, required=True)
@common
def wait(job_ids: tuple[int, ...]) -> int:
    """Wait until jobs are finished; succeed only if every frame is done. Survives a restart of the master."""
    options = asked()
    with jobs_go_on(job_ids):
        return options.talk(lambda farm: follow(farm, job_ids, as_json=options.json))


async def follow(farm: "AsyncClient", job_ids: tuple[int, ...], *, as_json: bool, quiet: bool = False) -> int:
    """Wait with progress on stderr; the exit status. `quiet`: no word on stdout, all of it on stderr."""
    from drqueue.client.waiting import all_done

    job_ids = tuple(dict.fromkeys(job_ids))
    with progress() as show:
        views = await Waiting(farm, show).wait(job_ids)
    good = all(all_done(view) for view in views)
    if as_json:
        output.show_json(views[0] if quiet else views)
        return 0 if good else 1
    for view in views:
        line = f"job {view.id} finished: {summary(view)}"
        if quiet:
            say(line)
        else:
            print(output.clean(line), flush=True)
        for told in await told_failures(farm, view, several=len(view.layers) > 1):
            say_below(told)
    return 0 if good else 1


@contextmanager
def jobs_go_on(job_ids: "Sequence[int]") -> "Iterator[None]":
    """Where Ctrl-C ends the body, say that it does not end the jobs."""
    try:
        yield
    except BaseException as error:
        if interrupted(error) and job_ids:
            ids = " ".join(map(str, job_ids))
            what = f"job {ids} goes" if len(job_ids) == 1 else f"jobs {ids} go"
            say(f"{what} on (to wait again: drqueue wait {ids})")
        raise


class Waiting:
    """Waits for jobs, and says once why a job of which nothing runs cannot go on."""

    def __init__(self, farm: "AsyncClient", show: "Callable[[Mapping[int, JobView]], None]") -> None:
        self._farm = farm
        self._show = show
        self._views: Mapping[int, JobView] = {}
        self._said: dict[int, set[str]] = {}

    async def wait(self, job_ids: tuple[int, ...]) -> "tuple[JobView, ...]":
        """The final views of the jobs."""
        import trio

        failure: Exception | None = None
        views: tuple[JobView, ...] = ()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._advise)
            try:
                views = await self._farm.wait(job_ids, self._look)
            except Exception as error:  # noqa: BLE001  (raised again below)
                # Raised outside the nursery, so that callers meet it bare and not in a group.
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return views

    def _look(self, views: "Mapping[int, JobView]") -> None:
        self._views = views
        self._show(views)

    async def _advise(self) -> None:
        import trio

        idle: frozenset[int] = frozenset()
        while True:
            await trio.sleep(ADVISE_S)
            before, idle = idle, frozenset(number for number, view in self._views.items() if _idle(view))
            # One that is idle twice in a row is not merely between two frames.
            for job in sorted(before & idle):
                await self._say_why(job)

    async def _say_why(self, job: int) -> None:
        from drqueue.client.errors import MasterUnreachable, NotFound

        try:
            reasons = await self._farm.why(job)
        except (MasterUnreachable, NotFound):
            return  # whoever waits for the job meets the same, and says so
        for reason in reasons:
            known = self._said.setdefault(job, set())
            # More failed frames of another job are no news; that there are some now is.
            gist = re.sub(r"\([^)]*\)|[0-9]+|s\b", "", reason.text)
            if reason.code not in PASSING and gist not in known:
                known.add(gist)
                say_below(f"job {job} does not go on: {reason.text}", indent="")


def _idle(view: "JobView") -> bool:
    return view.state != "FINISHED" and not view.counts.running and not view.counts.assigned


def summary(view: "JobView") -> str:
    """`24 of 24 frames done`, and what else became of them."""
    counts = view.counts
    rest = [
        f"{number} {word}"
        for number, word in ((counts.failed, "failed"), (counts.cancelled, "cancelled"))
        if number
    ]
    return ", ".join([f"{counts.done} of {many(counts.total, 'frame')} done", *rest])


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
        # Room for the ^C that a terminal shows: a line that it pushes over the edge cannot be drawn over.
        console=Console(stderr=True, highlight=False, width=output.screen_width() - 2),
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
    if counts.cancelled:
        parts.append(f"{counts.cancelled} canc")
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
