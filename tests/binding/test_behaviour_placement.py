"""Which frames are handed out, and where to: dependencies, a job's limits, and what it asks of a computer."""

from collections.abc import Callable, Iterator

import pytest

import drqueue
from tests.binding.conftest import Gated
from tests.binding.farm import (
    C,
    Farm,
    a_farm,
    a_job,
    clear,
    eventually,
    fresh,
    sent,
    statuses,
    until_finished,
    until_frames,
    until_runs,
)

pytestmark = pytest.mark.slow
WAITING, ASSIGNED, FINISHED = drqueue.FS_WAITING, drqueue.FS_ASSIGNED, drqueue.FS_FINISHED


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two computers of three processors; the one of 4000 MB, not that of 1000, is in another pool, too."""
    with a_farm(tmp_path_factory.mktemp("placement") / "farm", []) as farm:
        farm.add_slave("small", cores=3, memory_mb=1000)
        farm.add_slave("big", cores=3, memory_mb=4000, env={"DRQUEUE_POOLS": "Default,special"})
        yield farm.ready()


@pytest.fixture(autouse=True)
def _cleared(farm: Farm) -> Iterator[None]:
    yield
    clear()


def computers() -> dict[str, drqueue.computer]:
    return {each.hwinfo.name: each for each in drqueue.request_computer_list(C)}


def places(job: drqueue.job) -> list[str]:
    """The computers of those frames that run, by name."""
    names = {each.hwinfo.id: name for name, each in computers().items()}
    infos = job.request_frame_list(C)
    return sorted(names[info.icomp] for info in infos if info.status == ASSIGNED)


# -- dependencies -------------------------------------------------------------------------------------------


def test_a_dependent_job_waits_and_is_released(gated: Gated) -> None:
    parent, gates = gated()
    child = sent(a_job("true", end=2, flags=drqueue.JF_JOBDEPEND, dependid=parent.id))
    until_runs(parent, 1)
    assert fresh(child).status == drqueue.JOBSTATUS_WAITING
    assert (child.fleft, child.nprocs) == (2, 0)
    assert (child.flags, child.dependid) == (drqueue.JF_JOBDEPEND, parent.id)
    gates.end(1)
    until_finished(parent)
    assert until_finished(child).fdone == 2


def test_a_parent_with_failed_frames_releases_too() -> None:
    parent = sent(a_job("exit 1", autoRequeue=0))
    child = sent(a_job("true", flags=drqueue.JF_JOBDEPEND, dependid=parent.id))
    assert until_finished(child).fdone == 1
    assert fresh(parent).ffailed == 1


def test_a_stopped_parent_holds_its_dependents_until_it_goes_on(gated: Gated) -> None:
    parent, gates = gated(7)
    child = sent(a_job("true", flags=drqueue.JF_JOBDEPEND, dependid=parent.id))
    until_frames(parent, [ASSIGNED] * 6 + [WAITING])
    assert parent.request_stop(C) == 1
    gates.end_all()
    until_frames(parent, [FINISHED] * 6 + [WAITING])
    # A job that came later and is done by now: there was time and room for the child, too.
    until_finished(sent(a_job("true")))
    assert statuses(child) == [WAITING]
    assert parent.request_continue(C) == 1
    until_finished(child)


def test_a_dependency_counts_only_with_its_flag(gated: Gated) -> None:
    parent, _ = gated()
    child = sent(a_job("true", dependid=parent.id))
    assert until_finished(child).fdone == 1
    assert fresh(parent).status == drqueue.JOBSTATUS_ACTIVE


def test_a_parent_that_does_not_exist_is_refused() -> None:
    """The original's job waited for ever, or for whatever job got that id later."""
    child = a_job("true", flags=drqueue.JF_JOBDEPEND, dependid=100_000)
    with pytest.raises(IOError, match="100000"):
        child.send_to_queue()


def test_a_deleted_parent_takes_its_dependents_along(gated: Gated) -> None:
    """The original's waited for ever."""
    parent, _ = gated()
    child = sent(a_job("true", flags=drqueue.JF_JOBDEPEND, dependid=parent.id))
    until_runs(parent, 1)
    assert parent.request_delete(C) == 1
    until_finished(child)
    assert (statuses(child), child.ffailed) == ([drqueue.FS_ERROR], 1)


# -- limits of a job ----------------------------------------------------------------------------------------


