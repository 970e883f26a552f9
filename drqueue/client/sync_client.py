"""`Client`: the methods of `AsyncClient`, blocking, for programs without trio.

One thread runs trio with the one `AsyncClient`; every call is a task there, and any number of threads
may call. A call that is interrupted (Ctrl-C, an alarm) is cancelled there. Parameters and meaning are
`AsyncClient`'s.
"""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from drqueue.client.asking import RESTART_PATIENCE_S, Did
from drqueue.client.portal import Portal, Stream
from drqueue.client.waiting import WaitProgress
from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import AccountKind, AccountRole, Changed, Farm, TheLine, You
from drqueue.proto.model import JobChange, JobSpec, LimitsChange, LimitScope, PoolPolicy, Share, Sharer
from drqueue.proto.views import (
    AccountView,
    AttemptView,
    AuditView,
    Finding,
    FrameView,
    JobView,
    LayerView,
    LimitView,
    PoolView,
    Reason,
    ShareView,
    SlaveView,
)


async def _nothing() -> None:
    return None


class Client:
    """A farm's master, and through it the farm. Use `with`, or call `close`.

    Raises MasterUnreachable where none answers within `patience_s` seconds, VersionMismatch, SettingsError.
    """

    def __init__(self, address: str | None = None, *, patience_s: float = 0) -> None:
        self._portal = Portal(address, patience_s)
        self._client = self._portal.client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the farm and end the thread."""
        self._portal.close()

    # -- jobs -------------------------------------------------------------------------------------

    def submit(
        self,
        spec: JobSpec,
        *,
        token: str = "",
        note: Callable[[str], object] | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> int:
        """Queue a job and return its id. Calling again with the same `token` never makes a second one.

        An empty owner is the login name, an empty cwd the folder in which this program runs.
        """
        return self._portal.call(lambda: self._client.submit(spec, token=token, note=note, warn=warn))

    def jobs(self, *, all: bool = False, owner: str = "") -> tuple[JobView, ...]:
        """Every job that is not finished (or every one at all), by id."""
        return self._portal.call(lambda: self._client.jobs(all=all, owner=owner))

    def each_job(self, *, all: bool = False, owner: str = "") -> Iterator[JobView]:
        """The same, fetched while iterated over."""
        return Stream(self._portal, self._client.each_job(all=all, owner=owner), _nothing)

    def job(self, job: int) -> tuple[JobView, tuple[LayerView, ...]]:
        """One job and its layers."""
        return self._portal.call(lambda: self._client.job(job))

    def spec(self, job: int) -> JobSpec:
        """A job as it was submitted, with all that was changed since."""
        return self._portal.call(lambda: self._client.spec(job))

    def frames(self, job: int, *, layer: str = "", states: Iterable[str] = ()) -> tuple[FrameView, ...]:
        """A job's frames in order: of one layer only, in some states only."""
        return self._portal.call(lambda: self._client.frames(job, layer=layer, states=states))

    def each_frame(self, job: int, *, layer: str = "", states: Iterable[str] = ()) -> Iterator[FrameView]:
        """The same, fetched while iterated over."""
        return Stream(self._portal, self._client.each_frame(job, layer=layer, states=states), _nothing)

    def attempts(self, job: int, number: int, *, layer: str = "") -> tuple[AttemptView, ...]:
        """Every attempt at the frame of that number, oldest first."""
        return self._portal.call(lambda: self._client.attempts(job, number, layer=layer))

    def why(self, job: int, number: int | None = None, *, layer: str = "") -> tuple[Reason, ...]:
        """Why a job, or one frame of it, does not render; empty: it does not wait."""
        return self._portal.call(lambda: self._client.why(job, number, layer=layer))

    def stop(self, job: int) -> Did:
        """Start no more frames of a job; running ones end normally."""
        return self._portal.call(lambda: self._client.stop(job))

    def hard_stop(self, job: int) -> Did:
        """Stop a job and end its running frames, which will be WAITING again."""
        return self._portal.call(lambda: self._client.hard_stop(job))

    def continue_(self, job: int) -> Did:
        """Let a stopped job go on."""
        return self._portal.call(lambda: self._client.continue_(job))

    def rerun(self, job: int) -> Did:
        """Render all frames of a job again."""
        return self._portal.call(lambda: self._client.rerun(job))

    def delete(self, job: int) -> Did:
        """End a job and forget it."""
        return self._portal.call(lambda: self._client.delete(job))

    def change_job(self, job: int, change: JobChange) -> Did:
        """Change a live job's priority, range, limits and the like."""
        return self._portal.call(lambda: self._client.change_job(job, change))

    # -- frames -----------------------------------------------------------------------------------

    def frame_kill(self, job: int, frames: str, *, layer: str = "") -> Did:
        """Stop running frames of a range; they are WAITING again, or FAILED after too many times."""
        return self._portal.call(lambda: self._client.frame_kill(job, frames, layer=layer))

    def frame_requeue(self, job: int, frames: str, *, layer: str = "", now: bool = False) -> Did:
        """Render frames of a range again; running ones once more after this run, or at once with `now`."""
        return self._portal.call(lambda: self._client.frame_requeue(job, frames, layer=layer, now=now))

    def frame_finish(self, job: int, frames: str, *, layer: str = "", running: bool = False) -> Did:
        """Call frames of a range DONE; running attempts at them are stopped. `running`: only those."""
        return self._portal.call(lambda: self._client.frame_finish(job, frames, layer=layer, running=running))

    def frame_reset_requeued(self, job: int, frames: str, *, layer: str = "") -> Did:
        """Count anew how often frames of a range were requeued, and with that their retries."""
        return self._portal.call(lambda: self._client.frame_reset_requeued(job, frames, layer=layer))

    def frame_next(self, job: int, frames: str, *, layer: str = "") -> Did:
        """Let those frames of a range that wait go before all others of their layer."""
        return self._portal.call(lambda: self._client.frame_next(job, frames, layer=layer))

    # -- slaves -----------------------------------------------------------------------------------

    def slaves(self) -> tuple[SlaveView, ...]:
        """Every slave that the farm knows, by id."""
        return self._portal.call(self._client.slaves)

    def slave(self, name: str) -> SlaveView:
        """One slave by its name, host name or address, with the frames that run on it."""
        return self._portal.call(lambda: self._client.slave(name))

    def set_slave(self, name: str, change: LimitsChange) -> Did:
        """Change what a slave lets the farm use. `name` may be the `unix:PATH` of its control port, too."""
        return self._portal.call(lambda: self._client.set_slave(name, change))

    def enable_slave(self, name: str) -> Did:
        """Let a slave take frames."""
        return self._portal.call(lambda: self._client.enable_slave(name))

    def disable_slave(self, name: str) -> Did:
        """Give a slave no new frames; running ones end normally."""
        return self._portal.call(lambda: self._client.disable_slave(name))

    def kill_attempts(self, name: str, *, keys: Iterable[AttemptKey] = (), job: int | None = None) -> Did:
        """Stop these attempts on a slave, or all those of a job, as a frame kill does."""
        return self._portal.call(lambda: self._client.kill_attempts(name, keys=keys, job=job))

    def forget_slave(self, name: str) -> Did:
        """Strike a slave that is gone off the list."""
        return self._portal.call(lambda: self._client.forget_slave(name))

    def declare_dead(self, name: str) -> Did:
        """Vouch that a slave runs nothing any more: its frames go elsewhere at once."""
        return self._portal.call(lambda: self._client.declare_dead(name))

    def heal_slave(self, name: str) -> Did:
        """Send frames again to a slave that was found sick."""
        return self._portal.call(lambda: self._client.heal_slave(name))

    # -- logs -------------------------------------------------------------------------------------

    def read_log(self, job: int, number: int, *, layer: str = "", attempt: int | None = None) -> bytes:
        """The log of a frame's attempt (default: the latest one) as far as it has been written."""
        return self._portal.call(lambda: self._client.read_log(job, number, layer=layer, attempt=attempt))

    def follow_log(
        self,
        job: int,
        number: int,
        *,
        layer: str = "",
        attempt: int | None = None,
        patience_s: float = RESTART_PATIENCE_S,
    ) -> Stream[bytes]:
        """A frame's log as it is written, until the frame is over; or one attempt's, till its end."""
        source = self._client.follow_log(job, number, layer=layer, attempt=attempt, patience_s=patience_s)
        return Stream(self._portal, source, source.aclose)

    # -- the farm ---------------------------------------------------------------------------------

    def wait(
        self,
        jobs: Iterable[int],
        progress: WaitProgress | None = None,
        *,
        patience_s: float = RESTART_PATIENCE_S,
    ) -> tuple[JobView, ...]:
        """Return once all these jobs are FINISHED, with how they ended.

        `progress` hears of every change, in the client's thread.
        """
        return self._portal.call(lambda: self._client.wait(jobs, progress, patience_s=patience_s))

    def watch(
        self,
        *,
        jobs: bool = False,
        slaves: bool = False,
        job: int | None = None,
        patience_s: float = RESTART_PATIENCE_S,
    ) -> Stream[Changed]:
        """Changes of all jobs, all slaves, one job and its frames, as they happen."""
        source = self._client.watch(jobs=jobs, slaves=slaves, job=job, patience_s=patience_s)
        return Stream(self._portal, source, source.aclose)

    def farm_info(self) -> Farm:
        """Who this master is and how the farm does."""
        return self._portal.call(self._client.farm_info)

    def resume_farm(self) -> Did:
        """Vouch, after a restore from a backup, that nothing out of reach runs that began since it was made.

        Its jobs go on at once. Where something does run, such a frame runs twice.
        """
        return self._portal.call(self._client.resume_farm)

    # -- limits, shares, pools ------------------------------------------------------------------------

    def limits(self) -> tuple[LimitView, ...]:
        """Every limit by name: those that were set, and those that waiting jobs name in vain."""
        return self._portal.call(self._client.limits)

    def set_limit(self, name: str, amount: float | None = None, scope: LimitScope | None = None) -> Did:
        """Set a limit, or change it: what is left out stays. What runs goes on, also above it.

        `scope` says what counts: "attempts", their "cores", or "slaves" (a seat for each machine).
        """
        return self._portal.call(lambda: self._client.set_limit(name, amount, scope))

    def drop_limit(self, name: str) -> Did:
        """Forget a limit. Frames of jobs that name it wait then until it is set again."""
        return self._portal.call(lambda: self._client.drop_limit(name))

    def shares(self) -> tuple[ShareView, ...]:
        """Every project and user in each pool: those that were given a share, and those with frames."""
        return self._portal.call(self._client.shares)

    def set_share(self, share: Share) -> Did:
        """Give a user or a project its share of a pool, in place of any before."""
        return self._portal.call(lambda: self._client.set_share(share))

    def drop_share(self, of: Sharer, name: str, pool: str = "") -> Did:
        """Forget what the "user" or "project" of that name was given of a pool (or of all together)."""
        return self._portal.call(lambda: self._client.drop_share(of, name, pool))

    def pools(self) -> tuple[PoolView, ...]:
        """Every pool by name: those with slaves, jobs or a policy of their own."""
        return self._portal.call(self._client.pools)

    def set_pool(self, name: str, policy: PoolPolicy) -> Did:
        """Say who comes first among jobs of one priority in a pool: by shares ("fair") or by age ("fifo")."""
        return self._portal.call(lambda: self._client.set_pool(name, policy))

    # -- who may use it -----------------------------------------------------------------------------

    def whoami(self) -> You:
        """Who the master takes this client for."""
        return self._portal.call(self._client.whoami)

    def add_line(
        self,
        kind: AccountKind,
        *,
        name: str = "",
        role: AccountRole | None = None,
        ttl_s: float = 3600,
        uses: int = 1,
        net: str = "",
    ) -> TheLine:
        """A line that brings a node, or the person `name` in this role, to the farm.

        It is good for `ttl_s` seconds and `uses` times, from the network `net` (CIDR) if that is given, and
        never shown again.
        """
        return self._portal.call(
            lambda: self._client.add_line(kind, name=name, role=role, ttl_s=ttl_s, uses=uses, net=net)
        )

    def accounts(self, kind: AccountKind, *, pending: bool = False) -> tuple[AccountView, ...]:
        """Accounts of nodes or of people, and lines not used up; with `pending` what waits for approval."""
        return self._portal.call(lambda: self._client.accounts(kind, pending=pending))

    def revoke_account(self, kind: AccountKind, name: str) -> Did:
        """Take an account away, and all its links and lines."""
        return self._portal.call(lambda: self._client.revoke_account(kind, name))

    def rotate_account(self, kind: AccountKind, name: str) -> Did | TheLine:
        """Have an account get a new secret; a line where somebody has to paste one for that."""
        return self._portal.call(lambda: self._client.rotate_account(kind, name))

    def approve_node(self, name: str) -> Did:
        """Let in a node that waits; `name` is the code that it shows, or its name."""
        return self._portal.call(lambda: self._client.approve_node(name))

    def reject_node(self, name: str) -> Did:
        """Turn away a node that waits."""
        return self._portal.call(lambda: self._client.reject_node(name))

    def set_role(self, name: str, role: AccountRole) -> Did:
        """Give a person another role."""
        return self._portal.call(lambda: self._client.set_role(name, role))

    def audit(self, latest: int = 100) -> tuple[AuditView, ...]:
        """The last so many rows of what was done and refused, oldest first."""
        return self._portal.call(lambda: self._client.audit(latest))

    def follow_audit(self, latest: int = 0, *, patience_s: float = RESTART_PATIENCE_S) -> Stream[AuditView]:
        """Rows of the audit as they are written, after the last so many that are there."""
        source = self._client.follow_audit(latest, patience_s=patience_s)
        return Stream(self._portal, source, source.aclose)

    def examine(self, slave: str = "") -> tuple[Finding, ...]:
        """What is well and what is not with the master and its machine, or with the slave of that name."""
        return self._portal.call(lambda: self._client.examine(slave))
