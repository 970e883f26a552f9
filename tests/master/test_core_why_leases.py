"""What a frame that may run out of reach waits for, and until when, in every case of a lease (P4).

Of jobs that came back with a backup tells test_core_holdback.
"""

from typing import Any

import pytest

from drqueue.proto.views import Reason
from tests.builders import CoreFarm, a_job

DAY = 86400.0
AWAY = "may still run on slave s1, which cannot be reached: it"
DEAD = "or when it is declared dead"


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def frame_out_of_reach(farm: CoreFarm, **job: Any) -> None:
    link = farm.link()
    farm.submit(a_job("1", **job))
    farm.unlink(link)


def reason_of(farm: CoreFarm, number: int | None = 1) -> Reason:
    """The only one; that it tells when it is over is held against what then happens."""
    (reason,) = farm.why(0, number)
    assert (reason.code, reason.name, reason.count) == ("unreachable", "s1", 1)
    return reason


def over_then(farm: CoreFarm, reason: Reason) -> None:
    """It waits no longer for that at the time that was told, and not before."""
    farm.wait(reason.until_at - farm.core.turn.wall - 1)
    assert farm.codes(0, 1) == ["unreachable"]
    farm.wait(2)
    assert "unreachable" not in farm.codes(0, 1)


def test_a_lease(farm: CoreFarm) -> None:
    frame_out_of_reach(farm, lease_s=1000.0)
    reason = reason_of(farm)
    assert reason.text == f"it {AWAY} goes elsewhere when that slave's lease ends, in 19 min, {DEAD}"
    assert reason_of(farm, None).text == (
        f"nothing waits, but 1 frame may run out of reach; of frame 1: {reason.text}"
    )
    over_then(farm, reason)


@pytest.mark.parametrize("granted", [60.0, DAY])
def test_a_lease_that_a_master_stretched_as_it_stopped(farm: CoreFarm, granted: float) -> None:
    farm.link()
    farm.submit(a_job("1", lease_s=1000.0))
    farm.stop_well(granted)
    reason = reason_of(farm)
    lasts = max(granted, 1000.0) * 1.01 + 120
    assert reason.until_at == pytest.approx(farm.core.turn.wall + lasts)
    over_then(farm, reason)


def test_requeue_fast(farm: CoreFarm) -> None:
    frame_out_of_reach(farm, on_unreachable="requeue-fast")
    reason = reason_of(farm)
    assert reason.text == (
        f"it {AWAY} goes elsewhere when that slave was silent for long enough, by its job's requeue-fast, "
        f"in 60 s, {DEAD}"
    )
    over_then(farm, reason)


@pytest.mark.parametrize("number", [None, 1])
def test_hold_waits_for_an_operator(farm: CoreFarm, number: int | None) -> None:
    frame_out_of_reach(farm, on_unreachable="hold")
    farm.wait(10 * DAY)
    reason = reason_of(farm, number)
    assert reason.until_at == 0
    assert reason.text.endswith(
        f"it {AWAY} goes elsewhere only when that slave is declared dead, for its job says to hold on to it"
    )
    farm.slave_verb("s1", "declare-dead")
    assert "unreachable" not in farm.codes(0, number)


@pytest.mark.parametrize("number", [None, 1])
def test_an_earlier_attempt_that_was_being_stopped_there(farm: CoreFarm, number: int | None) -> None:
    """The frame waits, and nothing runs of it that anybody wants; but it may run still."""
    link = farm.link()
    farm.submit(a_job("1", lease_s=1000.0))
    farm.change(frames="1-2")
    farm.change(chunk=2)
    assert farm.codes(0, number) == ["ending"]
    farm.unlink(link)
    farm.link("other")
    reason = reason_of(farm, number)
    which = "of frame 1: " if number is None else ""
    assert reason.text == (
        f"{which}an earlier attempt at it {AWAY} starts when that slave's lease ends, in 19 min, {DEAD}"
    )
    over_then(farm, reason)


def test_of_several_earlier_attempts_the_one_that_lasts_longest_counts(farm: CoreFarm) -> None:
    """Nothing starts before all are over."""
    farm.link("s1", cores=1)
    farm.submit(a_job("1-2"))
    farm.change(on_unreachable="hold")
    for link in (farm.link("s2", cores=1), 1):
        farm.unlink(link)
    farm.change(chunk=2)
    (reason,) = farm.why(0, 1)
    assert (reason.code, reason.name, reason.until_at) == ("unreachable", "s2", 0)
    (reason,) = farm.why()
    assert (reason.code, reason.name) == ("unreachable", "s1")
    farm.wait(DAY)
    assert [each.name for each in (*farm.why(0, 1), *farm.why())] == ["s2", "s2"]
