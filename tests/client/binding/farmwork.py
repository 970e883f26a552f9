"""What tests of the binding on a real farm share: jobs, and conditions to wait for."""

from collections.abc import Callable

import drqueue as d
from tests.e2e.helpers import wait_until

C = d.CLIENT


def sent(cmd: str = "true", end: int = 1, **values: object) -> d.job:
    """A job on the farm; `limits__pool` sets the pool of its limits."""
    made = d.job()
    made.name, made.cmd, made.frame_end, made.owner = "binding", cmd, end, "ann"
    for name, value in values.items():
        inner, _, field = name.rpartition("__")
        setattr(getattr(made, inner) if inner else made, field, value)
    assert made.send_to_queue() == 1
    return made


def once(what: str, job: d.job, **wanted: int) -> d.job:
    """The job, updated, once its attributes are these."""

    def look() -> bool:
        job.update(C)
        return {name: getattr(job, name) for name in wanted} == wanted

    wait_until(f"{what}: {wanted}", look)
    return job


def frames(job: d.job) -> list[d.frame_info]:
    return job.request_frame_list(C)


def running(job: d.job, count: int) -> d.job:
    """The job, updated, once so many of its frames run on slaves."""

    def look() -> bool:
        return sum(each.status == d.FS_ASSIGNED and each.itask != 65535 for each in frames(job)) == count

    wait_until(f"{count} frames run", look)
    return once("runs", job, nprocs=count)


def known(what: str, each: d.computer, holds: Callable[[], bool]) -> None:
    """Return once the master knows something of a computer."""

    def look() -> bool:
        each.update(C)
        return holds()

    wait_until(what, look)


def computers() -> dict[str, d.computer]:
    return {each.hwinfo.name: each for each in d.request_computer_list(C)}
