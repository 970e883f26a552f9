"""`AsyncClient`: everything a farm can be asked and told, over one link to its master.

Rules: reads, and `submit` by its token, are repeated by themselves when the link breaks; any other
request whose link breaks before the answer raises MasterUnreachable, for it may have been done. A slave is
asked directly at its control port where that can be reached, else through the master. Patience is how
long a call goes on trying while no master answers: none for ordinary calls, an hour for what is meant to
outlive a restart.
"""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from drqueue.channel import LinkClosed
from drqueue.client.errors import (
    DrQueueError,
    MasterUnreachable,
    Refused,
    VersionMismatch,
)
from drqueue.client.link import ChangeQueue, Link, LinkLost, dial
from drqueue.client.logs import LogStream
from drqueue.client.specs import prepared, typed
from drqueue.client.streams import Changes, Pages
from drqueue.client.waiting import WaitProgress, wait_for
from drqueue.proto import messages
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import HandshakeRejected
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Message
from drqueue.proto.messages import FrameVerbName, JobVerbName, Request, SlaveVerbName
from drqueue.proto.model import JobChange, JobSpec, LimitsChange
from drqueue.proto.views import AttemptView, FrameView, JobView, LayerView, Reason, SlaveView
from drqueue.settings import Address, candidates, default_state_dir

RESTART_PATIENCE_S = 3600.0
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
#: A master that restarts is back before this; only then it is worth a word.
SILENCE_S = 2.0
PAGE = 500
NO_NETWORK = "only Unix sockets are spoken so far (localhost, with no port, is this machine)"

A = TypeVar("A", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True)
class Did:
    """What a verb did: how many things it touched, and what is worth saying about it."""

    count: int
    note: str = ""


@asynccontextmanager
async def connect(
    address: str | None = None,
    *,
    patience_s: float = 0,
    env: Mapping[str, str] | None = None,
    lazily: bool = False,
) -> AsyncIterator["AsyncClient"]:
    """A client linked to the master at `address`: HOST[:PORT] or unix:PATH.

    The default is DRQUEUE_MASTER, and without that the first on this machine that answers. Raises
    MasterUnreachable where none answers within `patience_s` seconds, VersionMismatch, SettingsError.
    `lazily`: the master is dialled when it is first needed; slaves can be asked without one.
    """
    env = os.environ if env is None else env
    places = candidates(env.get("DRQUEUE_MASTER", "") if address is None else address, env)
    failure: Exception | KeyboardInterrupt | None = None
    async with trio.open_nursery() as nursery:
        client = AsyncClient(places, nursery, patience_s, default_state_dir(env))
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