def test_nmaxcpus_limits_all_of_a_job(gated: Gated) -> None:
    job, gates = gated(4, limits__nmaxcpus=2)
    until_frames(job, [ASSIGNED, ASSIGNED, WAITING, WAITING])
    until_finished(sent(a_job("true")))
    assert statuses(job) == [ASSIGNED, ASSIGNED, WAITING, WAITING]
    assert (fresh(job).nprocs, job.limits.nmaxcpus) == (2, 2)
    gates.end(1)
    until_frames(job, [FINISHED, ASSIGNED, ASSIGNED, WAITING])
    assert drqueue.request_job_limits_nmaxcpus_set(job.id, 65535, C) == 1
    until_frames(job, [FINISHED, ASSIGNED, ASSIGNED, ASSIGNED])


def test_a_lower_limit_lets_running_frames_run(gated: Gated) -> None:
    job, gates = gated(4)
    until_frames(job, [ASSIGNED] * 4)
    assert drqueue.request_job_limits_nmaxcpus_set(job.id, 1, C) == 1
    assert fresh(job).nprocs == 4
    gates.end_all()
    assert until_finished(job).fdone == 4


def test_nmaxcpuscomputer_limits_each_computer(gated: Gated) -> None:
    job, _ = gated(4, limits__nmaxcpuscomputer=1)
    until_frames(job, [ASSIGNED, ASSIGNED, WAITING, WAITING])
    assert places(job) == ["big", "small"]
    until_finished(sent(a_job("true")))
    assert statuses(job) == [ASSIGNED, ASSIGNED, WAITING, WAITING]
    assert drqueue.request_job_limits_nmaxcpuscomputer_set(job.id, 2, C) == 1
    until_frames(job, [ASSIGNED] * 4)
    assert places(job) == ["big", "big", "small", "small"]


@pytest.mark.parametrize(
    "call", [drqueue.request_job_limits_nmaxcpus_set, drqueue.request_job_limits_nmaxcpuscomputer_set]
)
def test_a_limit_of_0_is_refused(call: Callable[[int, int, int], int], gated: Gated) -> None:
    """In the original the job never ran again; stop says so openly."""
    job, _ = gated()
    assert call(job.id, 0, C) == 0
    assert fresh(job).limits.nmaxcpus == 65535
    assert job.limits.nmaxcpuscomputer == 65535


# -- what a job asks of a computer --------------------------------------------------------------------------


def test_pool_filter(gated: Gated) -> None:
    job, _ = gated(4, limits__pool="special")
    until_frames(job, [ASSIGNED] * 3 + [WAITING])
    assert places(job) == ["big"] * 3
    until_finished(sent(a_job("true")))
    assert drqueue.request_job_limits_pool_set(job.id, drqueue.DEFAULT_POOL, C) == 1
    until_frames(job, [ASSIGNED] * 4)
    assert places(job) == ["big"] * 3 + ["small"]
    assert fresh(job).limits.pool == "Default"


def test_a_pool_that_nobody_is_in_waits_until_somebody_joins() -> None:
    job = sent(a_job("true", limits__pool="empty"))
    until_finished(sent(a_job("true")))
    assert fresh(job).status == drqueue.JOBSTATUS_WAITING
    assert drqueue.request_slave_limits_pool_add("small", "empty", C) == 1
    until_finished(job)
    assert drqueue.request_slave_limits_pool_remove("small", "empty", C) == 1
    assert drqueue.request_slave_limits_pool_remove("small", "empty", C) == 0


def test_memory_filter(gated: Gated) -> None:
    """The whole machine's memory counts, not what is free: three of 3000 MB run on one of 4000."""
    job, _ = gated(4, limits__memory=3000)
    until_frames(job, [ASSIGNED] * 3 + [WAITING])
    assert places(job) == ["big"] * 3
    until_finished(sent(a_job("true")))
    assert statuses(job)[3] == WAITING
    assert drqueue.request_job_limits_memory_set(job.id, 1000, C) == 1
    until_frames(job, [ASSIGNED] * 4)
    assert fresh(job).limits.memory == 1000


def test_os_filter() -> None:
    here = sent(a_job("true", limits__os_flags=drqueue.OSF_LINUX | drqueue.OSF_IRIX))
    assert until_finished(here).limits.os_flags == drqueue.OSF_LINUX | drqueue.OSF_IRIX
    elsewhere = sent(a_job("true", limits__os_flags=drqueue.OSF_OSX | drqueue.OSF_FREEBSD))
    anywhere = sent(a_job("true"))
    assert until_finished(anywhere).limits.os_flags == drqueue.OSF_ALL
    assert fresh(elsewhere).status == drqueue.JOBSTATUS_WAITING
    assert elsewhere.limits.os_flags == drqueue.OSF_OSX | drqueue.OSF_FREEBSD


