"""F8: a machine that has slept looks at its leases as soon as it wakes."""

import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from drqueue.slave import daemon as daemon_module
from drqueue.slave import waking
from tests.slave.lives import a_life
from tests.slave.scripted_master import ScriptedMaster
from tests.slave.test_daemon import an_order, until


def of_descriptor(fd: int) -> str:
    """What the kernel says of it."""
    return Path(f"/proc/self/fdinfo/{fd}").read_text()


async def test_the_timer_rings_again_and_again() -> None:
    """The kernel's own: in time, by the clock that goes on in a sleep."""
    fd = waking.boot_timer(0.05)
    try:
        begin = time.clock_gettime(time.CLOCK_BOOTTIME)
        rung = 0
        with trio.fail_after(10):
            while rung < 3:
                await trio.lowlevel.wait_readable(fd)
                rung += int.from_bytes(os.read(fd, 8), "little")
        assert time.clock_gettime(time.CLOCK_BOOTTIME) - begin >= 0.15
        assert f"clockid: {time.CLOCK_BOOTTIME}\n" in of_descriptor(fd)
    finally:
        os.close(fd)


async def test_a_sleep_is_told_once_and_being_awake_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    looks = [0.0, 0.0, 0.4, 3600.4, 3600.4, 3600.5, 3605.5]
    left = iter(looks)
    told: list[int] = []
    done = trio.Event()

    def slept() -> float:
        value = next(left, None)
        if value is None:
            done.set()
            return looks[-1]
        return value

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: waking.watch(lambda: told.append(1), period_s=0.002, slept=slept))
        with trio.fail_after(10):
            await done.wait()
        nursery.cancel_scope.cancel()
    assert len(told) == 2
    assert "the machine was asleep seconds=3600" in caplog.text
    assert "seconds=5" in caplog.text


async def test_without_such_a_timer_the_slave_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(period_s: float) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(waking, "boot_timer", refuse)
    await waking.watch(lambda: None)
    assert "not noticed at once" in caplog.text


def test_the_kernels_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Invalid argument"):
        waking.boot_timer(-1.5)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def master(tmp_path: Path) -> Iterator[ScriptedMaster]:
    made = ScriptedMaster(str(tmp_path / "m.sock"))
    yield made
    made.close()


@pytest.mark.slow
async def test_f08_a_lease_that_ended_in_a_sleep_is_acted_on_at_once(
    tmp_path: Path, master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the end of what the slave waits for by a clock that stood still."""
    asleep = 0.0
    clock = daemon_module.now
    monkeypatch.setattr(daemon_module, "now", lambda: clock() + asleep)
    monkeypatch.setattr(waking, "slept_s", lambda: asleep)
    monkeypatch.setattr(waking, "PERIOD_S", 0.05)
    async with a_life(tmp_path / "s", master, grace_s=0.5) as daemon:
        async with master.link() as link:
            await link.register()
            link.order(order := an_order(argv=("sleep", "1000"), lease_s=600.0))
            await link.hear_start(order.key)
        await until(lambda: not daemon._state.linked)
        asleep = 3600.0
        with trio.fail_after(8):  # well below the longest nap
            await until(lambda: order.key in daemon._state.ended)
        ended = daemon._state.held[order.key].exit
        assert ended is not None
        assert ended.reason == "lease"
        await daemon._supervisor.shutdown()
