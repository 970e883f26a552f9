"""What programs ask of the master: the original's `request_*` functions, its names, arguments and results.

Rules of this file: 1 where it was done and 0 where it was not, and then `last_error()` tells why. An argument
of the wrong type raises TypeError and one out of range OverflowError, before anything is sent. A job, a frame
or a computer that does not exist gives 0. `who` is checked and otherwise ignored; `frame` is always a frame's
number, and any number of a block names the block. What is to be filled stays as it is where a request fails.
"""

from collections.abc import Sequence
from typing import Any

from drqueue.client.async_client import AsyncClient
from drqueue.client.binding import fetch, records, session
from drqueue.client.binding.computer_records import fill_computer
from drqueue.client.binding.fields import Struct, frame_number, put, text, u16, u32
from drqueue.client.binding.session import RequestError, done
from drqueue.proto.model import JobChange

__all__ = [
    "register_job",
    "request_comp_xfer",
    "request_job_add_blocked_host",
    "request_job_block_host_by_name",
    "request_job_continue",
    "request_job_delete",
    "request_job_delete_blocked_host",
    "request_job_envvars",
    "request_job_frame_finish",
    "request_job_frame_info",
    "request_job_frame_kill",
    "request_job_frame_kill_finish",
    "request_job_frame_reset_requeued",
    "request_job_frame_waiting",
    "request_job_hstop",
    "request_job_limits_memory_set",
    "request_job_limits_nmaxcpus_set",
    "request_job_limits_nmaxcpuscomputer_set",
    "request_job_limits_pool_set",
    "request_job_name",
    "request_job_priority_update",
    "request_job_rerun",
    "request_job_sesupdate",
    "request_job_stop",
    "request_job_unblock_host_by_name",
    "request_job_xfer",
    "request_job_xferfi",
    "request_slavexit",
]

# -- records ----------------------------------------------------------------------------------------------


def register_job(job: Any) -> int:
    """Submit a job and set its `id`. A job without a name or a command is refused here already."""
    _structure(job, "job")

    async def work(client: AsyncClient) -> None:
        put(job, "id", await client.submit(records.job_spec(job)))

    return done(work)


def request_job_xfer(ijob: int, job: Any, who: int) -> int:
    """Fill `job` with the master's record of that job; its frames are not part of it."""
    number = _asked(ijob, who)
    _structure(job, "job")

    async def work(client: AsyncClient) -> None:
        records.fill_job(job, await fetch.known_job(client, number))

    return done(work)


def request_job_xferfi(ijob: int, fi: Any, nframes: int, who: int) -> int:
    """Fill a list of `frame_info` (or a single one) with the job's first `nframes` frames, in order.

    Never more than the list holds; what the job has no frame for stays as it is.
    """
    number = _asked(ijob, who)
    if not isinstance(nframes, int):
        raise TypeError(f"nframes must be an int, not {type(nframes).__name__}")
    if nframes < 0:
        raise OverflowError(f"nframes must not be negative, as {nframes} is")
    frames = list(fi) if isinstance(fi, Sequence) else [fi]
    for each in frames:
        _structure(each, "frame_info")
    wanted = min(nframes, len(frames))

    async def work(client: AsyncClient) -> None:
        await fetch.each_frame(
            client, number, 0, wanted, lambda view: records.fill_frame(frames[view.index], view)
        )

    return done(work)


def request_job_frame_info(ijob: int, frame: int, fi: Any, who: int) -> int:
    """Fill one `frame_info` with the frame of that number."""
    number, frame = _asked(ijob, who), frame_number(frame, "frame")
    _structure(fi, "frame_info")

    async def work(client: AsyncClient) -> None:
        records.fill_frame(fi, await fetch.frame_numbered(client, number, frame))

    return done(work)


def request_comp_xfer(icomp: int, computer: Any, who: int) -> int:
    """Fill `computer` with the master's record of that computer and with what runs on it."""
    number = _asked(icomp, who, "icomp")
    _structure(computer, "computer")

    async def work(client: AsyncClient) -> None:
        view = await fetch.slave_of(client, number)
        (known,) = await fetch.known_computers(client, [view])
        fill_computer(computer, known)

    return done(work)


def request_job_envvars(ijob: int, envvars: Any, who: int) -> int:
    """Fill `envvars` with the job's environment variables."""
    number = _asked(ijob, who)
    _structure(envvars, "envvars")

    async def work(client: AsyncClient) -> None:
        envvars.fill((await client.spec(number)).env.items())

    return done(work)


