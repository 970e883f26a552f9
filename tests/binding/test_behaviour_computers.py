"""Computers: enabled and disabled, by hand and by the time of day; their pools."""

import time
from collections.abc import Iterator
from pathlib import Path

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
CLOCK = Path(__file__).with_name("shifted_day.py")
#: Far below the ten and fifteen seconds that the original needed; a machine may be busy.
AT_ONCE_S = 5.0


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with a_farm(tmp_path_factory.mktemp("computers") / "farm", ["s1"], cores=2) as farm:
        yield farm


@pytest.fixture(autouse=True)
def _cleared(farm: Farm) -> Iterator[None]:
    yield
    clear()


@pytest.fixture
def computer(farm: Farm) -> drqueue.computer:
    return the_computer()


def the_computer(name: str = "s1") -> drqueue.computer:
    return next(each for each in drqueue.request_computer_list(C) if each.hwinfo.name == name)


def pools(computer: drqueue.computer) -> list[str]:
    computer.update(C)
    assert computer.limits.npools == len(computer.list_pools())
    assert [computer.limits.get_pool(n).name for n in range(computer.limits.npools)] == [
        pool.name for pool in computer.list_pools()
    ]
    return [pool.name for pool in computer.list_pools()]


# -- enabled ------------------------------------------------------------------------------------------------


def test_disable_lets_running_frames_run_and_hands_out_none(computer: drqueue.computer, gated: Gated) -> None:
    job, gates = gated(4)
    until_frames(job, [ASSIGNED, ASSIGNED, WAITING, WAITING])
    computer.request_disable(C)
    eventually("the master knows", lambda: the_computer().limits.enabled == 0)
    assert statuses(job) == [ASSIGNED, ASSIGNED, WAITING, WAITING]
    gates.end_all()
    until_frames(job, [FINISHED, FINISHED, WAITING, WAITING])
    computer.request_enable(C)
    assert until_finished(job).fdone == 4


def test_enabling_takes_effect_at_once(computer: drqueue.computer) -> None:
    """No poll is waited for: neither by the master, to see it, nor by the frames, to start."""
    computer.request_disable(C)
    began = time.monotonic()
    eventually("the master knows", lambda: the_computer().limits.enabled == 0)
    assert time.monotonic() - began < AT_ONCE_S
    job = sent(a_job("true"))
    assert drqueue.request_slave_limits_enabled_set("s1", 1, C) == 1
    began = time.monotonic()
    until_finished(job)
    assert time.monotonic() - began < AT_ONCE_S


def test_only_the_computer_that_is_named_is_disabled(farm: Farm, computer: drqueue.computer) -> None:
    other = farm.add_slave("other", cores=1)
    farm.ready()
    try:
        computer.request_disable(C)
        eventually("the master knows", lambda: the_computer().limits.enabled == 0)
        assert the_computer("other").limits.enabled == 1
        job = sent(a_job("true"))
        assert until_finished(job).request_frame_list(C)[0].icomp == the_computer("other").hwinfo.id
    finally:
        computer.request_enable(C)
        other.end()
    eventually("it is gone", lambda: drqueue.request_slavexit(the_computer("other").hwinfo.id, C))
    assert [each.hwinfo.name for each in drqueue.request_computer_list(C)] == ["s1"]


def test_a_computer_that_cannot_be_reached_raises(computer: drqueue.computer) -> None:
    computer.hwinfo.name = "unheard-of"
    for call in (computer.request_enable, computer.request_disable):
        with pytest.raises(IOError, match=r"^Structure \(job,computer,task\.\.\.\) not registered"):
            call(C)
    assert drqueue.request_slave_limits_enabled_set("unheard-of", 0, C) == 0
    assert the_computer().limits.enabled == 1


def test_a_limit_on_processors_lets_running_frames_run(gated: Gated) -> None:
    job, gates = gated(3)
    until_frames(job, [ASSIGNED, ASSIGNED, WAITING])
    assert drqueue.request_slave_limits_nmaxcpus_set("s1", 1, C) == 1
    eventually("the master knows", lambda: the_computer().limits.nmaxcpus == 1)
    assert statuses(job) == [ASSIGNED, ASSIGNED, WAITING]
    gates.end(1)
    until_frames(job, [FINISHED, ASSIGNED, WAITING])
    gates.end(2)
    until_frames(job, [FINISHED, FINISHED, ASSIGNED])
    assert drqueue.request_slave_limits_nmaxcpus_set("s1", 2, C) == 1
    gates.end(3)
    until_finished(job)


def test_load_keeps_frames_away() -> None:
    """At a limit of 0 no machine is idle enough; 65535 is no limit."""
    assert drqueue.request_slave_limits_maxfreeloadcpu_set("s1", 0, C) == 1
    eventually("the master knows", lambda: the_computer().limits.maxfreeloadcpu == 0)
    job = sent(a_job("true"))
    assert fresh(job).status == drqueue.JOBSTATUS_WAITING
    assert drqueue.request_slave_limits_maxfreeloadcpu_set("s1", 65535, C) == 1
    until_finished(job)
    assert the_computer().limits.maxfreeloadcpu == 65535


