"""Which exits are successes, what is told and shown of a process, and orders that an older version kept."""

from pathlib import Path
from typing import Any

import pytest

from drqueue.proto.model import REASONS, Exit, ExitCodes, MachineInfo, MachineLoad, Offers, RunOrder
from drqueue.proto.rules import succeeded
from drqueue.proto.views import FrameView
from drqueue.slave.core.effects import Verify
from drqueue.slave.core.events import OutputsSeen, RegisteredAs, Unlinked, Verified
from drqueue.slave.core.orders import RECORDED_AFTER_S
from drqueue.slave.core.restore import restore
from drqueue.slave.journal import SPOOL, Journal
from drqueue.slave.offer import Offer
from drqueue.slave.spool import Spool
from drqueue.slave.view import slave_view
from tests.slave.core_bench import BOOT, Bench, an_order, ended, key, orders, started


@pytest.fixture
def bench() -> Bench:
    """A registered slave of four cores."""
    made = Bench()
    made.register()
    return made


@pytest.mark.parametrize(
    ("codes", "good", "bad"),
    [((0,), [0], [1, 137, 255]), ((3, 4), [3, 4], [0, 5]), ("any", [0, 1, 255], []), ((), [], [0, 1])],
)
def test_a_command_succeeds_by_the_codes_of_its_layer(
    codes: ExitCodes, good: list[int], bad: list[int]
) -> None:
    assert [succeeded(Exit(code=code), codes) for code in good] == [True] * len(good)
    assert [succeeded(Exit(code=code), codes) for code in bad] == [False] * len(bad)


@pytest.mark.parametrize("codes", [(0, 3, 15), "any"])
def test_only_what_ended_by_itself_succeeds(codes: ExitCodes) -> None:
    """No signal is a success, nor anything that has a reason, nor an unknown status."""
    assert not succeeded(Exit(signal=15), codes)
    assert not succeeded(Exit(code=3, signal=15), codes)
    assert not succeeded(Exit(), codes)
    for reason in REASONS - {""}:
        assert not succeeded(Exit(code=0, reason=reason), codes)


@pytest.mark.parametrize(
    ("codes", "code", "signal", "done"),
    [((0,), 3, None, 0), ((0, 3), 3, None, 1), ((3,), 0, None, 0), ("any", 77, None, 1), ("any", None, 2, 0)],
)
def test_done_and_failed_are_counted_by_the_codes_and_the_real_code_is_told(
    bench: Bench, codes: ExitCodes, code: int | None, signal: int | None, done: int
) -> None:
    bench.runs(an_order(success_exit_codes=codes))
    bench.step(ended(code=code, signal=signal))
    assert (bench.state.done, bench.state.failed) == (done, 1 - done)
    told = bench.exits()[0].exit
    assert (told.code, told.signal, told.reason) == (code, signal, "")


def test_outputs_are_verified_after_a_success_with_another_code(bench: Bench) -> None:
    """And one that is missing makes it a failure, whatever the code."""
    order = an_order(outputs=("a.png",), success_exit_codes="any")
    bench.steps(orders(order), OutputsSeen(key(), {}), started())
    assert bench.step(ended(code=9)).do == [Verify(order, {})]
    bench.step(Verified(key(), "output /a.png is missing"))
    assert (bench.exits()[0].exit.code, bench.exits()[0].exit.reason) == (9, "missing-output")
    assert (bench.state.done, bench.state.failed) == (0, 1)


def test_outputs_are_not_verified_after_a_code_that_is_none(bench: Bench) -> None:
    order = an_order(outputs=("a.png",), success_exit_codes=(3,))
    bench.steps(orders(order), OutputsSeen(key(), {}), started(), ended(code=0))
    assert not bench.done(Verify)
    assert bench.exits()[0].exit.code == 0


