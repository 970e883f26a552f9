"""`up`, `demo` and a day with the command line, on real daemons."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drqueue import png

pytestmark = pytest.mark.slow

DRQUEUE = (sys.executable, "-m", "drqueue")
PATIENCE_S = 90.0


class Up:
    """`drqueue up` in a process of its own."""

    def __init__(self, state_dir: Path, *options: str) -> None:
        self.state_dir = state_dir
        self.process = subprocess.Popen(
            [*DRQUEUE, "up", "--state-dir", str(state_dir), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def first_line(self) -> str:
        """What it says on stdout; "" where it ended without a word."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def run(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """A command of the command line that talks to this farm."""
        done = subprocess.run(
            [*DRQUEUE, "--state-dir", str(self.state_dir), *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert not check or done.returncode == 0, done
        return done

    def end(self, sign: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status after a signal, and its stderr."""
        self.process.send_signal(sign)
        _, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, err


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name."""
    path = Path(tempfile.mkdtemp(prefix="drq-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def up(folder: Path) -> Iterator[Callable[..., Up]]:
    """Start farms that do not outlive the test."""
    started: list[Up] = []

    def start(*options: str, state_dir: Path = folder / "farm") -> Up:
        started.append(Up(state_dir, *options))
        return started[-1]

    yield start
    for farm in started:
        if farm.process.poll() is None:
            farm.end()
        for stream in (farm.process.stdout, farm.process.stderr):
            assert stream is not None
            stream.close()


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def processes_with(*words: str) -> list[int]:
    """Processes that name all of these on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if all(word in line for word in words):
            found.append(int(entry.name))
    return found


def test_a_day_with_the_farm(up: Callable[..., Up], folder: Path) -> None:
    """Submit, look, follow, stop, continue, requeue, disable, wait: as two terminals would."""
    farm = up("--slaves", "2")
    assert farm.first_line() == "farm is up\n"
    slaves = json.loads(farm.run("slaves", "--json").stdout)
    assert [(view["linked"], view["limits"]["enabled"]) for view in slaves] == [(True, True)] * 2

    gate = folder / "gate"
    word = f"echo frame {{frame}}; while [ ! -e {gate} ]; do sleep 0.05; done; echo over"
    done = farm.run("submit", "--frames", "1-3", "--name", "gated", "--", word)
    job = done.stdout.strip()
    assert job.isdecimal()

    def counts() -> dict[str, int]:
        found: dict[str, int] = json.loads(farm.run("job", job, "--json").stdout)["counts"]
        return found

    until("two frames run", lambda: counts()["running"] == 2)
    assert "gated" in farm.run("jobs").stdout
    assert farm.run("frames", job).stdout.count("RUNNING") == 2
    assert "frame 1" in farm.run("log", job, "1").stdout

    farm.run("stop", job)
    assert json.loads(farm.run("job", job, "--json").stdout)["state"] in ("STOPPED", "ACTIVE")
    assert "stopped" in farm.run("why", job).stdout
    farm.run("slave", "disable", "s1")
    assert json.loads(farm.run("slave", "s1", "--json").stdout)["state"] == "disabled"
    farm.run("slave", "enable", "s1")
    farm.run("continue", job)

    follow = subprocess.Popen(
        [*DRQUEUE, "--state-dir", str(farm.state_dir), "log", job, "1", "--follow"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout is not None
    assert follow.stdout.readline() == "frame 1\n"
    gate.touch()
    assert follow.communicate(timeout=PATIENCE_S)[0] == "over\n"
    assert follow.returncode == 0

    waited = farm.run("wait", job)
    assert waited.stdout == f"job {job} finished: 3 of 3 frames done\n"
    farm.run("frame", "requeue", job, "2")
    farm.run("wait", job)
    frames = json.loads(farm.run("frames", job, "--json").stdout)
    assert [(view["state"], view["attempt"]) for view in frames] == [("DONE", 1), ("DONE", 2), ("DONE", 1)]

    failing = farm.run("submit", "--retries", "0", "--wait", "--", "false", check=False)
    assert failing.returncode == 1
    assert "0 of 1 frame done, 1 failed" in failing.stderr
    assert farm.run("log", job, "99", check=False).returncode == 3

    status, err = farm.end(signal.SIGINT)
    assert status == 0
    assert "ending the farm" in err


def test_ending_the_farm_ends_frames_and_keepers(up: Callable[..., Up], folder: Path) -> None:
    farm = up()
    assert farm.first_line() == "farm is up\n"
    job = farm.run("submit", "--", "sh", "-c", f"echo {folder}/mark; sleep 1000").stdout.strip()
    until("it runs", lambda: "RUNNING" in farm.run("frames", job).stdout)
    assert processes_with(f"{folder}/mark")
    assert farm.end()[0] == 0
    assert processes_with(str(folder)) == []


def test_a_farm_comes_back_with_its_jobs_and_enables_its_slaves(up: Callable[..., Up]) -> None:
    farm = up()
    assert farm.first_line() == "farm is up\n"
    farm.run("slave", "disable", "s1")
    job = farm.run("submit", "--", "true").stdout.strip()
    assert farm.end()[0] == 0
    farm = up()
    assert farm.first_line() == "farm is up\n"
    assert farm.run("wait", job).returncode == 0


def test_a_second_farm_in_the_same_folder_is_refused_and_the_first_lives_on(up: Callable[..., Up]) -> None:
    farm = up()
    assert farm.first_line() == "farm is up\n"
    second = up()
    assert second.first_line() == ""
    _, err = second.process.communicate(timeout=PATIENCE_S)
    assert second.process.returncode == 1
    assert "runs in" in err
    assert err.count("\n") == 1
    assert farm.run("jobs").returncode == 0


def test_a_daemon_that_dies_ends_the_farm_and_is_named(up: Callable[..., Up]) -> None:
    farm = up("--slaves", "2")
    assert farm.first_line() == "farm is up\n"
    (victim,) = processes_with("drqueue.slave", str(farm.state_dir), "--name\0s2")
    os.kill(victim, signal.SIGKILL)
    _, err = farm.process.communicate(timeout=PATIENCE_S)
    assert farm.process.returncode == 1
    assert "slave-s2 ended with signal 9" in err
    assert "Traceback" not in err


def test_the_demo_renders_every_frame_on_both_slaves_and_leaves_nothing_else(folder: Path) -> None:
    output = folder / "out"
    output.mkdir()
    (output / "mine.txt").write_text("stays")
    for _ in range(2):
        done = subprocess.run(
            [*DRQUEUE, "demo", "--frames", "8", "--size", "64x36", "--output", str(output)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, "TMPDIR": str(folder)},
            check=False,
        )
        assert done.returncode == 0, done
    pictures = sorted(output.glob("frame_*.png"))
    assert len({path.read_bytes() for path in pictures}) == 8
    width, height, _ = png.decode_rgb(pictures[0].read_bytes())
    assert (width, height) == (64, 36)
    assert png.decode_rgb((output / "contact-sheet.png").read_bytes())
    assert "8, all valid" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("s1 ", "s2 "))]
    assert sum(int(row[1]) for row in rows) == 8
    assert len(rows) == 2
    assert (output / "mine.txt").read_text() == "stays"
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_a_demo_without_its_renderer_is_one_sentence(folder: Path) -> None:
    done = subprocess.run(
        [*DRQUEUE, "demo", "--renderer", "povray", "--output", str(folder / "out")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "PATH": str(folder)},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("drqueue: povray was not found")
    assert done.stderr.count("\n") == 1
