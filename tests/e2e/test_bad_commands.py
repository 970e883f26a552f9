"""Commands that misbehave: each frame gets a defined end, with a reason, and leaves nothing behind."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import Cli, Up, farm_up, on_terminal, processes_with, wait_until

pytestmark = pytest.mark.slow
CAP_MB = 1
FLOOD_MB = 600
MB = 1 << 20


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Two slaves, logs of at most a megabyte, half a second of grace."""
    folder = tmp_path_factory.mktemp("bad-commands")
    with farm_up(folder, slaves=2, cores=2, DRQUEUE_LOG_CAP_MB=str(CAP_MB)) as farm:
        yield farm


@pytest.fixture
def cli(up: Up) -> Cli:
    """The other terminal."""
    return up.cli


def test_a_missing_working_directory_is_tried_elsewhere_then_fails(cli: Cli, tmp_path: Path) -> None:
    """Each slave has its turn; the frame FAILED says which folder is missing."""
    missing = tmp_path / "not" / "there"
    job = cli.submit("--cwd", missing, "--retries", 1, "--", "true")
    assert cli.wait(job).counts.failed == 1
    with cli.client() as client:
        attempts = client.attempts(job, 1)
    assert {attempt.slave for attempt in attempts} == {"s1", "s2"}
    assert [attempt.outcome for attempt in attempts] == ["failed", "failed"]
    view = cli.frames(job)[1]
    assert view.reason
    assert str(missing) in view.text
    assert str(missing) in "".join(on_terminal(cli, "frames", job, columns=400))


def test_a_command_that_does_not_exist_fails_by_name(cli: Cli) -> None:
    """In PATH or by path; the reason is in the frame's note."""
    job = cli.submit("--retries", 0, "--", "no-such-renderer", "-x")
    other = cli.submit("--retries", 0, "--", "/opt/no-such/renderer")
    denied = cli.submit("--retries", 0, "--", "/etc/passwd")
    assert [cli.wait(number).counts.failed for number in (job, other, denied)] == [1, 1, 1]
    assert "no-such-renderer" in cli.frames(job)[1].text
    assert "/opt/no-such/renderer" in cli.frames(other)[1].text
    assert "/etc/passwd" in cli.frames(denied)[1].text
    assert {cli.frames(number)[1].reason for number in (job, other)} == {cli.frames(job)[1].reason} != {""}


@pytest.mark.needs("povray")
def test_a_missing_scene_fails_with_the_renderers_own_words(cli: Cli) -> None:
    """POV-Ray's exit status and its log."""
    job = cli.submit("--retries", 0, "--", "povray", "+Inot-there.pov", "-D", "+W8", "+H8")
    assert cli.wait(job).counts.failed == 1
    assert cli.frames(job)[1].code not in (0, None)
    assert "not-there.pov" in cli.log(job, 1)


def test_a_command_that_ignores_term_is_killed_after_the_grace(cli: Cli, tmp_path: Path) -> None:
    """Not before it, and not much later."""
    pid_file = tmp_path / "pid"
    script = f"trap 'echo no' TERM; echo $$ > {pid_file}; while :; do sleep 0.02; done"
    job = cli.submit("--retries", 0, "--", script)
    cli.until_states(job, {1: "RUNNING"})
    wait_until("its start", lambda: pid_file.exists() and pid_file.read_text())
    with cli.client() as client:
        client.frame_kill(job, "1")
    view = cli.until_states(job, {1: "FAILED"})[1]
    assert view.signal == 9
    assert "no" in cli.log(job, 1).split()
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def test_a_time_limit_ends_a_command(cli: Cli) -> None:
    """--timeout: a failure like any other, whose note says so."""
    job = cli.submit("--retries", 0, "--timeout", "0.3", "--", "sleep", 60)
    assert cli.wait(job).counts.failed == 1
    view = cli.frames(job)[1]
    assert view.reason == "timeout"
    assert 0.2 < view.ended_at - view.started_at < 20


