"""Walking the table `verbs.toml`: jobs are brought into its states by the binding's own calls, over any farm.

Rules: a farm for this (`World`) has one slave with room for all frames. Jobs go through each phase together,
so that a real farm is waited for once a phase. Frame 1 is the one that the table is about; frame 2 makes the
job what the row wants it to be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import drqueue
from tests.binding.verbs import Row, State, Verb, make

C = drqueue.CLIENT
#: Frame 1 and frame 2.
IT, OTHER = 1, 2


class World(Protocol):
    """A farm with one slave."""

    #: Whether all stays as it is until the test goes on; else runs that are killed end by themselves.
    still: bool
    first_slave: str

    def send(self) -> drqueue.job:
        """A new job of two frames, each of whose runs goes on until it is ended."""

    def hold(self) -> None:
        """Let no more frames be handed out."""

    def end(self, job: drqueue.job, number: int) -> None:
        """A run ends by itself, well."""

    def end_killed(self, job: drqueue.job, number: int) -> None:
        """A run that the slave was told to kill is over."""

    def killed(self, job: drqueue.job, number: int) -> bool:
        """Whether the slave was told to kill the run of that frame; True where that cannot be seen."""

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Return once this holds."""


@dataclass
class Case:
    """One row, and the job that goes through it."""

    verb: Verb
    row: Row
    job: drqueue.job

    @property
    def what(self) -> str:
        return f"{self.verb.name} at {self.row.before.job}/{self.row.before.frame} {self.row.before.requeued}"

    def info(self, number: int) -> drqueue.frame_info | None:
        info = drqueue.frame_info()
        return info if drqueue.request_job_frame_info(self.job.id, number, info, C) else None

    def state(self) -> State:
        """How it stands, as the binding shows it."""
        fresh = drqueue.job()
        if not drqueue.request_job_xfer(self.job.id, fresh, C):
            return State("gone")
        status = drqueue.job_status_string(fresh.status).upper()
        info = self.info(IT)
        if info is None:
            return State(status)
        flag = bool(info.flags & drqueue.FF_REQUEUE)
        return State(status, frame_name(info.status), info.requeued, flag=flag)

    def runs(self, number: int, requeued: int) -> bool:
        info = self.info(number)
        return (
            info is not None
            and (info.status, info.requeued) == (drqueue.FS_ASSIGNED, requeued)
            and info.itask != 65535
        )

    def is_(self, number: int, frame: str) -> bool:
        info = self.info(number)
        return info is not None and frame_name(info.status) == frame


def frame_name(status: int) -> str:
    """The name of a frame's status in the table."""
    return {
        drqueue.FS_WAITING: "WAITING",
        drqueue.FS_ASSIGNED: "ASSIGNED",
        drqueue.FS_ERROR: "ERROR",
        drqueue.FS_FINISHED: "FINISHED",
    }[status]


def walk(world: World, verbs: Sequence[Verb], *, by_method: bool = False) -> None:
    """Take a job through every row of these verbs; an AssertionError names those that are otherwise."""
    cases = [Case(verb, row, world.send()) for verb in verbs for row in verb.rows]
    _bring(world, cases)
    wrong = []
    for case in cases:
        wanted = State(case.row.before.job, case.row.before.frame, case.row.before.requeued)
        if (found := case.state()) != wanted:
            wrong.append(f"{case.what}: it could not be brought there, but is {found}")
    for case in cases:
        if case.verb.first:
            assert make(case.verb.first, case.job, world.first_slave) == 1
        call = case.verb.method if by_method else case.verb.call
        if make(call, case.job, world.first_slave) != 1:
            wrong.append(f"{case.what}: {call} did not return 1")
        wrong += _after(world, case)
    for case in cases:
        if case.row.before.frame == "ASSIGNED" and not case.row.after.killed:
            world.end(case.job, IT)
        elif case.row.after.killed:
            world.end_killed(case.job, IT)
    wrong += _then(world, [case for case in cases if case.row.then is not None])
    assert not wrong, "\n".join(wrong)