def blocked(job: drqueue.job) -> list[str]:
    return [host.name for host in drqueue.request_job_list_blocked_host(job.id, C)]


def test_blocked_host_filter_by_id(gated: Gated) -> None:
    job, _ = gated(4, limits__pool="nowhere")
    assert drqueue.request_job_add_blocked_host(job.id, computers()["big"].hwinfo.id, C) == 1
    assert blocked(job) == ["big"]
    assert fresh(job).nblocked == 1
    assert drqueue.request_job_limits_pool_set(job.id, "Default", C) == 1
    until_frames(job, [ASSIGNED] * 3 + [WAITING])
    assert places(job) == ["small"] * 3
    assert drqueue.request_job_delete_blocked_host(job.id, 0, C) == 1
    until_frames(job, [ASSIGNED] * 4)
    assert places(job) == ["big"] + ["small"] * 3
    assert blocked(job) == []


def test_blocked_host_filter_by_name(gated: Gated) -> None:
    job, _ = gated(4, limits__pool="nowhere")
    assert drqueue.request_job_block_host_by_name(job.id, "small", C) == 1
    assert drqueue.request_job_block_host_by_name(job.id, "unheard-of", C) == 0
    assert drqueue.request_job_block_host_by_name(job.id, "big", C) == 1
    assert blocked(job) == ["small", "big"]
    assert drqueue.request_job_delete_blocked_host(job.id, 2, C) == 0
    assert drqueue.request_job_delete_blocked_host(job.id, 1, C) == 1
    assert blocked(job) == ["small"]
    assert drqueue.request_job_limits_pool_set(job.id, "Default", C) == 1
    until_frames(job, [ASSIGNED] * 3 + [WAITING])
    assert places(job) == ["big"] * 3
    assert drqueue.request_job_unblock_host_by_name(job.id, "small", C) == 1
    until_frames(job, [ASSIGNED] * 4)
    assert blocked(job) == []
    assert drqueue.request_job_unblock_host_by_name(job.id, "small", C) == 0


def test_blocking_lets_running_frames_run(gated: Gated) -> None:
    job, gates = gated(2)
    until_frames(job, [ASSIGNED] * 2)
    for name in ("small", "big"):
        assert drqueue.request_job_block_host_by_name(job.id, name, C) == 1
    assert statuses(job) == [ASSIGNED] * 2
    gates.end_all()
    assert until_finished(job).fdone == 2


@pytest.mark.parametrize("position", [0, 1, 7])
def test_a_position_that_there_is_not_unblocks_nothing(position: int, gated: Gated) -> None:
    job, _ = gated()
    assert drqueue.request_job_delete_blocked_host(job.id, position, C) == 0
    assert drqueue.request_job_add_blocked_host(job.id, 77, C) == 0


# -- order --------------------------------------------------------------------------------------------------


def test_a_higher_priority_goes_first(gated: Gated) -> None:
    """Whatever came first, with all of its frames; and a change of priority counts at once."""
    low, low_gates = gated(1, priority=10, limits__pool="later")
    middle, middle_gates = gated(2, priority=500, limits__pool="later")
    high, high_gates = gated(3, priority=100, limits__pool="later")
    assert drqueue.request_job_priority_update(high.id, 900, C) == 1
    assert running(high, middle, low) == (0, 0, 0)
    assert drqueue.request_slave_limits_pool_add("small", "later", C) == 1
    eventually("three run", lambda: sum(running(high, middle, low)) == 3)
    assert running(high, middle, low) == (3, 0, 0)
    for number, wanted in ((1, (2, 1, 0)), (2, (1, 2, 0)), (3, (0, 2, 1))):
        high_gates.end(number)
        eventually("the next one runs", lambda wanted=wanted: running(high, middle, low) == wanted)  # type: ignore[misc]
    assert fresh(high).priority == 900
    assert drqueue.request_slave_limits_pool_remove("small", "later", C) == 1
    for gates in (low_gates, middle_gates):
        gates.end_all()
    assert until_finished(middle).fdone == 2


def running(*jobs: drqueue.job) -> tuple[int, ...]:
    """How many frames of these jobs run."""
    return tuple(fresh(job).nprocs for job in jobs)


def test_jobs_of_the_same_priority_take_turns(gated: Gated) -> None:
    filler, gates = gated(6)
    until_frames(filler, [ASSIGNED] * 6)
    first, _ = gated(3)
    second, _ = gated(3)
    for number in (1, 2, 3, 4):
        gates.end(number)
    eventually("four run", lambda: fresh(first).nprocs + fresh(second).nprocs == 4)
    assert (first.nprocs, second.nprocs) == (2, 2)
