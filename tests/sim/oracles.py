"""What the simulated farm promises, seen from outside of the cores.

The oracle sees what every process really did on which machine, and asks whether it may: who may overlap, what
a machine can carry, how long things may take is said anew here. What masters write down is in `books`.
"""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from drqueue.master.core.core import Core
from drqueue.master.core.explain import why
from drqueue.master.core.turn import Policy
from drqueue.proto.ids import AttemptKey
from drqueue.slave.core.core import HEARD_KEPT_S
from drqueue.slave.core.records import MasterSeen, Record, StopAsked
from tests.sim.books import Book, LayerKey, Violation
from tests.sim.jobs import LICENCE
from tests.sim.reloads import same

if TYPE_CHECKING:
    from tests.sim.farm import Farm
    from tests.sim.hosts import Host, Process
    from tests.sim.masters import Master

__all__ = ["Oracle", "Violation"]

#: Linked again, told, TERM, grace, KILL, and KILL again: a disowned process is gone after that.
DISOWNED_S = 40.0
#: The engine's longest nap (after a sleep), KILL, and a disk that is slow to note it. One whose lease ends
#: while its machine is awake gets a grace instead of the nap.
LEASE_KILL_S = 45.0


class Oracle:
    """All that ever ran in one farm."""

    def __init__(self, farm: "Farm") -> None:
        self._farm = farm
        self._by_layer: dict[LayerKey, list[Process]] = {}
        self._disowned: dict[AttemptKey, float] = {}

    # -- what processes do ------------------------------------------------------------------------------

    def started(self, process: "Process") -> None:
        """P4: nobody else runs any of its frames, unless the promise allows for it.

        An operator who declares a slave dead vouches for all that was ordered there, read or unread.
        """
        key, host, book = process.key, process.host, process.book
        self._farm.trace("started", host.name, key)
        if book is None:
            raise Violation(f"attempt {key} starts on {host.name}, and nobody ordered it")
        if key in book.processes:
            raise Violation(f"attempt {key} was started twice")
        book.processes[key] = process
        mine = process.numbers
        others = self._by_layer.setdefault((key.job, key.layer), [])
        for other in others:
            if other.alive and not mine.isdisjoint(other.numbers) and self._forbidden(other, book):
                raise Violation(
                    f"attempt {key} starts on {host.name} while {other.key} runs on {other.host.name}"
                )
        others[:] = [other for other in others if other.alive]
        others.append(process)
        used = sum(one.order.cores for one in host.processes.values())
        if used > host.cores:
            raise Violation(f"{host.name} runs frames that need {used} cores, and has {host.cores}")
        self._within_limits(process, book)

    def _within_limits(self, process: "Process", book: Book) -> None:
        """I7: not more of a job, and of a licence, than they allow, of all that the master knows to run."""
        job = book.specs[process.key.job].spec
        running = [
            one
            for host in self._farm.hosts
            for one in host.processes.values()
            if book.process(one.key) is one and not book.rows[one.key].outcome
        ]
        # What no frame of the job needs any more, and is told to end, takes licences, but no place in it.
        same = [one for one in running if one.key.job == process.key.job and not book.rows[one.key].orphan]
        if 0 < job.max_running < len(same):
            raise Violation(f"{len(same)} frames of job {process.key.job} run, {job.max_running} may")
        here = sum(one.host is process.host for one in same)
        if 0 < job.max_per_slave < here:
            raise Violation(f"{process.host.name} runs {here} frames of job {process.key.job}")
        licences = self._farm.mix.licences
        taken = sum(book.rows[one.key].limits.get(LICENCE, 0) for one in running)
        if 0 < licences < taken:
            raise Violation(f"{taken} licences are taken, of {licences}")

    def _forbidden(self, other: "Process", mine: Book) -> bool:
        """Whether no other may start while this one lives: finish, rerun and new ranges are no excuse."""
        order, host, book = other.order, other.host, other.book
        assert book is not None
        if order.on_unreachable == "requeue-fast":
            return False
        if {book.line, mine.line, host.obeys.line if host.obeys is not None else mine.line} != {mine.line}:
            # Two masters at one time: each only knows of its own.
            return False
        if mine.dead_at.get(host.name, -1.0) >= mine.ordered_at.get(other.key, other.started):
            return False
        if order.on_unreachable == "hold":
            return True
        return host.boot_clock() < host.lease_ends(order.lease_s) or self._overdue(other)

    def _overdue(self, process: "Process") -> bool:
        """Its lease is over, and somebody who was awake should have ended it long ago."""
        order, host = process.order, process.host
        if order.on_unreachable == "hold" or not host.can_act():
            return False
        if host.keeper is not None and host.keeper.hung_at is not None:
            return False
        begin = max(host.lease_ends(order.lease_s), host.up_since, host.keeper_well_at)
        return host.boot_clock() - begin > LEASE_KILL_S

    def overdue(self) -> None:
        """P4: no frame runs on when its lease is over, whether or not it is elsewhere by then."""
        for host in self._farm.hosts:
            for process in host.processes.values():
                if self._overdue(process):
                    raise Violation(f"{host.name} runs {process.key} on after its lease")

    def output_there(self, host: "Host", key: AttemptKey) -> bool:
        """Whether the process wrote what it was to write."""
        book = host.ordered_by[key]
        return book.processes[key].will.outputs

    # -- what slaves do -----------------------------------------------------------------------------------

    def slave_saved(self, host: "Host", records: Sequence[Record]) -> None:
        """P4: a slave ends no frame for its lease before that is over."""
        for record in records:
            process = host.processes.get(record.key) if isinstance(record, StopAsked) else None
            if process is not None and isinstance(record, StopAsked) and record.reason == "lease":
                ends = host.lease_ends(process.order.lease_s)
                # Words read after a sleep are old: they stretch no lease that ended in it.
                slept = host.boot_clock() - host.woke_at < 1.0
                if not slept and host.boot_clock() < ends - HEARD_KEPT_S:
                    raise Violation(f"{host.name} ends {record.key} before its lease is over")

    def master_seen(self, host: "Host", record: MasterSeen) -> None:
        """P6, I17: the epochs that a slave knows never fall, and it knows one master of each."""
        folder = host.folder
        if record.farm == folder.farm:
            if record.epoch < folder.epoch:
                raise Violation(f"{host.name} goes back from epoch {folder.epoch} to {record.epoch}")
            if record.epoch == folder.epoch and "" != folder.life != record.life:
                raise Violation(f"{host.name} obeys two masters of epoch {record.epoch}")

    def obeys(self, host: "Host", master: "Master") -> None:
        """P6: a slave takes a master on; none of an older epoch than one that it knows."""
        if master.epoch < host.folder.epoch:
            raise Violation(f"{host.name} obeys epoch {master.epoch}, and knows {host.folder.epoch}")
        host.obeys = master.book

    # -- looking around ---------------------------------------------------------------------------------

    def disowned(self) -> None:
        """Convergence: what runs on a linked slave is what the master knows of, and wants."""
        master = self._farm.master
        for host in self._farm.hosts:
            # With two masters: it is the other one's word that counts there.
            well = host.is_well() and master is not None and host.obeys is master.book
            for key in host.processes:
                attempt = master.core.state.attempts.get(key) if master is not None else None
                wanted = master is None or (attempt is not None and not attempt.stop)
                if wanted or not well:
                    self._disowned.pop(key, None)
                    continue
                since = max(self._disowned.setdefault(key, self._farm.now), host.linked_at)
                if self._farm.now - since > DISOWNED_S:
                    raise Violation(f"{host.name} still runs {key}, which the master does not want")

    def reloaded(self) -> None:
        """What a master would know that started now is what this one knows."""
        for site in self._farm.sites:
            if site.master is not None and site.master.committed:
                fresh = Core(Policy(farm="farm"), site.storage.load(), 0.0, self._farm.wall())
                same(site.master.core.state, fresh.state)

    def unfinished(self) -> float:
        """Frames that are not over; `inf` where nobody is there to say so."""
        master = self._farm.master
        if master is None or self._farm.pending_submits:
            return inf
        return sum(job.unfinished for job in master.core.state.jobs.values())

    def unsettled(self) -> str:
        """What is not yet at rest, "" for nothing."""
        farm = self._farm
        if farm.master is None or farm.pending_submits:
            return "no master, or submissions on their way"
        state = farm.master.core.state
        for host in farm.hosts:
            if host.daemon is None or host.processes or host.daemon.core.state.held:
                return f"{host.name} is down, runs {[*host.processes]}, or holds what is not noted"
        if state.attempts:
            return f"attempts live on: {[*state.attempts]}"
        for job in state.jobs.values():
            blocked = job.waits_for.startswith("job ")
            for layer in job.layers:
                # What single frames wait for is looked at by the invariants.
                if layer.unfinished > len(layer.held) and not (blocked or layer.blocked):
                    reasons = [reason.text for reason in why(farm.master.core.turn, job, layer, None)]
                    return f"layer {job.id}/{layer.index}: {layer.unfinished} frames unfinished: {reasons}"
            if not job.unfinished and not job.finished:
                return f"job {job.id} does not know that it is finished"
            if job.deleted:
                return f"job {job.id} was deleted and is still there"
        return ""