def _bring(world: World, cases: list[Case]) -> None:
    """Bring all jobs into the states before the call."""
    for case in cases:
        for number in (IT, OTHER):
            world.until(f"{case.what}: it runs", partial(case.runs, number, 0))
    for count in (1, 2, 3):
        again = [case for case in cases if case.row.before.requeued >= count]
        again = [case for case in again if case.row.before.frame != "WAITING"]
        _kill(world, again, IT)
        for case in again:
            world.until(f"{case.what}: it runs again", partial(case.runs, IT, count))
    failing = [case for case in cases if case.row.before.frame == "ERROR"]
    _kill(world, failing, IT)
    _rest(world, failing, IT, "ERROR")
    world.hold()
    waiting = [case for case in cases if case.row.before.frame == "WAITING"]
    _kill(world, waiting, IT)
    _rest(world, waiting, IT, "WAITING")
    _end(world, [case for case in cases if case.row.before.frame == "FINISHED"], IT)
    # The other frame runs where the job is to be active by it, and is done where the job is to be finished.
    _end(world, [case for case in cases if case.row.before.job == "FINISHED"], OTHER)
    idle = [
        case
        for case in cases
        if case.row.before.job in ("WAITING", "STOPPED")
        or (case.row.before.job == "ACTIVE" and case.row.before.frame == "ASSIGNED")
    ]
    _kill(world, idle, OTHER)
    _rest(world, idle, OTHER, "WAITING")
    for case in cases:
        if case.row.before.job == "STOPPED":
            assert drqueue.request_job_stop(case.job.id, C) == 1


def _kill(world: World, cases: list[Case], number: int) -> None:
    for case in cases:
        assert drqueue.request_job_frame_kill(case.job.id, number, C) == 1
    for case in cases:
        world.end_killed(case.job, number)


def _end(world: World, cases: list[Case], number: int) -> None:
    for case in cases:
        world.end(case.job, number)
    _rest(world, cases, number, "FINISHED")


def _rest(world: World, cases: list[Case], number: int, frame: str) -> None:
    for case in cases:
        world.until(f"{case.what}: {frame}", partial(case.is_, number, frame))


def _after(world: World, case: Case) -> list[str]:
    """What is wrong right after the call."""
    wanted, wrong = case.row.after, []
    if world.still:
        if world.killed(case.job, IT) != wanted.killed:
            wrong.append(f"{case.what}: {'not ' if wanted.killed else ''}killed")
        found = case.state()
        if found != State(wanted.job, wanted.frame, wanted.requeued, flag=wanted.flag):
            wrong.append(f"{case.what}: {found} after the call")
    elif not wanted.killed:
        found = case.state()
        # A rerun kills the job's other frame, too, which may be over by now.
        ended = replace(wanted, job="WAITING") if case.verb.name == "rerun" else wanted
        if found not in (wanted, ended if wanted.job == "ACTIVE" else wanted):
            wrong.append(f"{case.what}: {found} after the call")
    if wanted.job != "gone":
        wrong += _shown(world, case)
    return wrong


def _shown(world: World, case: Case) -> list[str]:
    """What of the job is not as it was set."""
    job = drqueue.job()
    assert drqueue.request_job_xfer(case.job.id, job, C) == 1
    wrong = []
    for name, wanted in case.verb.shows.items():
        if name == "blocked":
            found: object = [host.name for host in drqueue.request_job_list_blocked_host(job.id, C)]
            wanted = [world.first_slave for _ in wanted]
        else:
            owner, _, field = name.rpartition("__")
            found = getattr(getattr(job, owner) if owner else job, field)
        if found != wanted:
            wrong.append(f"{case.what}: {name} is {found}, not {wanted}")
    return wrong


def _then(world: World, cases: list[Case]) -> list[str]:
    """What is wrong once the runs are over."""
    others = cases

    def all_there() -> bool:
        nonlocal others
        others = [case for case in others if case.state() != case.row.then]
        return not others

    try:
        world.until("all runs are over", all_there)
    except AssertionError:
        return [f"{case.what}: {case.state()} in the end, not {case.row.then}" for case in others]
    return []
