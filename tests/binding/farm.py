"""A real farm for tests of the binding, and jobs whose runs end when a test says so.

Daemons are child processes that a test may kill and start anew. DRQUEUE_MASTER names the farm while it is up,
so that the binding's calls find it. A run of a gated job reads its exit status from a pipe of its own frame:
nothing ends by chance, nothing is waited for that was not asked for.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import drqueue
from drqueue.client.binding import session
from tests.e2e.helpers import wait_until

T = TypeVar("T")

C = drqueue.CLIENT
#: What a gated job runs.
GATED = 'read status < "$GATES/$DRQUEUE_FRAME"; exit $status'
END_S = 40.0
#: A frame that was handed out, but of which nobody has said yet that it runs.
NOT_LOADED = 65535


class Daemon:
    """A master or a slave, as a process that may be ended and started again."""

    def __init__(self, name: str, argv: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )

    def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; its exit status."""
        assert self._process is not None
        self._process.send_signal(sign)
        return self._process.wait(END_S)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None


class Farm:
    """A master and slaves. `master_env` and `env` are settings beside the usual ones."""

    def __init__(self, folder: Path, master_env: dict[str, str] | None = None, **env: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.address = f"unix:{self.state}/master.sock"
        usual = {"DRQUEUE_BACKOFF_S": "0.05", "DRQUEUE_BACKOFF_MAX_S": "0.05", "DRQUEUE_GRACE_S": "0.5"}
        base = {key: value for key, value in os.environ.items() if key != "DRQUEUE_MASTER"}
        self._env = {**base, **usual, **env}
        folder.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "drqueue.master", "--state-dir", str(self.state)]
        self.master = Daemon("master", argv, {**self._env, **(master_env or {})}, folder / "master.log")
        self.slaves: dict[str, Daemon] = {}

    def add_slave(
        self,
        name: str,
        cores: int = 2,
        memory_mb: int = 1000,
        run: Sequence[str] = ("-m",),
        env: Mapping[str, str] | None = None,
    ) -> Daemon:
        """Start another slave; `run` are the words before its module's name."""
        argv = [sys.executable, *run, "drqueue.slave", "--name", name, "--master", self.address]
        argv += ["--state-dir", str(self.folder / name), "--cores", str(cores), "--memory", str(memory_mb)]
        argv += ["--kill-frames-on-exit"]
        daemon = Daemon(name, argv, {**self._env, **(env or {})}, self.folder / f"{name}.log")
        self.slaves[name] = daemon
        daemon.start()
        return daemon

    def ready(self) -> Self:
        """Return once all slaves that run are there and take frames."""
        names = {name for name, daemon in self.slaves.items() if daemon.runs}

        def look() -> bool:
            try:
                computers = drqueue.request_computer_list(C)
            except OSError:
                return False
            return names <= {each.hwinfo.name for each in computers if each.limits.enabled}

        wait_until(f"slaves {names}", look)
        return self

    def end(self) -> None:
        """End what runs: slaves with their frames first."""
        running = [daemon for daemon in self.slaves.values() if daemon.runs]
        for daemon in running:
            os.kill(daemon.pid, signal.SIGTERM)
        for daemon in [*running, self.master]:
            if daemon.runs:
                daemon.end()


@contextmanager
def a_farm(
    folder: Path,
    slaves: Sequence[str] = ("slave001", "slave002"),
    cores: int = 2,
    master_env: dict[str, str] | None = None,
    **env: str,
) -> Iterator[Farm]:
    """A farm that is up, and that DRQUEUE_MASTER names; all is ended at the end."""
    farm = Farm(folder, master_env, **env)
    before = os.environ.get("DRQUEUE_MASTER")
    os.environ["DRQUEUE_MASTER"] = farm.address
    try:
        farm.master.start()
        for name in slaves:
            farm.add_slave(name, cores)
        yield farm.ready()
    finally:
        farm.end()
        session.close()
        if before is None:
            del os.environ["DRQUEUE_MASTER"]
        else:
            os.environ["DRQUEUE_MASTER"] = before


