"""Memory that ran out is told apart from a crash, and only where that is known."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.proto.model import FAILURES
from drqueue.slave import frames, oom, proctree
from drqueue.slave.cgroups import Group
from drqueue.slave.core import processes
from drqueue.slave.core.effects import Verify
from drqueue.slave.core.events import OutputsSeen
from drqueue.slave.core.processes import ProcessStarted
from drqueue.slave.oom import DYING_S, Count, Watch
from tests.slave.cgroup_harness import eat, little_memory, within
from tests.slave.core_bench import Bench, an_order, ended, orders
from tests.slave.tree_harness import Client, until, ward

K1, K2, K3 = [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 2, 1]
MOST = 64 << 20

# --- for real


@pytest.fixture(scope="module")
def little() -> Iterator[Path]:
    with little_memory(MOST) as folder:
        yield folder


@pytest.mark.slow
def test_the_kernel_kills_what_takes_too_much(little: Path, tmp_path: Path) -> None:
    """The frame itself, or a child of a shell; one that somebody else kills is no such thing."""
    with ward(tmp_path) as it:
        client = Client.start(it, before=within(little))
        began = time.monotonic()
        # What dies at once is told for sure where nothing ran before it.
        until(lambda: time.monotonic() - began > 2 * frames.TICK_S)
        told = client.run(K1, *eat(4 * MOST))
        assert (told["signal"], told["reason"]) == (signal.SIGKILL, "oom"), it.log(K1).read_text()
        assert told["peak"] > MOST / 4
        told = client.run(K2, "/bin/sh", "-c", 'sleep 0.6; "$0" "$@"; exit $?', *eat(4 * MOST))
        assert (told["code"], told["reason"]) == (137, "oom"), it.log(K2).read_text()
        # A birth is known to a hundredth of a second: one that is nearer to such an end is in doubt.
        assert client.run([0, 0, 3, 1], "/bin/sleep", "0.1")["code"] == 0
        told = client.run(K3, "/bin/sh", "-c", "kill -KILL $$")
        assert (told["signal"], told["reason"]) == (signal.SIGKILL, "")
        client.shutdown()


@pytest.mark.slow
def test_the_whole_machines_count_tells_too(little: Path) -> None:
    """Where nothing nearer counts."""
    watch = Watch(Count(os.devnull, os.devnull))
    words = [*within(little), *eat(4 * MOST)]
    child = os.posix_spawn(words[0], words, {})
    birth = proctree.birth(child) / frames.TICKS
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert watch.verdict(birth) == oom.SURE


# --- what the counts say


class Counted(Count):
    """A count that is what it is set to."""

    def __init__(self) -> None:
        super().__init__(os.devnull, os.devnull, os.devnull)
        self.now = 3

    def read(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the boot clock says: its last entry."""
    at = [100.0]
    monkeypatch.setattr(time, "clock_gettime", lambda which: at[-1])
    return at


@pytest.mark.parametrize(
    ("birth", "looks", "dies", "said"),
    [
        # (when it was looked, the count then), the last look but one is before the count grew
        (101, [(102, 3), (103, 4)], 103.5, "oom"),
        (101, [(102, 3)], 102.2, "oom"),  # seen at its death only
        (101, [(102, 3), (103, 4)], 103 + DYING_S - 1, "oom"),
        (101, [(102, 3), (103, 4), (110, 4)], 104 + DYING_S, "perhaps-oom"),  # long before its death
        (101, [(103, 4)], 103.2, "perhaps-oom"),  # it may have been before its birth
        (104, [(102, 3), (103, 4)], 105, ""),
        (0, [(102, 3), (103, 4)], 103.5, ""),  # its birth is not known
    ],
)  # fmt: skip
def test_when_a_count_tells(
    clock: list[float], birth: float, looks: list[tuple[float, int]], dies: float, said: str
) -> None:
    counted = Counted()
    watch = Watch(counted)
    for at, counted.now in looks:
        clock.append(at)
        watch.look()
    counted.now = 4
    clock.append(dies)
    assert watch.verdict(birth) == said


def test_no_count_tells_nothing(clock: list[float]) -> None:
    watch = Watch(Count(os.devnull, os.devnull, os.devnull))
    clock.append(200)
    assert watch.verdict(150) == ""


def test_the_nearest_count_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own cgroup's, v2 before v1, before the whole machine's; none of a v1 top, which counts little."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    mounts, own, machine = tmp_path / "mounts", tmp_path / "own", tmp_path / "vmstat"
    for name in ("v1", "v2"):
        (tmp_path / name / "slave").mkdir(parents=True)
    mounts.write_text(
        f"1 1 0:1 / {tmp_path}/v1 rw - cgroup cgroup rw,memory\n"
        f"1 1 0:2 / {tmp_path}/v2 rw - cgroup2 cgroup2 rw\n"
    )
    own.write_text("4:memory:/slave\n0::/slave\n")
    machine.write_text("pgfault 9\noom_kill 1\n")
    (tmp_path / "v1" / "memory.oom_control").write_text("oom_kill 9\n")

    def counted() -> int:
        return Count(str(mounts), str(own), str(machine)).read()

    assert counted() == 1
    (tmp_path / "v1" / "slave" / "memory.oom_control").write_text(
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
    )
    assert counted() == 2
    (tmp_path / "v2" / "slave" / "memory.events").write_text("oom 7\noom_kill 3\noom_group_kill 0\n")
    assert counted() == 3
    own.write_text("4:memory:/\n0::/\n")
    assert counted() == 1