def test_a_stop_is_no_success_of_any_code(bench: Bench) -> None:
    bench.runs(an_order(success_exit_codes="any"))
    bench.core._work.stop(bench.state.held[key()], "killed", "why")
    bench.step(ended(code=0))
    assert (bench.state.done, bench.state.failed) == (0, 1)


def test_a_start_is_told_with_its_process_at_once_and_on_every_new_link(bench: Bench) -> None:
    bench.steps(orders(an_order(4)), started(4))
    bench.step(after_s=RECORDED_AFTER_S)
    assert [(item.at, item.pid) for item in bench.starts()] == [(5000.0, 104)]
    bench.step(Unlinked(bench.state.link))
    bench.link()
    bench.step(RegisteredAs(3, "s"))
    assert [(item.at, item.pid) for item in bench.starts()] == [(5000.0, 104)]


# -- what is shown -----------------------------------------------------------------------------------


def shown(bench: Bench) -> tuple[FrameView, ...]:
    """The frames that the slave shows."""
    return slave_view(
        bench.state,
        name="s",
        offer=Offer(MachineInfo(hostname="h", os="linux"), 4, 1, Offers()),
        load=MachineLoad(),
        control="",
        last_heard_at=0,
    ).running


def test_a_running_frame_is_shown_with_slot_process_and_start(bench: Bench) -> None:
    bench.runs(an_order(2, slot=7))
    (frame,) = shown(bench)
    assert (frame.slot, frame.pid, frame.started_at) == (7, 100, 5000.0)


def test_a_process_that_is_gone_or_not_there_yet_is_not_shown(bench: Bench) -> None:
    """While outputs are looked at, before and after."""
    order = an_order(2, slot=1, outputs=("a",))
    bench.step(orders(order))
    assert [(frame.pid, frame.started_at, frame.slot) for frame in shown(bench)] == [(0, 0.0, 1)]
    bench.steps(OutputsSeen(key(2), {}), started(2))
    assert [frame.pid for frame in shown(bench)] == [102]
    bench.step(ended(2))
    assert [(frame.pid, frame.started_at) for frame in shown(bench)] == [(0, 5000.0)]


# -- what an older version kept ----------------------------------------------------------------------

_OLD_ORDER: dict[str, Any] = {
    "key": [1, 0, 5, 2],
    "start": 5,
    "argv": ["render"],
    "cwd": "/shots",
    "env": {"A": "b"},
    "job_name": "shot",
    "owner": "ann",
    "pool": "Default",
    "layer_name": "main",
    "range_start": 1,
    "range_end": 10,
}


def test_a_spool_of_before_these_fields_is_restored_with_their_defaults(tmp_path: Path) -> None:
    """As it stands on disk: no pad, no slot, no success_exit_codes."""
    spool = Spool(str(tmp_path / SPOOL))
    spool.append([["boot", BOOT], ["accept", _OLD_ORDER], ["run", [1, 0, 5, 2], 77, 3, 5000.0]])
    spool.close()
    journal = Journal(str(tmp_path), "s", ("Default",), BOOT)
    state = restore(journal.load(), boot_id=BOOT, now=1000.0, limits=journal.limits)
    journal.close()
    (attempt,) = state.held.values()
    assert attempt.order == RunOrder(
        key=key(5, attempt=2),
        start=5,
        argv=("render",),
        cwd="/shots",
        env={"A": "b"},
        job_name="shot",
        owner="ann",
        pool="Default",
        layer_name="main",
        range_start=1,
        range_end=10,
    )
    assert (attempt.order.pad, attempt.order.slot, attempt.order.success_exit_codes) == (4, 0, (0,))
    assert attempt.pid == 77


@pytest.mark.parametrize("codes", [(0, 4), "any"])
def test_the_new_fields_survive_a_restart(bench: Bench, codes: ExitCodes) -> None:
    order = an_order(pad=6, slot=3, success_exit_codes=codes)
    bench.step(orders(order))
    assert bench.restored(BOOT).held[key()].order == order