class Gates:
    """Pipes that runs of a job's frames read their exit status from, one line for each run."""

    def __init__(self, folder: Path, numbers: Sequence[int]) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._open: dict[int, int] = {}
        for number in numbers:
            os.mkfifo(folder / str(number))
            # Kept open for reading too, so that a line waits for its reader and no reader meets an end.
            self._open[number] = os.open(folder / str(number), os.O_RDWR | os.O_NONBLOCK)

    def end(self, number: int, status: int = 0) -> None:
        """Let one run of this frame, that goes on or is to come, end with that exit status."""
        os.write(self._open[number], f"{status}\n".encode())

    def end_all(self, status: int = 0) -> None:
        """Let one run of each frame end."""
        for number in self._open:
            self.end(number, status)

    def close(self) -> None:
        for pipe in self._open.values():
            os.close(pipe)
        self._open.clear()


def a_job(cmd: str = "true", start: int = 1, end: int = 1, **fields: Any) -> drqueue.job:
    """A job that is not sent yet; `fields` with two underscores are those of its limits: limits__pool."""
    job = drqueue.job()
    job.name = "job"
    job.cmd = cmd
    job.frame_start = start
    job.frame_end = end
    for name, value in fields.items():
        owner, _, field = name.rpartition("__")
        setattr(getattr(job, owner) if owner else job, field, value)
    return job


def sent(job: drqueue.job) -> drqueue.job:
    """The job, once it is in the queue."""
    assert job.send_to_queue() == 1
    return job


def fresh(job: drqueue.job) -> drqueue.job:
    """The job as the master has it now."""
    assert job.update(C) == 1
    return job


def frame(job: drqueue.job, number: int) -> drqueue.frame_info:
    """One frame of a job as the master has it now."""
    info = drqueue.frame_info()
    assert drqueue.request_job_frame_info(job.id, number, info, C) == 1
    return info


def statuses(job: drqueue.job) -> list[int]:
    """The statuses of a job's frames, by index."""
    return [info.status for info in job.request_frame_list(C)]


def until_status(job: drqueue.job, status: int) -> drqueue.job:
    """The job, once it has that status."""
    name = drqueue.job_status_string(status)
    return wait_until(f"job {job.id} {name}", lambda: job if fresh(job).status == status else None)


def until_finished(job: drqueue.job) -> drqueue.job:
    """The job, once nothing of it is left to do."""
    return until_status(job, drqueue.JOBSTATUS_FINISHED)


def until_frames(job: drqueue.job, wanted: Sequence[int]) -> None:
    """Return once the frames have these statuses; those that are ASSIGNED run, then."""

    def look() -> bool:
        infos = job.request_frame_list(C)
        return [info.status for info in infos] == list(wanted) and not any(
            info.status == drqueue.FS_ASSIGNED and info.itask == NOT_LOADED for info in infos
        )

    wait_until(f"frames of job {job.id} as {wanted}", look)


def until_runs(job: drqueue.job, number: int, requeued: int | None = None) -> drqueue.frame_info:
    """The frame, once its process runs: after it was requeued so often, where that is said."""

    def look() -> drqueue.frame_info | None:
        info = frame(job, number)
        fits = requeued is None or info.requeued == requeued
        runs = info.status == drqueue.FS_ASSIGNED and info.itask != NOT_LOADED
        return info if fits and runs else None

    return wait_until(f"frame {number} of job {job.id} runs", look)


def eventually(what: str, look: Callable[[], T | None]) -> T:
    """What `look` finds once it finds something (neither None nor False)."""
    return wait_until(what, look)


def clear() -> None:
    """Delete every job, and return once no slave runs anything."""
    for job in drqueue.request_job_list(C):
        job.request_delete(C)

    def idle() -> bool:
        return not any(each.status.nrunning for each in drqueue.request_computer_list(C))

    wait_until("idle slaves", idle)
