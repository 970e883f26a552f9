"""What the tests of keeper and supervisor share: a keeper spoken to by hand, and the search for survivors."""

import json
import os
import select
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drqueue.slave import keeper_link

HERE = Path(__file__).parent
PYTHON = [sys.executable, "-I", "-S"]
PATIENCE_S = 30.0


def until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait for a condition to become true and return its value."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come true in {PATIENCE_S} s")


def stat_state(pid: int) -> str:
    """R, S, Z ...; "" when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def living(pids: list[int]) -> list[int]:
    """Those that are neither gone nor zombies."""
    return [pid for pid in pids if stat_state(pid) not in ("", "Z", "X")]


def marked(token: str) -> list[int]:
    """Living processes that were started with the token in their environment."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if token.encode() in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return living(found)


def pids_in(path: Path) -> list[int]:
    """The complete lines of a file of process numbers."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []


class Ward:
    """A state directory, a token that marks its frames, and the promise that nothing of it stays behind."""

    def __init__(self, root: Path) -> None:
        self.token = uuid.uuid4().hex
        self.state = root / "state"
        self.work = root / "work"
        self.logs = self.state / "logs"
        self.logs.mkdir(parents=True)
        self.work.mkdir()
        self.keepers: list[int] = []

    def env(self, key: list[int] | tuple[int, ...]) -> dict[str, str]:
        """A frame's whole environment."""
        mark = "/".join(map(str, key))
        return {"PATH": "/usr/bin:/bin", "DRQUEUE_ATTEMPT": mark, "DRQUEUE_TEST": self.token}

    def log(self, key: list[int] | tuple[int, ...]) -> Path:
        return self.logs / "-".join(map(str, key))

    def keeper_pid(self) -> int:
        """Whose lock it is, or was."""
        return int((self.state / "keeper.lock").read_text())

    def sweep(self) -> list[int]:
        """Kill whatever is left and say what it was."""
        left = marked(self.token)
        lock = self.state / "keeper.lock"
        if lock.exists() and lock.read_text().strip():
            pid = self.keeper_pid()
            cmdline = Path(f"/proc/{pid}/cmdline")
            if cmdline.exists() and str(self.state).encode() in cmdline.read_bytes():
                left.append(pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left


@contextmanager
def ward(root: Path) -> Iterator[Ward]:
    """A ward that fails its test when processes are left behind."""
    it = Ward(root)
    try:
        yield it
    finally:
        left = it.sweep()
    assert not left, f"left behind: {left}"


class Client:
    """A daemon's connection to a keeper, by hand and blocking."""

    def __init__(self, sock: socket.socket, ward: Ward, child: int = 0) -> None:
        sock.settimeout(PATIENCE_S)
        self.sock = sock
        self.ward = ward
        self.child = child
        self.file = sock.makefile("rb")

    @classmethod
    def start(cls, ward: Ward, linger: float = 30.0, before: Sequence[str] = ()) -> "Client":
        """Start a keeper, by the words `before` its command line, and greet it."""
        ours, theirs = socket.socketpair()
        argv = [*before, *PYTHON, "-X", "utf8", keeper_link.KEEPER, str(ward.state), str(linger)]
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
        child = os.posix_spawn(argv[0], argv, {}, file_actions=actions, setsid=True)
        theirs.close()
        client = cls(ours, ward, child)
        assert client.greet() == []
        return client

    @classmethod
    def attach(cls, ward: Ward) -> "Client":
        """Connect to the living keeper without greeting it."""
        folder = os.open(ward.state, os.O_PATH)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(f"/proc/self/fd/{folder}/keeper.sock")
        finally:
            os.close(folder)
        return cls(sock, ward)

    def greet(self) -> list[dict[str, Any]]:
        """Greet and return all that the keeper holds."""
        self.send({"v": 1})
        assert self.next()["is"] == "keeper"
        held = []
        while (report := self.next())["is"] != "held":
            held.append(report)
        return held

    def send(self, *messages: Any) -> None:
        self.sock.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def next(self) -> dict[str, Any]:
        line = self.file.readline()
        assert line, "the keeper closed the connection"
        report: dict[str, Any] = json.loads(line)
        return report

    def closed(self) -> bool:
        """Whether the keeper ends the connection without another word."""
        try:
            return self.file.readline() == b""
        except ConnectionResetError:
            return True

    def launch(self, key: list[int], *argv: str, **more: Any) -> dict[str, Any]:
        """Launch and return the first report."""
        order = {
            "do": "launch", "key": key, "argv": argv, "env": self.ward.env(key), "cwd": str(self.ward.work),
            "umask": 0o022, "log": str(self.ward.log(key)), "cap": 1 << 20,
        }  # fmt: skip
        self.send({**order, **more})
        report = self.next()
        assert report["key"] == key
        return report

    def run(self, key: list[int], *argv: str, **more: Any) -> dict[str, Any]:
        """Launch, and return how it ended."""
        report = self.launch(key, *argv, **more)
        return self.next() if report["is"] == "started" else report

    def quiet(self) -> bool:
        """Whether nothing is waiting to be read."""
        return not select.select([self.sock], [], [], 0)[0]

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def shutdown(self) -> None:
        """Shut the keeper down and wait for its end."""
        self.send({"do": "shutdown"})
        while self.file.readline():
            pass
        self.close()
        self.wait()

    def wait(self) -> None:
        """Wait for the end of a keeper that is this process's child."""
        if self.child:
            until(lambda: stat_state(self.child) == "Z", "the keeper's end")
            assert os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1]) == 0
            self.child = 0