def request_job_name(ijob: int, who: int) -> str:
    """The job's name. Raises OSError; the original's own form, with a C pointer to fill, had no use here."""
    number = _asked(ijob, who)
    return session.ask(lambda client: client.job(number))[0].name


# -- jobs -------------------------------------------------------------------------------------------------


def request_job_stop(ijob: int, who: int) -> int:
    """Start no more frames; running ones end normally."""
    number = _asked(ijob, who)
    return done(lambda client: client.stop(number))


def request_job_hstop(ijob: int, who: int) -> int:
    """Stop the job and end its running frames, which wait again."""
    number = _asked(ijob, who)
    return done(lambda client: client.hard_stop(number))


def request_job_continue(ijob: int, who: int) -> int:
    """Let a stopped job go on."""
    number = _asked(ijob, who)
    return done(lambda client: client.continue_(number))


def request_job_rerun(ijob: int, who: int) -> int:
    """Run every frame again; running ones are ended first. A stopped job stays stopped."""
    number = _asked(ijob, who)
    return done(lambda client: client.rerun(number))


def request_job_delete(ijob: int, who: int) -> int:
    """End the job and forget it."""
    number = _asked(ijob, who)
    return done(lambda client: client.delete(number))


def request_job_sesupdate(
    ijob: int, frame_start: int, frame_end: int, frame_step: int, block_size: int, who: int
) -> int:
    """Give the job another range. A step of 0 is 1; a range without a frame is refused."""
    number = _asked(ijob, who)
    start, end = frame_number(frame_start, "frame_start"), frame_number(frame_end, "frame_end")
    step, block = u32(frame_step, "frame_step"), u32(block_size, "block_size")

    async def work(client: AsyncClient) -> None:
        frames, chunk = records.range_of(start, end, step, block)
        await client.change_job(number, JobChange(frames=frames, chunk=chunk))

    return done(work)


def request_job_priority_update(ijob: int, priority: int, who: int) -> int:
    """Change the job's priority: higher ones come first."""
    return _change(_asked(ijob, who), JobChange(priority=u32(priority, "priority")))


def request_job_limits_nmaxcpus_set(ijob: int, nmaxcpus: int, who: int) -> int:
    """Limit how many frames of the job run at a time: 65535 is no limit. 0 is refused: stop the job."""
    number, most = _asked(ijob, who), u16(nmaxcpus, "nmaxcpus")

    async def work(client: AsyncClient) -> None:
        await client.change_job(number, JobChange(max_running=records.most_of(most, "nmaxcpus")))

    return done(work)


def request_job_limits_nmaxcpuscomputer_set(ijob: int, nmaxcpuscomputer: int, who: int) -> int:
    """Limit how many frames of the job run at a time on one computer, in the same way."""
    number, most = _asked(ijob, who), u16(nmaxcpuscomputer, "nmaxcpuscomputer")

    async def work(client: AsyncClient) -> None:
        await client.change_job(number, JobChange(max_per_slave=records.most_of(most, "nmaxcpuscomputer")))

    return done(work)


def request_job_limits_memory_set(ijob: int, memory: int, who: int) -> int:
    """Run the job's frames only on computers with so much memory (MB); 0 is no limit."""
    number, least = _asked(ijob, who), u32(memory, "memory")

    async def work(client: AsyncClient) -> None:
        for layer in (await client.spec(number)).layers:
            await client.change_job(number, JobChange(layer=layer.name, machine_memory_mb=least))

    return done(work)


def request_job_limits_pool_set(ijob: int, pool: str, who: int) -> int:
    """Run the job's frames on computers of another pool."""
    number, pool = _asked(ijob, who), name(pool, "pool")

    async def work(client: AsyncClient) -> None:
        await client.change_job(number, JobChange(pool=records.pool_of(pool)))

    return done(work)


# -- hosts that a job does not run on ---------------------------------------------------------------------


def request_job_add_blocked_host(ijob: int, icomp: int, who: int) -> int:
    """Keep the job's frames off the computer with that id. What runs there goes on."""
    number, computer = _asked(ijob, who), u32(icomp, "icomp")

    async def work(client: AsyncClient) -> None:
        slave = await fetch.slave_of(client, computer)
        await client.change_job(number, JobChange(block=(slave.name,)))

    return done(work)