# -- autoenable ---------------------------------------------------------------------------------------------


def test_autoenable_is_set_and_read(computer: drqueue.computer) -> None:
    """Hours and minutes beyond a day's are taken modulo; without the flag it is off."""
    for h, m, wanted in ((6, 30, (6, 30)), (25, 61, (1, 1))):
        assert drqueue.request_slave_limits_autoenable_set("s1", h, m, drqueue.AEF_ACTIVE, C) == 1
        eventually(
            "the master knows",
            lambda wanted=wanted: autoenable() == (*wanted, drqueue.AEF_ACTIVE),  # type: ignore[misc]
        )
    assert drqueue.request_slave_limits_autoenable_set("s1", 6, 30, 0, C) == 1
    eventually("the master knows", lambda: autoenable() == (drqueue.AE_HOUR, drqueue.AE_MIN, 0))
    computer.update(C)
    assert computer.limits.enabled == 1


def autoenable() -> tuple[int, int, int]:
    found = the_computer().limits.autoenable
    return found.h, found.m, found.flags


def test_a_disabled_computer_enables_itself_at_its_time(farm: Farm, tmp_path: Path) -> None:
    """The slave's clock is set forward over that minute: it need not be met exactly."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    name = "sleeper"
    sleeper = farm.add_slave(name, run=[str(CLOCK), str(offset)])
    farm.ready()
    try:
        due = time.localtime(time.time() + 7200)
        active = drqueue.AEF_ACTIVE
        assert drqueue.request_slave_limits_autoenable_set(name, due.tm_hour, due.tm_min, active, C) == 1
        the_computer(name).request_disable(C)
        eventually("the master knows", lambda: the_computer(name).limits.enabled == 0)
        until_finished(sent(a_job("true")))
        assert the_computer(name).limits.enabled == 0
        fresh_offset = tmp_path / "offset.new"
        fresh_offset.write_text(str(3 * 3600))
        fresh_offset.rename(offset)
        eventually("it enables itself", lambda: the_computer(name).limits.enabled == 1)
    finally:
        sleeper.end()


# -- pools --------------------------------------------------------------------------------------------------


def test_add_and_remove_pools(computer: drqueue.computer) -> None:
    assert pools(computer) == ["Default"]
    assert computer.add_pool("fast", C) is None  # type: ignore[func-returns-value]
    eventually("the master knows", lambda: pools(computer) == ["Default", "fast"])
    computer.add_pool("fast", C)
    computer.remove_pool("Default", C)
    eventually("the master knows", lambda: pools(computer) == ["fast"])
    with pytest.raises(IndexError, match=r"^Index out of range$"):
        computer.limits.get_pool(1)
    computer.add_pool("Default", C)
    computer.remove_pool("fast", C)
    eventually("the master knows", lambda: pools(computer) == ["Default"])


def test_remove_a_pool_that_it_is_not_in(computer: drqueue.computer) -> None:
    with pytest.raises(IOError, match="not registered"):
        computer.remove_pool("unheard-of", C)
    assert pools(computer) == ["Default"]


def test_set_pools_makes_them_exactly_these(computer: drqueue.computer, gated: Gated) -> None:
    """One that was there before stays; the original dropped it."""
    computer.add_pool("old", C)
    eventually("the master knows", lambda: pools(computer) == ["Default", "old"])
    wanted = [drqueue.pool("new"), drqueue.pool("old")]
    found = computer.set_pools(wanted)
    assert [pool.name for pool in found] == ["new", "old"]
    eventually("the master knows", lambda: sorted(pools(computer)) == ["new", "old"])
    job, _ = gated(1, limits__pool="new")
    until_runs(job, 1)
    assert drqueue.request_job_delete(job.id, C) == 1
    computer.set_pools([drqueue.pool("Default")])
    eventually("the master knows", lambda: pools(computer) == ["Default"])


@pytest.mark.parametrize("pools", [None, "Default", (drqueue.pool("a"),), {}])
def test_set_pools_wants_a_list(computer: drqueue.computer, pools: object) -> None:
    with pytest.raises(ValueError, match=r"^Expecting a list$"):
        computer.set_pools(pools)  # type: ignore[arg-type]


def test_pools_by_the_limits_of_a_computer(computer: drqueue.computer) -> None:
    """Methods of `computer.limits` go by a name that is given."""
    assert computer.limits.pool_add("s1", "night", C) is None  # type: ignore[func-returns-value]
    eventually("the master knows", lambda: pools(computer) == ["Default", "night"])
    assert computer.limits.pool_remove("s1", "night", C) is None  # type: ignore[func-returns-value]
    eventually("the master knows", lambda: pools(computer) == ["Default"])
    with pytest.raises(OSError, match="not registered"):
        computer.limits.pool_add("unheard-of", "night", C)
