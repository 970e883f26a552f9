"""What end-to-end tests share: a farm on real processes, jobs whose frames keep a ledger, conditions.

There are two kinds of farm. `a_farm` is for async tests that look inside or kill a daemon; `farm_up` is what
a user has: `drqueue up` in one terminal and commands, each a process of its own, in another.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
import trio

from drqueue.client import AsyncClient, Client, JobSpec, LayerSpec
from drqueue.client.farm import LocalFarm, local_farm
from drqueue.proto.views import FrameView, JobView, SlaveView

T = TypeVar("T")

LEDGER = Path(__file__).with_name("ledger.py")


@asynccontextmanager
async def a_farm(
    tmp_path: Path, slaves: int = 2, cores: int = 2, **env: str
) -> AsyncIterator[tuple[LocalFarm, AsyncClient]]:
    """A master and slaves that are linked and enabled; quick back-off unless `env` says otherwise."""
    variables = {"DRQUEUE_BACKOFF_S": "0.05", "DRQUEUE_GRACE_S": "0.5", **env}
    async with local_farm(
        str(tmp_path / "farm"), slaves=slaves, cores=cores, env={**os.environ, **variables}
    ) as (farm, client):
        await farm.ready(client)
        yield farm, client


def a_ledger_job(ledger: Path, frames: str, seconds: float | str, **fields: Any) -> JobSpec:
    """A job whose frames live that long and write it down."""
    argv = (sys.executable, "-S", str(LEDGER), str(ledger), str(seconds))
    layer = LayerSpec(argv=argv, frames=frames, cwd="/", **fields)
    return JobSpec(name="ledger", layers=(layer,))


def lives(ledger: Path) -> tuple[Counter[int], Counter[int], int]:
    """How often each frame started and ended, and how many overlaps there were."""
    starts: Counter[int] = Counter()
    ends: Counter[int] = Counter()
    overlaps = 0
    for line in ledger.read_text().splitlines() if ledger.exists() else []:
        word, _attempt, number = line.split()
        if word == "start":
            starts[int(number)] += 1
        elif word == "end":
            ends[int(number)] += 1
        else:
            overlaps += 1
    return starts, ends, overlaps


async def until(what: str, holds: Callable[[], Awaitable[bool]], patience_s: float = 30.0) -> None:
    """Return once a condition holds; it is looked at ten times a second, for what no event announces."""
    with trio.move_on_after(patience_s):
        while True:
            if await holds():
                return
            await trio.sleep(0.1)
    raise AssertionError(f"not within {patience_s:.0f} s: {what}")


async def wait_all(client: AsyncClient, job: int, patience_s: float = 60.0) -> JobView:
    """The job's final view; survives restarts of the master."""
    with trio.fail_after(patience_s):
        (view,) = await client.wait([job], patience_s=patience_s)
    return view


# -- what a user has: commands, and `drqueue up` -------------------------------------------------------------

COMMAND_S = 30.0
"""Seconds that a command may take before it counts as hanging."""


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """Its stderr, which must be one line, neither empty nor a traceback."""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.strip()


