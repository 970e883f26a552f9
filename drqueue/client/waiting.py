"""Waiting for jobs: woken by changes, never by a clock; a master's restart in between costs nothing."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from drqueue.client.errors import NoSuchJob
from drqueue.proto import messages
from drqueue.proto.views import JobView

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient

WaitProgress = Callable[[Mapping[int, JobView]], object]


async def wait_for(
    client: "AsyncClient", jobs: tuple[int, ...], progress: WaitProgress | None, patience_s: float
) -> tuple[JobView, ...]:
    """The final views of jobs, in their order, once all are FINISHED. NoSuchJob where one gets deleted."""
    views: dict[int, JobView] = {}

    async def look(wanted: tuple[int, ...]) -> None:
        for job in wanted:
            views[job] = (await client.read(messages.GetJob(rq=0, job=job), messages.Job, patience_s)).job

    async with client.watch(jobs=True, patience_s=patience_s) as changes:
        await look(jobs)
        while True:
            if progress is not None:
                progress(views)
            if all(view.state == "FINISHED" for view in views.values()):
                return tuple(views[job] for job in jobs)
            change = await anext(changes)
            if change.resync:
                await look(jobs)
            for view in change.jobs:
                if view.id in views:
                    views[view.id] = view
            for job in change.jobs_gone:
                if job in views and views[job].state != "FINISHED":
                    raise NoSuchJob("no-such-job", f"job {job} was deleted while it was waited for")


def all_done(view: JobView) -> bool:
    """Whether every frame of a job is DONE."""
    return view.state == "FINISHED" and view.counts.done == view.counts.total
