"""The test session's own rules (conftest.py), tried on small sessions of their own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

START = """
import os, subprocess, sys
def start(environ, argv=("sleep", "300"), **options):
    child = subprocess.Popen(argv, env=environ, start_new_session=True, **options)
    with open({pids!r}, "a") as file:
        print(child.pid, file=file)
    child.returncode = 0  # nobody waits for it: no warning when this object goes
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator["Session"]:
    made = Session(tmp_path)
    yield made
    for pid in made.pids():
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


class Session:
    """A test session in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = folder / "pids"
        shutil.copy(Path(__file__).parent / "conftest.py", folder / "conftest.py")
        (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    needs(program): x\n")

    def hurry(self) -> None:
        """Give what is just ending less time, where nothing that is started ends by itself."""
        conftest = self.folder / "conftest.py"
        text = conftest.read_text()
        assert text.count("ENDING_S = 5.0\n") == 1
        conftest.write_text(text.replace("ENDING_S = 5.0\n", "ENDING_S = 0.2\n"))

    def run(self, body: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one test file that holds `body`."""
        (self.folder / "test_it.py").write_text(START.format(pids=str(self.started)) + body)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA"]
        return subprocess.run(
            [*command, f"--basetemp={self.folder / 'base'}", *options, "test_it.py"],
            cwd=self.folder,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def pids(self) -> list[int]:
        return [int(line) for line in self.started.read_text().split()] if self.started.exists() else []


def test_what_is_left_behind_fails_the_session(session: Session) -> None:
    """A daemon, a frame, and frames that dropped their environment: each is named, and killed."""
    session.hurry()
    ended = session.run(
        "sleep = dict(argv=('/bin/sleep', '300'))\n"
        "def test_a(tmp_path):\n"
        "    start(dict(os.environ))\n"
        "    start({'DRQUEUE_ATTEMPT': '1', 'TMPDIR': str(tmp_path / 'x')}, **sleep)\n"
        "    start({}, cwd=tmp_path, **sleep)\n"
        "    start({}, stdout=open(tmp_path / 'log', 'w'), **sleep)\n"
    )
    assert ended.returncode == 1, ended.stdout
    assert "1 passed, 1 error" in ended.stdout.splitlines()[-1]
    assert "4 processes of this session were left behind" in ended.stdout
    assert len(session.pids()) == 4
    for pid in session.pids():
        assert f"\n{pid} " in ended.stdout
        # It became a child of whoever adopts orphans here: dead, perhaps not yet buried.
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "State:\tZ" in status.read_text()


def test_workers_of_a_session_tell_what_they_leave(session: Session) -> None:
    """Side by side, each worker looks for its own processes, and no worker takes another for one."""
    session.hurry()
    body = "".join(f"def test_{n}():\n    start(dict(os.environ))\n" for n in range(4))
    ended = session.run(body, "-n", "2", "--dist", "each")
    assert ended.returncode == 1, ended.stdout
    assert "8 passed, 1 error" in ended.stdout.splitlines()[-1]
    assert "8 processes of this session were left behind" in ended.stdout
    assert len(session.pids()) == 8
    assert session.run("def test_a():\n    assert True\n", "-n", "2").returncode == 0


def test_other_peoples_processes_are_left_alone(session: Session) -> None:
    """Another session's mark, even with a path of ours; and somebody without mark or path."""
    ended = session.run(
        "def test_a(tmp_path):\n"
        "    start({**os.environ, 'DRQUEUE_TEST_SESSION': 'other', 'X': str(tmp_path)})\n"
        "    start({'DRQUEUE_ATTEMPT': '1'}, argv=('/bin/sleep', '300'), cwd='/',\n"
        "          stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
    )
    assert ended.returncode == 0, ended.stdout
    for pid in session.pids():
        assert "sleep" in Path(f"/proc/{pid}/comm").read_text()


def test_what_is_just_ending_may_end(session: Session) -> None:
    ended = session.run("def test_a(tmp_path):\n    start(dict(os.environ), argv=('sleep', '0.3'))\n")
    assert ended.returncode == 0, ended.stdout


def test_needs_skips_or_fails(session: Session) -> None:
    body = (
        "import pytest\n"
        "@pytest.mark.needs('no-such-program')\ndef test_a(): pass\n"
        "@pytest.mark.needs('sh')\ndef test_b(): pass\n"
    )
    ended = session.run(body)
    assert ended.returncode == 0
    assert "1 passed, 1 skipped" in ended.stdout
    assert "needs no-such-program" in ended.stdout
    ended = session.run(body, DRQUEUE_REQUIRE="povray, no-such-program")
    assert ended.returncode == 1
    assert "no-such-program is not on this machine, and DRQUEUE_REQUIRE names it" in ended.stdout


def test_the_farm_of_whoever_runs_the_tests_is_out_of_reach(session: Session) -> None:
    ended = session.run(
        "def test_a(tmp_path_factory):\n"
        "    assert 'DRQUEUE_MASTER' not in os.environ\n"
        "    assert os.environ['XDG_STATE_HOME'].startswith(str(tmp_path_factory.getbasetemp()))\n",
        DRQUEUE_MASTER="unix:/mine",
        XDG_STATE_HOME="/mine",
    )
    assert ended.returncode == 0, ended.stdout
