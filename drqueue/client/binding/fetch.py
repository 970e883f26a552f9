"""What calls of the binding fetch from the master, several answers at a time."""

from collections.abc import Callable, Sequence

from drqueue.client.async_client import AsyncClient
from drqueue.client.binding import constants as c
from drqueue.client.binding import pipeline, session
from drqueue.client.binding.computer_records import KnownComputer
from drqueue.client.binding.records import KnownJob
from drqueue.client.binding.session import RequestError
from drqueue.client.errors import NoSuchJob, NoSuchSlave
from drqueue.proto import messages
from drqueue.proto.model import JobSpec, LayerSpec
from drqueue.proto.ranges import Chunks, FrameRange
from drqueue.proto.views import FrameView, JobView, LayerView, SlaveView

NOT_REGISTERED = c.error_text(c.DRE_NOTREGISTERED)
#: They are refused how a job was submitted; asking anyhow would fill the audit.
VIEWER = "viewer"
#: Frames in one answer.
_PAGE = 500


# -- jobs ---------------------------------------------------------------------------------------------------


async def known_job(client: AsyncClient, job: int) -> KnownJob:
    """One job. Raises NoSuchJob."""
    return await _known_job(client, job, (await client.whoami()).role == VIEWER)


async def _known_job(client: AsyncClient, job: int, viewer: bool) -> KnownJob:
    if viewer:
        view, layers = await client.job(job)
        spec = shown_spec(view, layers)
    else:
        (view, layers), spec = await pipeline.both(lambda: client.job(job), lambda: client.spec(job))
    return KnownJob(view, spec, layers[0].chunk_counts, layers[0].mean_frame_s)


async def known_jobs(client: AsyncClient) -> list[KnownJob]:
    """Every job, by id; those that are deleted meanwhile are left out."""
    jobs, you = await pipeline.both(lambda: client.jobs(all=True), client.whoami)

    async def ask(view: JobView) -> KnownJob | None:
        try:
            if len(view.layers) > 1 or you.role == VIEWER:
                return await _known_job(client, view.id, you.role == VIEWER)
            # All that is shown of a single layer stands in the view of its job.
            return KnownJob(view, await client.spec(view.id), view.chunk_counts, view.mean_frame_s)
        except NoSuchJob:
            return None

    found = await pipeline.each(jobs, ask)
    return [known for known in found if known is not None]


def shown_spec(view: JobView, layers: Sequence[LayerView]) -> JobSpec:
    """A job as whoever may not see how it was submitted sees it: no commands, no environment."""
    return JobSpec(
        name=view.name,
        owner=view.owner,
        project=view.project,
        priority=view.priority,
        pool=view.pool,
        layers=tuple(
            LayerSpec(
                name=layer.name,
                argv=(layer.command,) if layer.command else (),
                frames=layer.frames,
                chunk=layer.chunk,
                needs=layer.needs,
                retries=layer.retries,
                timeout_s=layer.timeout_s,
                cwd=layer.cwd,
                outputs=layer.outputs,
                after=layer.after,
            )
            for layer in layers
        ),
        depends=view.depends,
        not_before=view.not_before,
        max_running=view.max_running,
        max_per_slave=view.max_per_slave,
        blocked=view.blocked_hosts,
        on_unreachable=view.on_unreachable,
        kind=view.kind,
    )


async def each_frame(
    client: AsyncClient, job: int, start: int, end: int, take: Callable[[FrameView], object]
) -> None:
    """Hand `take` the frames of a job's first layer from one place up to another, in no order.

    Fewer where it has no more. None is kept here: a job may have ten million. Raises NoSuchJob.
    """

    async def part(at: int) -> None:
        stop = min(at + _PAGE, end)
        while at < stop:
            # An answer may hold fewer than were asked for, and then says where the next one begins.
            request = messages.ListFrames(rq=0, job=job, cursor=at, limit=stop - at)
            answer = await client.read(request, messages.Frames, session.PATIENCE_S)
            for view in answer.frames:
                if view.layer == 0:
                    take(view)
            at = stop if answer.next is None else answer.next

    if start >= end:
        await client.job(job)
    await pipeline.each(range(start, end, _PAGE), part)


async def frame_numbered(client: AsyncClient, job: int, number: int) -> FrameView:
    """The frame of a job's first layer that holds the number. Raises NoSuchJob, RequestError."""
    layer = (await client.job(job))[1][0]
    index = Chunks(FrameRange.parse(layer.frames), layer.chunk).chunk_of(number)
    views: list[FrameView] = []
    if index is not None:
        await each_frame(client, job, index, index + 1, views.append)
    if not views:
        raise RequestError(NOT_REGISTERED, f"job {job} has no frame {number}")
    return views[0]


# -- computers ----------------------------------------------------------------------------------------------


async def slave_of(client: AsyncClient, icomp: int) -> SlaveView:
    """The slave with that number, without what runs on it. Raises RequestError."""
    request = messages.ListSlaves(rq=0, cursor=icomp, limit=1)
    answer = await client.read(request, messages.Slaves, session.PATIENCE_S)
    for view in answer.slaves:
        if view.id == icomp:
            return view
    raise RequestError(NOT_REGISTERED, f"there is no computer {icomp}")


async def known_computers(client: AsyncClient, views: Sequence[SlaveView]) -> list[KnownComputer]:
    """These slaves with what runs on them, and of what runs the jobs."""
    viewer = (await client.whoami()).role == VIEWER

    async def ask_slave(view: SlaveView) -> SlaveView:
        if not view.cores_used:
            return view
        request = messages.GetSlave(rq=0, slave=view.name)
        try:
            return (await client.read(request, messages.SlaveInfo, session.PATIENCE_S)).slave
        except NoSuchSlave:
            return view

    async def ask_job(job: int) -> JobSpec | None:
        try:
            if viewer:
                return shown_spec(*await client.job(job))
            return await client.spec(job)
        except NoSuchJob:
            return None

    slaves = await pipeline.each(views, ask_slave)
    jobs = sorted({frame.job for slave in slaves for frame in slave.running})
    found = zip(jobs, await pipeline.each(jobs, ask_job), strict=True)
    specs = {job: spec for job, spec in found if spec is not None}
    return [KnownComputer(slave, specs) for slave in slaves]