@dataclass(frozen=True)
class Cli:
    """The command line, as processes of their own that talk to the farm in `state_dir`."""

    state_dir: Path
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)

    def environ(self) -> dict[str, str]:
        """The environment of a command."""
        return {**os.environ, "DRQUEUE_STATE_DIR": str(self.state_dir), "PWD": str(self.cwd), **self.env}

    def start(self, *words: object, module: str = "drqueue", err: Path | None = None) -> "Running":
        """Start a command and leave it running; end it with `with`, or `finish`. `err`: a file for stderr."""
        with open(err or os.devnull, "ab") as file:
            return Running(
                subprocess.Popen(
                    [sys.executable, "-m", module, *map(str, words)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=file if err is not None else subprocess.PIPE,
                    cwd=self.cwd,
                    env=self.environ(),
                    text=True,
                    errors="replace",
                )
            )

    def run(self, *words: object, status: int | None = 0, module: str = "drqueue") -> Said:
        """Run a command to its end; `status` is the exit status it must have, None for any."""
        with self.start(*words, module=module) as running:
            said = running.finish()
        assert status in (None, said.status), f"{words}: exit status {said.status}: {said.out}{said.err}"
        return said

    def json(self, *words: object) -> Any:
        """What a command prints with --json."""
        return self.run(words[0], "--json", *words[1:]).json

    def submit(self, *words: object) -> int:
        """`drqueue submit` with these words; the job's id, which must be all that it prints on stdout."""
        said = self.run("submit", *words)
        assert re.fullmatch(r"[0-9]+\n", said.out), said.out
        return int(said.out)

    # What follows asks through the library, as it is asked often: a process takes its time to start.

    def client(self) -> Client:
        """The library's blocking client of this farm."""
        return Client(f"unix:{self.state_dir}/master.sock")

    def frames(self, job: int) -> dict[int, FrameView]:
        """A job's frames by number."""
        with self.client() as client:
            return {view.number: view for view in client.frames(job)}

    def slave(self, name: str) -> SlaveView:
        """A slave as the master knows it."""
        with self.client() as client:
            return client.slave(name)

    def log(self, job: int, number: int) -> str:
        """A frame's latest log."""
        with self.client() as client:
            return client.read_log(job, number).decode()

    def wait(self, job: int) -> JobView:
        """A job once it is finished."""
        with self.client() as client:
            return client.wait([job])[0]

    def done(self, job: int) -> dict[int, FrameView]:
        """A finished job's frames, all of which must be DONE."""
        counts = self.wait(job).counts
        assert counts.done == counts.total, counts
        return self.frames(job)

    def until_states(self, job: int, wanted: dict[int, str]) -> dict[int, FrameView]:
        """The job's frames, once those named are in these states."""

        def look() -> dict[int, FrameView] | None:
            frames = self.frames(job)
            return frames if {n: frames[n].state for n in wanted} == wanted else None

        return wait_until(f"frames of job {job} as {wanted}", look)


class Running:
    """A command that runs; leaving `with` kills it where it still does."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def finish(self, patience_s: float = COMMAND_S) -> Said:
        """Wait for its end and collect what it says (that nobody has read yet)."""
        out, err = self.process.communicate(timeout=patience_s)
        return Said(self.process.returncode, out, err or "")

    def line(self) -> str:
        """The next line of stdout; "" at its end."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], COMMAND_S)
        assert ready, "nothing was printed in time"
        return self.process.stdout.readline()


class Up(Running):
    """`drqueue up`, and commands for its farm."""

    def __init__(self, process: "subprocess.Popen[str]", cli: Cli) -> None:
        super().__init__(process)
        self.cli = cli
        self.state_dir = cli.state_dir

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            # A test failed: the daemons have to go, too.
            self.end(signal.SIGTERM)

    def end(self, sign: signal.Signals = signal.SIGINT) -> Said:
        """End it by a signal, as Ctrl-C does."""
        self.process.send_signal(sign)
        return self.finish()


def start_up(
    folder: Path, slaves: int = 2, cores: int = 1, name: str = "farm", options: Sequence[str] = (), **env: str
) -> Up:
    """Start `drqueue up` with its state in `folder`/`name`; commands then run in `folder`/work."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    variables = {"DRQUEUE_BACKOFF_S": "0.05", "DRQUEUE_GRACE_S": "0.5", **env}
    cli = Cli(folder / name, work, variables)
    words = ("up", "--slaves", slaves, "--cores", cores, *options)
    return Up(cli.start(*words).process, Cli(folder / name, work))


@contextmanager
def farm_up(folder: Path, slaves: int = 2, cores: int = 1, name: str = "farm", **env: str) -> Iterator[Up]:
    """`drqueue up` until its slaves take frames; Ctrl-C at the end, which must leave nothing behind."""
    with start_up(folder, slaves, cores, name, **env) as up:
        line = up.line()
        assert line == "farm is up\n", (line, up.finish().err if not line else "")
        yield up
        said = up.end()
    assert said.status == 0, said.err
    assert processes_with(up.state_dir) == []


def processes_with(word: object) -> list[str]:
    """The command lines of running processes that name `word` (a path of the test's own) in them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if os.fsencode(str(word)) in command:
                found.append(f"{entry.name} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def wait_until(what: str, look: Callable[[], T | None], patience_s: float = 30.0) -> T:
    """What `look` finds once it finds something (neither None nor False)."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience_s:.0f} s: {what}")


def on_terminal(cli: Cli, *words: object, columns: int = 80) -> list[str]:
    """The lines that a command shows on a terminal of that width, without what colours them.

    What it draws over (bars of progress) counts as lines of its own.
    """
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {**cli.environ(), "TERM": "xterm"}
    env.pop("COLUMNS", None)
    env.pop("NO_COLOR", None)
    argv = [sys.executable, "-m", "drqueue", *map(str, words)]
    parts = []
    try:
        process = subprocess.Popen(
            argv, stdin=child, stdout=child, stderr=child, cwd=cli.cwd, env=env, start_new_session=True
        )
        os.close(child)
        child = -1
        with process:
            while True:
                ready, _, _ = select.select([parent], [], [], COMMAND_S)
                assert ready, "nothing was shown in time"
                try:
                    part = os.read(parent, 65536)
                except OSError:  # EIO: nobody has the terminal open any more
                    break
                parts.append(part)
    finally:
        os.close(parent)
        if child >= 0:
            os.close(child)
    text = b"".join(parts).decode()
    # Control sequences steer cursor and colours; moving up a line or home begins another one.
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [line for line in re.split(r"[\r\n]+", text) if line]


def needs_tmpfs() -> None:
    """Skip a test that mounts a small disk of its own where that is not allowed, unless it is required."""
    if os.geteuid() == 0:
        return
    if "tmpfs" in os.environ.get("DRQUEUE_REQUIRE", "").split(","):
        pytest.fail("only root can mount a tmpfs, and DRQUEUE_REQUIRE names it", pytrace=False)
    pytest.skip("only root can mount a small disk")


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """A disk of that size, mounted over `folder`."""
    needs_tmpfs()
    folder.mkdir(exist_ok=True)
    options = f"size={kib}k,mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        if "tmpfs" in os.environ.get("DRQUEUE_REQUIRE", "").split(","):
            pytest.fail(f"no tmpfs can be mounted, and DRQUEUE_REQUIRE names it: {mounted.stderr}")
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(folder: Path) -> Path:
    """Take all room that is left on a folder's disk; deleting the file returned gives it back."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return ballast