class AsyncClient:
    """A farm's master, and through it the farm. Made by `connect`; any number of tasks may use it at once."""

    def __init__(
        self, places: Sequence[Address], nursery: trio.Nursery, patience_s: float = 0, state_dir: str = ""
    ) -> None:
        self._places = places
        self._state_dir = state_dir
        self._nursery = nursery
        self._patience_s = patience_s
        self._link: Link | None = None
        self._direct: dict[str, Link] = {}
        self._dialling = trio.Lock()
        #: Called with False when the master has been silent for SILENCE_S while somebody waits for it, and
        #: with True when it answers again.
        self.on_silence: Callable[[bool], object] | None = None
        self._silent = False

    # -- jobs -------------------------------------------------------------------------------------

    async def submit(
        self, spec: JobSpec, *, token: str = "", note: Callable[[str], object] | None = None
    ) -> int:
        """Queue a job and return its id. Calling again with the same `token` never makes a second one.

        An empty owner is the login name, an empty cwd the folder in which this program runs. `note` is
        called with what the master has to say about the job, if anything. Raises BadRequest.
        """
        request = messages.Submit(rq=0, token=token or secrets.token_hex(16), spec=prepared(spec))
        answer = await self._ask(request, messages.Submitted, again=True)
        if answer.note and note is not None:
            note(answer.note)
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
            link = await self.direct(self._local_control(name))
            if link is None:
                raise
            return (await self._asked_directly(link, name, request, messages.SlaveInfo)).slave

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

    # -- for this package's own modules -------------------------------------------------------------

    async def linked(self, patience_s: float) -> Link:
        """The link to the master, made anew where it is gone."""
        began = trio.current_time()
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with self._dialling:
                    if self._link is None or self._link.over:
                        self._link = await self._dial_master()
                    self._tell_silence(False)
                    return self._link
            except MasterUnreachable:
                if trio.current_time() + pause > began + patience_s:
                    raise
                if trio.current_time() - began >= SILENCE_S:
                    self._tell_silence(True)
            await trio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_S)

    def _tell_silence(self, silent: bool) -> None:
        if silent != self._silent:
            self._silent = silent
            if self.on_silence is not None:
                self.on_silence(not silent)

    async def stand_watch(self, request: messages.Watch, patience_s: float) -> tuple[Link, ChangeQueue]:
        """A watch that stands, and the link it stands on."""

        async def stand(link: Link) -> tuple[Link, ChangeQueue]:
            return link, await link.watch(request)

        return await self._retried(stand, patience_s, again=True)

    async def read(self, request: Request, kind: type[A], patience_s: float) -> A:
        """Ask for something that changes nothing, with a patience of its own."""
        return await self._ask(request, kind, again=True, patience_s=patience_s)

    async def direct(self, control: str) -> Link | None:
        """A link to a slave's control port; None where that cannot be reached from here."""
        if not control.startswith("unix:"):
            return None
        async with self._dialling:
            link = self._direct.get(control)
            if link is None or link.over:
                try:
                    link = await dial(Address("unix", path=control.removeprefix("unix:")), "slave")
                except (OSError, LinkClosed, RemoteProtocolError, HandshakeRejected):
                    return None
                self._direct[control] = link
                self._nursery.start_soon(link.serve)
        return link

    def _local_control(self, name: str) -> str:
        """Where a slave of that name on this machine would listen."""
        if name.startswith("unix:") or not name or "/" in name:
            return name
        return f"unix:{os.path.join(self._state_dir, f'slave-{name}', 'control.sock')}"

    # -- asking -----------------------------------------------------------------------------------

    async def _read(self, request: Request, kind: type[A]) -> A:
        return await self._ask(request, kind, again=True)

    async def _do(self, request: Request) -> Did:
        done = await self._ask(request, messages.Done, again=False)
        return Did(done.count, done.note)

    async def _job_verb(self, job: int, verb: JobVerbName) -> Did:
        return await self._do(messages.JobVerb(rq=0, job=job, verb=verb))

    async def _frame_verb(self, job: int, frames: str, layer: str, verb: FrameVerbName, now: bool) -> Did:
        return await self._do(
            messages.FrameVerb(rq=0, job=job, layer=layer, frames=frames, verb=verb, now=now)
        )

    async def _slave_verb(self, name: str, verb: SlaveVerbName) -> Did:
        return await self._do(messages.SlaveVerb(rq=0, slave=name, verb=verb))

    async def _tell_slave(self, name: str, directly: Request, relayed: Request) -> Did:
        control = name if name.startswith("unix:") else (await self.slave(name)).control
        link = await self.direct(control)
        if link is None:
            if name.startswith("unix:"):
                raise DrQueueError(f"no slave answers at {name}")
            return await self._do(relayed)
        done = await self._asked_directly(link, name, directly, messages.Done)
        return Did(done.count, done.note)

    async def _asked_directly(self, link: Link, name: str, request: Request, kind: type[A]) -> A:
        try:
            return await link.ask(request, kind)
        except LinkLost as lost:
            raise DrQueueError(f"the link to slave {name} broke before it answered ({lost})") from None

    async def _ask(
        self, request: Request, kind: type[A], *, again: bool, patience_s: float | None = None
    ) -> A:
        patience_s = self._patience_s if patience_s is None else patience_s
        return await self._retried(lambda link: link.ask(request, kind), patience_s, again=again)

    async def _retried(self, use: Callable[[Link], Awaitable[T]], patience_s: float, *, again: bool) -> T:
        deadline = trio.current_time() + patience_s
        pause = 0.0
        while True:
            link = await self.linked(max(0.0, deadline - trio.current_time()))
            try:
                return await use(link)
            except LinkLost as lost:
                if lost.sent and not again:
                    raise MasterUnreachable(
                        f"the link to the master broke before it answered ({lost}): look whether it was done"
                    ) from None
                # Once more at once, for a master that was just restarted; from then on with pauses.
                if pause and trio.current_time() + pause > deadline:
                    raise MasterUnreachable(f"the link to the master keeps breaking ({lost})") from None
            await trio.sleep(pause)
            pause = min(max(pause * 1.5, FIRST_PAUSE_S), LONGEST_PAUSE_S)

    async def _dial_master(self) -> Link:
        tried = []
        nobody = True
        for place in self._places:
            if place.kind != "unix":
                if len(self._places) == 1:
                    raise MasterUnreachable(f"no master answers at {place}: {NO_NETWORK}")
                continue
            try:
                link = await dial(place)
            except HandshakeRejected as error:
                if error.code == "version":
                    raise VersionMismatch(error.text) from None
                if not error.retry:
                    raise Refused(error.code, f"{place}: {error.text}") from None
                nobody = False
                tried.append(f"{place} ({error.text})")
            except (FileNotFoundError, ConnectionRefusedError):
                tried.append(str(place))
            except OSError as error:
                nobody = False
                tried.append(f"{place} ({error.strerror or error})")
            except (LinkClosed, RemoteProtocolError) as error:
                nobody = False
                tried.append(f"{place} ({error})")
            else:
                self._nursery.start_soon(link.serve)
                return link
        raise MasterUnreachable(f"no master answers at {' or '.join(tried)}", nobody=nobody)
