"""What the checks share: their register, the farm that they run on, and what they do over and over.

A check is a function decorated with `@checks(NAME)`: it calls that name of the binding and asserts what the
table records. One that takes a `Bench` runs against a real farm; it leaves the slaves as it found them, its
jobs are deleted for it. No check sleeps: what takes its time is waited for, with a deadline.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drqueue
from tests.e2e.helpers import wait_until

C = drqueue.CLIENT
UNKNOWN = 4_000_000_000
"""The id of a job and of a computer that nobody has."""
LONG = "exec sleep 600"
"""A command that only its killing ends."""

Check = Callable[..., None]
CHECKS: dict[str, list[Check]] = {}


def checks(name: str) -> Callable[[Check], Check]:
    """Register a check of that name; "class.method" for methods."""

    def register(check: Check) -> Check:
        CHECKS.setdefault(name, []).append(check)
        return check

    return register


class Bench:
    """A farm of two slaves, s1 and s2, of two cores each; the binding talks to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def job(self, cmd: str = "true", start: int = 1, end: int = 1, **fields: Any) -> drqueue.job:
        """Submit a job; `fields` are those of `job` and, where it has none of that name, of its limits."""
        made = self.unsent(cmd, start, end, **fields)
        assert drqueue.register_job(made) == 1, drqueue.last_error()
        return made

    def unsent(self, cmd: str = "true", start: int = 1, end: int = 1, **fields: Any) -> drqueue.job:
        """The same, not submitted."""
        made = drqueue.job()
        made.name, made.cmd, made.frame_start, made.frame_end = "check", cmd, start, end
        for name, value in fields.items():
            setattr(made.limits if name in drqueue.job_limits.fields else made, name, value)
        return made

    def waiting_job(self, start: int = 1, end: int = 1, **fields: Any) -> drqueue.job:
        """Submit a job of which nothing runs: there is no computer in its pool."""
        return self.job("true", start, end, **{"pool": "nowhere", **fields})

    def running_job(self, start: int = 1, end: int = 1, cmd: str = LONG, **fields: Any) -> drqueue.job:
        """Submit a job, and return once all its frames run, or the first `nmaxcpus` of them."""
        made = self.job(cmd, start, end, **fields)
        count = drqueue.job_nframes(made)
        running = min(count, fields.get("nmaxcpus", count))
        wanted = [drqueue.FS_ASSIGNED] * running + [drqueue.FS_WAITING] * (count - running)
        self.until_frames(made, wanted, loaded=True)
        return made

    def gated_job(self, start: int = 1, end: int = 1, **fields: Any) -> tuple[drqueue.job, Path]:
        """The same with frames that end once the file returned exists."""
        gate = self.folder / f"gate{next(self._numbers)}"
        return self.running_job(start, end, f"until test -e {gate}; do sleep 0.05; done", **fields), gate

    def fresh(self, job: drqueue.job) -> drqueue.job:
        """The job as the master knows it now."""
        found = drqueue.job()
        assert drqueue.request_job_xfer(job.id, found, C) == 1, drqueue.last_error()
        return found

    def frames(self, job: drqueue.job) -> list[drqueue.frame_info]:
        """The job's frames as the master knows them now."""
        found = [drqueue.frame_info() for _ in range(drqueue.job_nframes(job))]
        assert drqueue.request_job_xferfi(job.id, found, len(found), C) == 1, drqueue.last_error()
        return found

    def until_status(self, job: drqueue.job, status: int) -> drqueue.job:
        """The job, once it has that status."""

        def look() -> drqueue.job | None:
            found = self.fresh(job)
            return found if found.status == status else None

        return wait_until(f"job {job.id} is {drqueue.job_status_string(status)}", look)

    def until_frames(
        self, job: drqueue.job, wanted: list[int], *, loaded: bool = False
    ) -> list[drqueue.frame_info]:
        """The job's frames, once they have these statuses (`loaded`: and those that run have a task)."""

        def look() -> list[drqueue.frame_info] | None:
            found = self.frames(job)
            right = [frame.status for frame in found] == wanted
            return found if right and not (loaded and any(f.itask == 65535 for f in found)) else None

        return wait_until(f"frames of job {job.id} as {wanted}", look)

    def computer(self, name: str = "s1") -> drqueue.computer:
        """The computer of that name as the master knows it now."""
        (found,) = (each for each in drqueue.request_computer_list(C) if each.hwinfo.name == name)
        return found

    def until_computer(
        self, what: str, holds: Callable[[drqueue.computer], object], name: str = "s1"
    ) -> drqueue.computer:
        """The computer, once that holds: the master hears from a slave what it was told directly."""

        def look() -> drqueue.computer | None:
            found = self.computer(name)
            return found if holds(found) else None

        return wait_until(what, look)

    def pools(self, name: str = "s1") -> list[str]:
        """The names of a computer's pools."""
        return [pool.name for pool in self.computer(name).list_pools()]