FORK_AWAY = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        os.closerange(0, 64)
        os.chdir("/")
        words = [sys.executable, "-S", "-c", "import time; time.sleep(300)", sys.argv[1]]
        os.execve(sys.executable, words, {})
    os._exit(0)
os.wait()
open(sys.argv[1], "w").close()
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_command_that_forks_away_takes_nothing_along(cli: Cli, tmp_path: Path, killed: bool) -> None:
    """Forked twice, in a session of its own, its environment and files gone: it ends with its frame."""
    mark = tmp_path / "away"
    seconds = 60 if killed else 0
    words = ("--retries", 0, "--", sys.executable, "-S", "-c", FORK_AWAY, mark, seconds)
    job = cli.submit(*words)
    if killed:
        wait_until("it has forked away", mark.exists)
        assert len(processes_with(mark)) == 2
        with cli.client() as client:
            client.frame_kill(job, "1")
        cli.until_states(job, {1: "FAILED"})
    else:
        assert cli.done(job)[1].code == 0
        assert mark.exists()
    assert processes_with(mark) == []


def test_a_flood_of_log_fills_neither_disk_nor_memory(up: Up) -> None:
    """600 MB in a few seconds: head and tail are kept, the result arrives, daemon and keeper stay small."""
    flood = (
        "import sys\n"
        "out = sys.stdout.buffer\n"
        "out.write(b'first line\\n')\n"
        f"for _ in range({FLOOD_MB}): out.write(b'x' * 1048575 + b'\\n')\n"
        "out.write(b'last line\\n')\n"
    )
    job = up.cli.submit("--", sys.executable, "-S", "-c", flood)
    largest = 0
    while up.cli.frames(job)[1].state != "DONE":
        for log in up.state_dir.glob(f"slave-*/logs/{job}/*.log"):
            largest = max(largest, log.stat().st_blocks * 512)
    view = up.cli.done(job)[1]
    assert (view.code, view.attempt) == (0, 1)
    (log,) = up.state_dir.glob(f"slave-*/logs/{job}/*.log")
    assert log.stat().st_size == FLOOD_MB * MB + len("first line\nlast line\n")
    assert log.stat().st_blocks * 512 <= CAP_MB * MB + 65536
    # While it is written: the cap, and what comes between two looks.
    assert largest < FLOOD_MB * MB / 2
    shown = up.cli.run("log", job, 1).out
    assert shown.startswith("first line\nxxx")
    assert shown.endswith("xxx\nlast line\n")
    assert "bytes left out" in shown
    assert len(shown) < 2 * CAP_MB * MB
    peaks = {line: peak_mb(int(line.split()[0])) for line in processes_with(up.state_dir / "slave-")}
    # Two slaves, and the keepers of those that ever ran a frame.
    assert len(peaks) in (3, 4)
    assert max(peaks.values()) < 90, peaks


def peak_mb(pid: int) -> float:
    """The most memory that a process ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def test_hostile_bytes_in_a_log_do_not_reach_the_terminal(cli: Cli) -> None:
    """On a terminal they are shown escaped; the library hands out what was written."""
    job = cli.submit("--", r"printf 'a\033]0;title\007\000\377b\n'")
    cli.done(job)
    with cli.client() as client:
        assert client.read_log(job, 1) == b"a\x1b]0;title\x07\x00\xffb\n"
    assert on_terminal(cli, "log", job, 1) == [r"a\x1b]0;title\x07\x00�b"]
    sentence = cli.run("submit", "--name", "evil\x1b[2J", "--", "true", status=2).sentence
    assert sentence == "drqueue: the job's name holds a control character"


def test_a_command_inherits_no_descriptor_of_the_daemons(cli: Cli) -> None:
    """Only the log, and nothing to read from."""
    job = cli.submit("--", "sh", "-c", "ls /proc/$$/fd; readlink /proc/$$/fd/0")
    cli.done(job)
    assert cli.log(job, 1).split() == ["0", "1", "2", "/dev/null"]