def request_job_delete_blocked_host(ijob: int, pos: int, who: int) -> int:
    """Strike the host at that position off the job's list of blocked ones."""
    number, place = _asked(ijob, who), u32(pos, "pos")

    async def work(client: AsyncClient) -> None:
        blocked = (await client.job(number))[0].blocked_hosts
        if place >= len(blocked):
            hosts = f"{len(blocked)} blocked host{'' if len(blocked) == 1 else 's'}"
            raise RequestError(fetch.NOT_REGISTERED, f"job {number} has {hosts}")
        await client.change_job(number, JobChange(unblock=(blocked[place],)))

    return done(work)


def request_job_block_host_by_name(ijob: int, name_of_host: str, who: int) -> int:
    """Keep the job's frames off a computer: the name of a slave, or of a host; 0 where nobody has it."""
    number, host = _asked(ijob, who), name(name_of_host, "name")

    async def work(client: AsyncClient) -> None:
        if not host:
            raise RequestError(records.NOT_COMPLETE, "the host has no name")
        await client.job(number)  # of two that are unknown, the job is named
        if not any(host in (slave.name, slave.machine.hostname) for slave in await client.slaves()):
            raise RequestError(fetch.NOT_REGISTERED, f"no slave and no host is called {host!r}")
        await client.change_job(number, JobChange(block=(host,)))

    return done(work)


def request_job_unblock_host_by_name(ijob: int, name_of_host: str, who: int) -> int:
    """Let the job's frames run there again; 0 where it is not blocked."""
    number, host = _asked(ijob, who), name(name_of_host, "name")

    async def work(client: AsyncClient) -> None:
        if host not in (await client.job(number))[0].blocked_hosts:
            raise RequestError(fetch.NOT_REGISTERED, f"job {number} does not block {host!r}")
        await client.change_job(number, JobChange(unblock=(host,)))

    return done(work)


# -- frames -----------------------------------------------------------------------------------------------


def request_job_frame_waiting(ijob: int, frame: int, who: int) -> int:
    """Run a frame again; a running one once more after this run."""
    number, frames = _frame(ijob, frame, who)
    return done(lambda client: client.frame_requeue(number, frames))


def request_job_frame_kill(ijob: int, frame: int, who: int) -> int:
    """End a running frame; it waits again, or is in error after too many times."""
    number, frames = _frame(ijob, frame, who)
    return done(lambda client: client.frame_kill(number, frames))


def request_job_frame_finish(ijob: int, frame: int, who: int) -> int:
    """Call a frame finished; a run of it is ended, and what that says is ignored."""
    number, frames = _frame(ijob, frame, who)
    return done(lambda client: client.frame_finish(number, frames))


def request_job_frame_kill_finish(ijob: int, frame: int, who: int) -> int:
    """The same for a running frame only; others are left as they are."""
    number, frames = _frame(ijob, frame, who)
    return done(lambda client: client.frame_finish(number, frames, running=True))


def request_job_frame_reset_requeued(ijob: int, frame: int, who: int) -> int:
    """Count anew how often a frame was requeued."""
    number, frames = _frame(ijob, frame, who)
    return done(lambda client: client.frame_reset_requeued(number, frames))


# -- computers --------------------------------------------------------------------------------------------


def request_slavexit(icomp: int, who: int) -> int:
    """Strike a computer that is gone off the master's list; 0 for one that is linked or may run frames."""
    number = _asked(icomp, who, "icomp")

    async def work(client: AsyncClient) -> None:
        await client.forget_slave((await fetch.slave_of(client, number)).name)

    return done(work)


# -- for this package's other files -----------------------------------------------------------------------


def name(value: object, what: str) -> str:
    """A text argument, which unlike an attribute cannot be None; TypeError."""
    if value is None:
        raise TypeError(f"{what} must be a str, not None")
    return text(value, what)


def _asked(number: object, who: object, what: str = "ijob") -> int:
    """The number of a job or a computer, after `who` was checked."""
    u16(who, "who")
    return u32(number, what)


def _frame(ijob: object, frame: object, who: object) -> tuple[int, str]:
    return _asked(ijob, who), str(frame_number(frame, "frame"))


def _structure(value: object, kind: str) -> None:
    """TypeError where a value is no structure of that class, or of one derived from it."""
    if not isinstance(value, Struct) or kind not in [cls.__name__ for cls in type(value).__mro__]:
        raise TypeError(f"a {kind} is needed, not {type(value).__name__}")


def _change(job: int, change: JobChange) -> int:
    return done(lambda client: client.change_job(job, change))