def an_attempt(status: int, group: Group | None = None) -> frames.Attempt:
    attempt = frames.Attempt((0, 0, 0, 1), 1)
    attempt.status, attempt.group, attempt.birth = status, group, 101 * frames.TICKS
    return attempt


def test_a_group_that_counts_is_believed(tmp_path: Path) -> None:
    """Whatever the command made of it, but that it ended well; and a kill of one's own is none of it."""
    watched = frames.Frames(lambda attempt, size: None, str(tmp_path))
    group = Group(str(tmp_path), counted=True)
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    assert watched.verdict(an_attempt(signal.SIGKILL, group)) == ""
    (tmp_path / "memory.events").write_text("oom_kill 1\n")
    for status in (signal.SIGKILL, signal.SIGTERM, 1 << 8):
        assert watched.verdict(an_attempt(status, group)) == "oom"
    assert watched.verdict(an_attempt(0, group)) == ""
    killed = an_attempt(signal.SIGKILL, group)
    killed.killing = True
    assert watched.verdict(killed) == ""


def test_without_one_only_a_kill_is_suspicious(clock: list[float], tmp_path: Path) -> None:
    watched = frames.Frames(lambda attempt, size: None, str(tmp_path))
    counted = watched.ooms.counter = Counted()
    watched.ooms.count = 3
    clock.append(102)
    watched.ooms.look()
    counted.now = 4
    group = Group(str(tmp_path), counted=False)
    for status, said in ((signal.SIGKILL, "oom"), (137 << 8, "oom"), (signal.SIGSEGV, ""), (1 << 8, "")):
        assert watched.verdict(an_attempt(status)) == said
        assert watched.verdict(an_attempt(status, group)) == said


def test_the_peak_is_no_more_than_was_charged(tmp_path: Path) -> None:
    """Pages that processes share were counted for each of them."""
    watched = frames.Frames(lambda attempt, size: None, str(tmp_path))
    (tmp_path / "memory.peak").write_text("1000\n")
    log = os.open(os.devnull, os.O_RDONLY)
    for measured, whole, counted, told in (
        (1500, True, True, 1000),
        (700, True, True, 700),
        (1500, False, True, 1500),
        (1500, True, False, 1500),
    ):
        attempt = an_attempt(0, Group(str(tmp_path), counted))
        assert attempt.group is not None
        attempt.group.whole, attempt.peak, attempt.log = whole, measured, log
        watched.finish(attempt)
        assert attempt.peak == told
    os.close(log)


# --- what is told of it


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.register()
    return made


def test_it_is_the_frames_failure_and_says_so(bench: Bench) -> None:
    assert processes.OOM in FAILURES
    assert (processes.OOM, processes.PERHAPS_OOM) == (oom.SURE, oom.PERHAPS)
    bench.runs(an_order())
    bench.step(ended(code=None, signal=9, reason=processes.OOM))
    told = bench.exits()[0].exit
    assert (told.signal, told.reason) == (9, "oom")
    assert told.text == "memory ran out, and the kernel killed it (its peak: 2 MB)"
    assert bench.state.failed == 1


def test_in_doubt_it_is_a_signal_like_others(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(ended(code=None, signal=9, reason=processes.PERHAPS_OOM))
    told = bench.exits()[0].exit
    assert (told.signal, told.reason, told.text) == (9, "", "killed, perhaps as memory ran out")


@pytest.mark.parametrize("reason", [processes.OOM, processes.PERHAPS_OOM])
def test_a_command_that_took_a_childs_death_well_is_done(bench: Bench, reason: str) -> None:
    """A shell's 137 among the layer's good codes, say; its outputs are looked at as ever."""
    bench.runs(an_order(0, success_exit_codes=(0, 137)))
    bench.step(ended(0, code=137, reason=reason))
    told = bench.exits()[0].exit
    assert (told.code, told.reason, told.text, bench.state.done) == (137, "", "", 1)
    order = an_order(1, success_exit_codes="any", outputs=("a.png",))
    bench.step(orders(order))
    bench.step(OutputsSeen(order.key, {}))
    bench.step(ProcessStarted(order.key, 100, 0, 5000.0))
    bench.step(ended(1, code=137, reason=reason))
    assert bench.done(Verify)
    bench.runs(an_order(2, success_exit_codes="any"))
    bench.step(ended(2, code=None, signal=9, reason=reason))
    assert bench.exits()[0].exit.reason == ("oom" if reason == processes.OOM else "")
    assert bench.state.failed == 1
