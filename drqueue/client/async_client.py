"""`AsyncClient`: everything a farm can be asked and told, over one link to its master.

Rules: as in `asking`. What is about accounts and the audit stands in `accounts`, what is about limits,
shares and pools in `sharing`. Patience is none for
ordinary calls, an hour for what is meant to outlive a restart.
"""

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import trio

from drqueue.client.accounts import AccountCalls
from drqueue.client.asking import PAGE, RESTART_PATIENCE_S, Did, broke_off
from drqueue.client.entrance import Entrance
from drqueue.client.errors import MasterUnreachable
from drqueue.client.link import LinkLost
from drqueue.client.logs import LogStream
from drqueue.client.sharing import SharingCalls
from drqueue.client.specs import prepared, typed
from drqueue.client.streams import Changes, Pages
from drqueue.client.waiting import WaitProgress, wait_for
from drqueue.proto import messages
from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import FrameVerbName, JobVerbName, SlaveVerbName
from drqueue.proto.model import JobChange, JobSpec, LimitsChange
from drqueue.proto.views import AttemptView, FrameView, JobView, LayerView, Reason, SlaveView
from drqueue.settings import default_state_dir


@asynccontextmanager
async def connect(
    address: str | None = None,
    *,
    patience_s: float = 0,
    env: Mapping[str, str] | None = None,
    lazily: bool = False,
) -> AsyncIterator["AsyncClient"]:
    """A client linked to the master at `address`: HOST[:PORT] or unix:PATH.

    The default is DRQUEUE_MASTER, and without that the first on this machine that answers, then the one
    that was logged in to last. Raises MasterUnreachable where none answers within `patience_s` seconds,
    NotLoggedIn, WrongCertificate, VersionMismatch, SettingsError.
    `lazily`: the master is dialled when it is first needed; slaves can be asked without one.
    """
    env = os.environ if env is None else env
    entrance = Entrance(env.get("DRQUEUE_MASTER", "") if address is None else address, env)
    failure: Exception | KeyboardInterrupt | None = None
    async with trio.open_nursery() as nursery:
        client = AsyncClient(entrance, nursery, patience_s, default_state_dir(env))
        try:
            if not lazily:
                await client.linked(patience_s)
            yield client
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (raised again below)
            # Raised outside the nursery, so that callers meet it bare and not in a group.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class AsyncClient(AccountCalls, SharingCalls):
    """A farm's master, and through it the farm. Made by `connect`; any number of tasks may use it at once."""

    # -- jobs -------------------------------------------------------------------------------------

    async def submit(
        self,
        spec: JobSpec,
        *,
        token: str = "",
        note: Callable[[str], object] | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> int:
        """Queue a job and return its id. Calling again with the same `token` never makes a second one.

        An empty owner is the login name, an empty cwd the folder in which this program runs. `note` is
        called with what the master has to say about the job, if anything; `warn` (without it: `note`) with
        each sentence on what will not render as the farm stands. Raises BadRequest.
        """
        request = messages.Submit(rq=0, token=token or secrets.token_hex(16), spec=prepared(spec))
        answer = await self._ask(request, messages.Submitted, again=True)
        if answer.note and note is not None:
            note(answer.note)
        warn = warn or note
        if warn is not None:
            for text in answer.warnings:
                warn(text)
        return answer.job

    async def jobs(self, *, all: bool = False, owner: str = "") -> tuple[JobView, ...]:
        """Every job that is not finished (or every one at all), by id."""
        return await self.each_job(all=all, owner=owner).all()

    def each_job(self, *, all: bool = False, owner: str = "") -> Pages[JobView]:
        """The same, fetched while iterated over."""

        async def fetch(cursor: int) -> tuple[tuple[JobView, ...], int | None]:
            request = messages.ListJobs(rq=0, cursor=cursor, limit=PAGE, all=all, owner=owner)
            answer = await self._read(request, messages.Jobs)
            return answer.jobs, answer.next

        return Pages(fetch)

    async def job(self, job: int) -> tuple[JobView, tuple[LayerView, ...]]:
        """One job and its layers."""
        answer = await self._read(messages.GetJob(rq=0, job=job), messages.Job)
        return answer.job, answer.layers

    async def spec(self, job: int) -> JobSpec:
        """A job as it was submitted, with all that was changed since."""
        return (await self._read(messages.GetSpec(rq=0, job=job), messages.Spec)).spec

    async def frames(self, job: int, *, layer: str = "", states: Iterable[str] = ()) -> tuple[FrameView, ...]:
        """A job's frames in order: of one layer only, in some states only."""
        return await self.each_frame(job, layer=layer, states=states).all()

    def each_frame(self, job: int, *, layer: str = "", states: Iterable[str] = ()) -> Pages[FrameView]:
        """The same, fetched while iterated over."""
        wanted = tuple(states)

        async def fetch(cursor: int) -> tuple[tuple[FrameView, ...], int | None]:
            request = messages.ListFrames(
                rq=0, job=job, layer=layer, cursor=cursor, limit=PAGE, states=wanted
            )
            answer = await self._read(request, messages.Frames)
            return answer.frames, answer.next

        return Pages(fetch)

    async def attempts(self, job: int, number: int, *, layer: str = "") -> tuple[AttemptView, ...]:
        """Every attempt at the frame of that number, oldest first."""
        request = messages.ListAttempts(rq=0, job=job, layer=layer, number=number)
        return (await self._read(request, messages.Attempts)).attempts

    async def why(self, job: int, number: int | None = None, *, layer: str = "") -> tuple[Reason, ...]:
        """Why a job, or one frame of it, does not render; empty: it does not wait."""
        request = messages.Why(rq=0, job=job, layer=layer, number=number)
        return (await self._read(request, messages.Reasons)).reasons

    async def stop(self, job: int) -> Did:
        """Start no more frames of a job; running ones end normally."""
        return await self._job_verb(job, "stop")

    async def hard_stop(self, job: int) -> Did:
        """Stop a job and end its running frames, which will be WAITING again."""
        return await self._job_verb(job, "hard-stop")

    async def continue_(self, job: int) -> Did:
        """Let a stopped job go on."""
        return await self._job_verb(job, "continue")

    async def rerun(self, job: int) -> Did:
        """Render all frames of a job again."""
        return await self._job_verb(job, "rerun")

    async def delete(self, job: int) -> Did:
        """End a job and forget it."""
        return await self._job_verb(job, "delete")

    async def change_job(self, job: int, change: JobChange) -> Did:
        """Change a live job's priority, range, limits and the like."""
        return await self._do(messages.ChangeJob(rq=0, job=job, change=typed(change, "bad-request")))

    # -- frames -----------------------------------------------------------------------------------

    async def frame_kill(self, job: int, frames: str, *, layer: str = "") -> Did:
        """Stop running frames of a range; they are WAITING again, or FAILED after too many times."""
        return await self._frame_verb(job, frames, layer, "kill", False)

    async def frame_requeue(self, job: int, frames: str, *, layer: str = "", now: bool = False) -> Did:
        """Render frames of a range again; running ones once more after this run, or at once with `now`."""
        return await self._frame_verb(job, frames, layer, "requeue", now)

    async def frame_finish(self, job: int, frames: str, *, layer: str = "", running: bool = False) -> Did:
        """Call frames of a range DONE; running attempts at them are stopped. `running`: only those."""
        request = messages.FrameVerb(
            rq=0, job=job, layer=layer, frames=frames, verb="finish", running=running
        )
        return await self._do(request)

    async def frame_reset_requeued(self, job: int, frames: str, *, layer: str = "") -> Did:
        """Count anew how often frames of a range were requeued, and with that their retries."""
        return await self._frame_verb(job, frames, layer, "reset-requeued", False)

    async def frame_next(self, job: int, frames: str, *, layer: str = "") -> Did:
        """Let those frames of a range that wait go before all others of their layer."""
        return await self._frame_verb(job, frames, layer, "next", False)

    # -- slaves -----------------------------------------------------------------------------------

    async def slaves(self) -> tuple[SlaveView, ...]:
        """Every slave that the farm knows, by id."""

        async def fetch(cursor: int) -> tuple[tuple[SlaveView, ...], int | None]:
            answer = await self._read(messages.ListSlaves(rq=0, cursor=cursor, limit=PAGE), messages.Slaves)
            return answer.slaves, answer.next

        return await Pages(fetch).all()

    async def slave(self, name: str) -> SlaveView:
        """One slave by its name, host name or address, with the frames that run on it.

        Where no master answers, a slave of this machine tells for itself.
        """
        request = messages.GetSlave(rq=0, slave=name)
        try:
            return (await self._read(request, messages.SlaveInfo)).slave
        except MasterUnreachable:
            link = await self.direct_here(name)
            if link is None:
                raise
            try:
                return (await link.ask(request, messages.SlaveInfo)).slave
            except LinkLost as lost:
                raise broke_off(name, lost) from None

    async def set_slave(self, name: str, change: LimitsChange) -> Did:
        """Change what a slave lets the farm use. `name` may be the `unix:PATH` of its control port, too."""
        change = typed(change, "bad-limits")
        return await self._tell_slave(
            name,
            messages.SetLimits(rq=0, change=change),
            messages.SetLimits(rq=0, slave=name, change=change),
        )

    async def enable_slave(self, name: str) -> Did:
        """Let a slave take frames."""
        return await self.set_slave(name, LimitsChange(enabled=True))

    async def disable_slave(self, name: str) -> Did:
        """Give a slave no new frames; running ones end normally."""
        return await self.set_slave(name, LimitsChange(enabled=False))

    async def kill_attempts(
        self, name: str, *, keys: Iterable[AttemptKey] = (), job: int | None = None
    ) -> Did:
        """Stop these attempts on a slave, or all those of a job, as a frame kill does."""
        wanted = tuple(keys)
        return await self._tell_slave(
            name,
            messages.KillAttempts(rq=0, keys=wanted, job=job),
            messages.KillAttempts(rq=0, slave=name, keys=wanted, job=job),
        )

    async def forget_slave(self, name: str) -> Did:
        """Strike a slave that is gone off the list."""
        return await self._slave_verb(name, "forget")

    async def declare_dead(self, name: str) -> Did:
        """Vouch that a slave runs nothing any more: its frames go elsewhere at once."""
        return await self._slave_verb(name, "declare-dead")

    async def heal_slave(self, name: str) -> Did:
        """Send frames again to a slave that was found sick."""
        return await self._slave_verb(name, "heal")

    # -- logs -------------------------------------------------------------------------------------

    async def read_log(self, job: int, number: int, *, layer: str = "", attempt: int | None = None) -> bytes:
        """The log of a frame's attempt (default: the latest one) as far as it has been written."""
        parts = LogStream(self, job, number, layer, attempt, follow=False, patience_s=self._patience_s)
        return b"".join([part async for part in parts])

    def follow_log(
        self,
        job: int,
        number: int,
        *,
        layer: str = "",
        attempt: int | None = None,
        patience_s: float = RESTART_PATIENCE_S,
    ) -> LogStream:
        """A frame's log as it is written, until the frame is over; or one attempt's, till its end."""
        return LogStream(self, job, number, layer, attempt, follow=True, patience_s=patience_s)

    # -- the farm ---------------------------------------------------------------------------------

    async def wait(
        self,
        jobs: Iterable[int],
        progress: WaitProgress | None = None,
        *,
        patience_s: float = RESTART_PATIENCE_S,
    ) -> tuple[JobView, ...]:
        """Return once all these jobs are FINISHED, with how they ended; `progress` hears of every change."""
        return await wait_for(self, tuple(jobs), progress, patience_s)

    def watch(
        self,
        *,
        jobs: bool = False,
        slaves: bool = False,
        job: int | None = None,
        patience_s: float = RESTART_PATIENCE_S,
    ) -> Changes:
        """Changes of all jobs, all slaves, one job and its frames, as they happen."""
        return Changes(self, messages.Watch(rq=0, jobs=jobs, slaves=slaves, job=job), patience_s)

    async def farm_info(self) -> messages.Farm:
        """Who this master is and how the farm does."""
        return await self._read(messages.FarmInfo(rq=0), messages.Farm)

    async def resume_farm(self) -> Did:
        """Vouch, after a restore from a backup, that nothing out of reach runs that began since it was made.

        Its jobs go on at once. Where something does run, such a frame runs twice.
        """
        return await self._do(messages.ResumeFarm(rq=0))

    # -- verbs ------------------------------------------------------------------------------------

    async def _job_verb(self, job: int, verb: JobVerbName) -> Did:
        return await self._do(messages.JobVerb(rq=0, job=job, verb=verb))

    async def _frame_verb(self, job: int, frames: str, layer: str, verb: FrameVerbName, now: bool) -> Did:
        return await self._do(
            messages.FrameVerb(rq=0, job=job, layer=layer, frames=frames, verb=verb, now=now)
        )

    async def _slave_verb(self, name: str, verb: SlaveVerbName) -> Did:
        return await self._do(messages.SlaveVerb(rq=0, slave=name, verb=verb))
