"""What a master must do with jobs of one layer, told once more in plain dictionaries: its core is held to it.

Rules of this file:
1. Nothing of the core is used, only the words of the protocol. Each method is something that happened.
2. The model decides nothing that is the master's to choose: `orders` is what it chose, and must have been
   allowed. What it must do, and no other, is in the state here, and in `idle_in_vain`, `unsaid_stops`.
3. What a master knows is what it committed, so `dies` leaves all of this as it is, but for links.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import Exit

#: Ends that are nobody's failure.
NOBODYS = ("lost", "lease", "stopped", "shutdown", "keeper-died")
BACKOFF_FIRST_S, BACKOFF_MOST_S = 5.0, 300.0


@dataclass
class Frame:
    """One frame; `state` is WAITING, LIVE, DONE or FAILED."""

    state: str = "WAITING"
    requeued: int = 0
    not_before: float = 0.0
    #: Whether it has failed anywhere, and so may keep away from slaves.
    failed: bool = False


@dataclass
class Attempt:
    """One try that was ordered and is not over."""

    key: AttemptKey
    slave: str
    cores: int
    lease_s: float
    how: str
    limited: bool
    stop: str = ""
    again: bool = False
    #: Its frame no longer waits for it.
    orphan: bool = False
    running: bool = False


@dataclass
class Job:
    """One job: its frames by position."""

    token: str
    cores: int
    retries: int
    priority: int
    lease_s: float
    how: str
    max_running: int
    limited: bool
    frames: list[Frame]
    stopped: bool = False
    deleted: bool = False

    @property
    def finished(self) -> bool:
        return all(frame.state in ("DONE", "FAILED") for frame in self.frames)


@dataclass
class Slave:
    """One slave; `greeted`: in this life of the master."""

    cores: int
    link: int | None = None
    heard: float = 0.0
    greeted: bool = True
    #: What it was told to stop over this link, or has ended anyhow.
    told: set[AttemptKey] = field(default_factory=set)


class Model:
    """The farm."""

    def __init__(self, fast_s: float) -> None:
        self.now = self.started = 0.0
        self.fast_s = fast_s
        self.jobs: dict[int, Job] = {}
        self.tokens: dict[str, int] = {}
        self.slaves: dict[str, Slave] = {}
        self.attempts: dict[AttemptKey, Attempt] = {}
        #: By job and position: the highest number that was ever given, in any life.
        self.given: dict[tuple[int, int], int] = {}
        self.next_job = 0
        self.limit = 0
        #: What the former life granted, while some who may rely on it were not heard of; what the next knows.
        self.granted_s = self.kept_grant_s = 0.0
        self.stopping = False
        #: In this step: exits by link, what a link is to stop though nobody wished it, what was ordered.
        self.reported: list[tuple[int, AttemptKey]] = []
        self.stale: list[tuple[int, AttemptKey]] = []
        self.chosen: list[Attempt] = []

    # -- around the events of a step --------------------------------------------------------------------

    def began(self, now: float) -> None:
        """A step begins."""
        self.now = now
        self.reported, self.stale, self.chosen = [], [], []

    def deadlines(self) -> None:
        """Leases end; jobs that are deleted and run no more are gone."""
        for attempt in list(self.attempts.values()):
            if self.gives_up_at(attempt) <= self.now:
                self._over(attempt, Exit(reason="lost"))
        if not any(not self.slaves[attempt.slave].greeted for attempt in self.attempts.values()):
            self.granted_s = 0.0
            if not self.stopping:
                self.kept_grant_s = 0.0
        for number in [n for n, job in self.jobs.items() if job.deleted]:
            if not any(key.job == number for key in self.attempts):
                del self.jobs[number]

    def gives_up_at(self, attempt: Attempt) -> float:
        """When an attempt is taken for lost."""
        slave = self.slaves[attempt.slave]
        if slave.link is not None or attempt.how == "hold":
            return inf
        heard = max(slave.heard, self.started)
        if attempt.how == "requeue-fast":
            return heard + self.fast_s
        lease_s = attempt.lease_s if slave.greeted else max(attempt.lease_s, self.granted_s)
        return heard + lease_s * 1.01 + 120.0

    def orders(self, link: int, key: AttemptKey, cores: float, lease_s: float) -> None:
        """The master ordered this over a link: was that allowed?"""
        name = self._linked(link)
        assert name is not None, f"{key} is ordered over a link that is gone"
        job = self.jobs[key.job]
        frame = job.frames[key.frame]
        where = f"{key} on {name}"
        assert not job.deleted, f"{where}: its job is deleted"
        assert not job.stopped, f"{where}: its job is stopped"
        assert frame.state == "WAITING", f"{where}: its frame is {frame.state}"
        assert not self._dying(key.job, key.frame), f"{where}: another attempt at it may still run"
        assert frame.not_before <= self.now, f"{where}: too early after its failure"
        assert key.attempt > self.given.get((key.job, key.frame), 0), f"{where}: its name was given before"
        assert (cores, lease_s) == (job.cores, job.lease_s), f"{where}: this is not what its job asks for"
        assert self.used(name) + job.cores <= self.slaves[name].cores, f"{where}: there is no room"
        assert not job.limited or self.limit_used + 1 <= self.limit, f"{where}: the limit is reached"
        assert self._may_run_more(key.job), f"{where}: so many of its job run already"
        self.given[key.job, key.frame] = key.attempt
        frame.state = "LIVE"
        attempt = Attempt(key, name, job.cores, job.lease_s, job.how, job.limited)
        self.attempts[key] = attempt
        self.chosen.append(attempt)

    def says_stop(self, link: int, key: AttemptKey) -> None:
        """The master told a slave to stop this: somebody must have wished it, or it is none of its own."""
        name = self._linked(link)
        assert name is not None, f"{key} is stopped over a link that is gone"
        attempt = self.attempts.get(key)
        if (link, key) not in self.stale:
            assert attempt is not None, f"{key} is stopped, and is not known"
            assert attempt.slave == name, f"{key} is stopped on {name}, and runs on {attempt.slave}"
            assert attempt.stop, f"{key} is stopped, and nobody wished that"
        self.slaves[name].told.add(key)

    def unsaid_stops(self) -> list[AttemptKey]:
        """What slaves that are linked should have been told to stop, and were not."""
        unsaid = [key for link, key in self.stale if key not in self._told(link)]
        for key, attempt in self.attempts.items():
            slave = self.slaves[attempt.slave]
            if slave.link is not None and attempt.stop and key not in slave.told:
                unsaid.append(key)
        return unsaid

    def idle_in_vain(self) -> list[tuple[int, int, str]]:
        """(job, position, slave) of frames that wait although they could run there."""
        found = []
        for number, job in self.jobs.items():
            if not self._open(number):
                continue
            for at, frame in enumerate(job.frames):
                if self._clean(number, at, frame):
                    rooms = [
                        name
                        for name, slave in self.slaves.items()
                        if slave.link is not None and self.used(name) + job.cores <= slave.cores
                    ]
                    found += [(number, at, name) for name in rooms]
        return found

    def passed_over(self) -> list[tuple[int, AttemptKey]]:
        """(job, attempt): a job of higher priority waits for what a lower one got in this step."""
        found = []
        for attempt in self.chosen:
            than = self.jobs[attempt.key.job]
            for number, job in self.jobs.items():
                if job.priority > than.priority and job.cores <= than.cores and self._open(number):
                    waits = any(self._clean(number, at, frame) for at, frame in enumerate(job.frames))
                    found += [(number, attempt.key)] if waits else []
        return found

    def _open(self, number: int) -> bool:
        job = self.jobs[number]
        limited = job.limited and self.limit_used >= self.limit
        return not (job.stopped or job.deleted or limited) and self._may_run_more(number)

    def _clean(self, number: int, at: int, frame: Frame) -> bool:
        """It waits, and there is nothing in its past that would let it wait longer."""
        return frame.state == "WAITING" and not frame.failed and not self._dying(number, at)

    def _may_run_more(self, number: int) -> bool:
        most = self.jobs[number].max_running
        return not most or sum(k.job == number and not a.orphan for k, a in self.attempts.items()) < most

    def _dying(self, number: int, at: int) -> bool:
        return any(a.orphan and (k.job, k.frame) == (number, at) for k, a in self.attempts.items())

    def _linked(self, link: int) -> str | None:
        return next((name for name, slave in self.slaves.items() if slave.link == link), None)

    def _told(self, link: int) -> set[AttemptKey]:
        name = self._linked(link)
        return set() if name is None else self.slaves[name].told

    def used(self, name: str) -> int:
        """Cores that are taken of a slave."""
        return sum(attempt.cores for attempt in self.attempts.values() if attempt.slave == name)

    @property
    def limit_used(self) -> int:
        """How many attempts have a place in the limit."""
        return sum(attempt.limited for attempt in self.attempts.values())

    # -- clients ----------------------------------------------------------------------------------------

    def submit(self, job: Job) -> tuple[int, bool]:
        """The number that a submission must be answered with, and whether it was there before."""
        if job.token in self.tokens:
            return self.tokens[job.token], True
        number = self.tokens[job.token] = self.next_job
        self.next_job += 1
        self.jobs[number] = job
        return number, False

    def job_verb(self, number: int, verb: str) -> None:
        """A verb on a job."""
        job = self.jobs[number]
        live = [a for k, a in self.attempts.items() if k.job == number and not a.orphan]
        match verb:
            case "stop" | "hard-stop" if not job.finished:
                job.stopped = True
                for attempt in live if verb == "hard-stop" else ():
                    attempt.stop = attempt.stop or "hard-stop"
            case "continue":
                job.stopped = False
            case "delete":
                job.deleted = True
                for attempt in live:
                    attempt.stop = "delete"
            case "rerun":
                for attempt in live:
                    attempt.again, attempt.stop = True, attempt.stop or "rerun"
                for frame in job.frames:
                    self._goes(frame, frame.state if frame.state == "LIVE" else "WAITING", fresh=True)
            case _:
                assert verb in ("stop", "hard-stop"), verb

    def frame_verb(self, number: int, verb: str, indexes: Iterable[int], now: bool) -> None:
        """A verb on frames."""
        for at in indexes:
            frame = self.jobs[number].frames[at]
            attempt = self._live(number, at)
            if attempt is None:
                if verb == "requeue" and frame.state in ("DONE", "FAILED"):
                    self._goes(frame, "WAITING", fresh=True)
                elif verb == "finish":
                    frame.state, frame.not_before = "DONE", 0.0
            elif verb == "kill":
                attempt.stop = "kill"
            elif verb == "requeue":
                attempt.again = True
                if now:
                    attempt.stop = "requeue"
            else:
                attempt.orphan, attempt.stop, frame.state = True, "finish", "DONE"

    def _live(self, number: int, at: int) -> Attempt | None:
        keys = self.attempts.items()
        return next((a for k, a in keys if (k.job, k.frame) == (number, at) and not a.orphan), None)

    @staticmethod
    def _goes(frame: Frame, state: str, *, fresh: bool = False) -> None:
        frame.state, frame.not_before = state, 0.0
        if fresh:
            frame.requeued, frame.failed = 0, False

    def declares_dead(self, name: str) -> None:
        """An operator vouches that it runs nothing."""
        for attempt in self._of(name):
            self._over(attempt, Exit(reason="lost"))

    # -- slaves -----------------------------------------------------------------------------------------

    def links(
        self, link: int, name: str, cores: int, running: set[AttemptKey], ended: set[AttemptKey]
    ) -> bool:
        """A slave says Hello with all it holds; False where another is linked in its name."""
        slave = self.slaves.setdefault(name, Slave(cores))
        if slave.link is not None:
            return False
        slave.link, slave.heard, slave.greeted, slave.told = link, self.now, True, set(ended)
        mine = {attempt.key for attempt in self._of(name)}
        self.stale += [(link, key) for key in running - mine]
        for attempt in self._of(name):
            if attempt.key not in running | ended:
                self._over(attempt, Exit(reason="lost"))
        return True

    def unlinks(self, link: int, heard: float) -> None:
        """A link is gone; it was last heard over it then."""
        name = self._linked(link)
        if name is not None:
            self.slaves[name].link, self.slaves[name].heard = None, min(heard, self.now)

    def _of(self, name: str) -> list[Attempt]:
        return [attempt for attempt in self.attempts.values() if attempt.slave == name]

    def started_one(self, link: int, key: AttemptKey) -> None:
        """A slave says that an attempt runs."""
        attempt = self.attempts.get(key)
        if attempt is not None and attempt.slave == self._linked(link):
            attempt.running = True

    def exited(self, link: int, key: AttemptKey, result: Exit) -> None:
        """A slave says that an attempt is over: it counts where that attempt lives on this very slave."""
        name = self._linked(link)
        if name is None:
            return
        self.reported.append((link, key))
        attempt = self.attempts.get(key)
        if attempt is not None and attempt.slave == name:
            self._over(attempt, result)

    def _over(self, attempt: Attempt, result: Exit) -> None:
        del self.attempts[attempt.key]
        if attempt.orphan:
            return
        job = self.jobs[attempt.key.job]
        frame = job.frames[attempt.key.frame]
        well = result.code == 0 and not result.reason
        if attempt.again or attempt.stop == "requeue":
            self._goes(frame, "WAITING", fresh=True)
        elif well:
            self._goes(frame, "DONE")
        elif attempt.stop == "hard-stop":
            self._goes(frame, "WAITING")
        elif attempt.stop == "kill":
            self._tries_again(job, frame)
        elif result.reason in NOBODYS:
            self._goes(frame, "WAITING")
        elif self._tries_again(job, frame):
            frame.failed = True
            pause = BACKOFF_FIRST_S * 2.0 ** (frame.requeued - 1)
            frame.not_before = self.now + min(pause, BACKOFF_MOST_S)

    def _tries_again(self, job: Job, frame: Frame) -> bool:
        if frame.requeued >= job.retries:
            self._goes(frame, "FAILED")
            return False
        self._goes(frame, "WAITING")
        frame.requeued += 1
        return True

    # -- the master -------------------------------------------------------------------------------------

    def stops_well(self, grant_s: float) -> None:
        """It ends in good order, and grants slaves so much time."""
        self.stopping = True
        self.kept_grant_s = max(grant_s, self.granted_s)

    def dies(self, now: float) -> None:
        """It is killed and starts again: it knows what it committed, and no link."""
        self.now = self.started = now
        self.stopping, self.granted_s = False, self.kept_grant_s
        for slave in self.slaves.values():
            slave.link, slave.greeted, slave.heard = None, False, now
        for attempt in self.attempts.values():
            attempt.running = False
        for job in self.jobs.values():
            for frame in job.frames:
                frame.not_before = 0.0
