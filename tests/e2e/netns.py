"""Machines of a network that exists only for one test: network namespaces on a switch of their own.

    switch (a bridge in a namespace of its own)
      |  eth0 of a machine: 10.77.0.1      |  eth0 of another: 10.77.0.2

Rules: no root is needed where the kernel lets users make namespaces (all are in one user namespace, in which
this user is root); root without that right makes bare network namespaces. A namespace is held open by a
process that ends when its stdin does, so that none outlives the tests, whatever becomes of them; what else
runs inside is killed when the network is taken down. Machines share the disk and /proc with this one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Never

import pytest

from tests.conftest import REQUIRE_VARIABLE
from tests.e2e.helpers import COMMAND_S, Running, Said

PROGRAMS = ("ip", "unshare", "nsenter")
#: What a module that uses this is marked with.
needs_network = pytest.mark.needs(*PROGRAMS)

_PREFIX = "10.77.0"
_READY_S = 10.0
_HOLD = """
import socket, sys
socket.sethostname(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


class NotPossibleError(Exception):
    """This machine makes no namespaces for us; the text says why."""


class Space:
    """A network namespace, and its host name, for as long as it is held."""

    def __init__(self, name: str, prefix: Sequence[str], user: bool) -> None:
        self.name = name
        self._user = user
        unshare = [*prefix, "unshare", "--net", "--uts"]
        if user and not prefix:
            unshare += ["--user", "--map-root-user"]
        self._holder = subprocess.Popen(
            [*unshare, sys.executable, "-S", "-c", _HOLD, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            _, why = self._holder.communicate(timeout=_READY_S)
            raise NotPossibleError(" ".join(why.split()) or "the namespace ended at once")
        #: Of a namespace of the kernel's, as its processes show it.
        self.mark = os.readlink(f"/proc/{self.pid}/ns/net")

    @property
    def pid(self) -> int:
        """The holder's."""
        return self._holder.pid

    def prefix(self) -> list[str]:
        """Words that run the words after them inside."""
        entered = ["nsenter", "--target", str(self.pid), "--net", "--uts"]
        return [*entered, "--user", "--preserve-credentials", "--"] if self._user else [*entered, "--"]

    def do(self, *words: object) -> str:
        """Run a command that must succeed inside; what it printed."""
        done = subprocess.run(
            [*self.prefix(), *map(str, words)], capture_output=True, text=True, check=False, timeout=COMMAND_S
        )
        if done.returncode:
            raise NotPossibleError(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def close(self) -> None:
        """Let go: the kernel takes the namespace down with its last process."""
        # Closes its stdin, too.
        self._holder.communicate(timeout=_READY_S)


class Machine:
    """A machine on the network, with a home folder of its own."""

    def __init__(self, network: "Network", number: int, space: Space, home: Path) -> None:
        self.name = space.name
        self.address = f"{_PREFIX}.{number}"
        self.home = home
        self._network = network
        self._space = space
        self._port = f"port{number}"
        home.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """A process inside, by which the machine can be entered."""
        return self._space.pid

    def environ(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a program there: everything that is a person's lies in the machine's home."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        return {**kept, "HOME": str(self.home), "PWD": str(self.home), **(env or {})}

    def start(self, *words: object, env: Mapping[str, str] | None = None, err: Path | None = None) -> Running:
        """Start a program there; it runs until the network is gone at most. `err` is for its stderr."""
        with open(err or os.devnull, "ab") as file:
            running = Running(
                subprocess.Popen(
                    [*self._space.prefix(), *map(str, words)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=file if err is not None else subprocess.PIPE,
                    cwd=self.home,
                    env=self.environ(env),
                    text=True,
                    errors="replace",
                )
            )
        self._network.started.append(running)
        return running

    def run(self, *words: object, status: int | None = 0, env: Mapping[str, str] | None = None) -> Said:
        """Run a program there to its end; `status` is the exit status it must have, None for any."""
        with self.start(*words, env=env) as running:
            said = running.finish()
        assert status in (None, said.status), f"{words}: exit status {said.status}: {said.out}{said.err}"
        return said

    def drqueue(self, *words: object, status: int | None = 0, env: Mapping[str, str] | None = None) -> Said:
        """Run `drqueue` there."""
        return self.run(sys.executable, "-m", "drqueue", *words, status=status, env=env)

    def cut(self) -> None:
        """Pull its cable out of the switch: packets get lost, and nobody is told."""
        self._network.switch.do("ip", "link", "set", "dev", self._port, "down")

    def heal(self) -> None:
        """Plug it in again."""
        self._network.switch.do("ip", "link", "set", "dev", self._port, "up")

    def drop(self, port: int) -> None:
        """Be a firewall to those who dial a port of this machine: what it answers gets lost."""
        self._space.do("ip", "rule", "add", *self._answers(port))

    def pass_on(self, port: int) -> None:
        """Let them through again."""
        self._space.do("ip", "rule", "delete", *self._answers(port))

    def _answers(self, port: int) -> list[str]:
        return ["from", self.address, "ipproto", "tcp", "sport", str(port), "blackhole"]


class Network:
    """A switch and the machines on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._spaces: list[Space] = []
        self.machines: dict[str, Machine] = {}
        #: What was started on them, and may be left to run.
        self.started: list[Running] = []
        try:
            self.switch = self._first()
            self.switch.do("ip", "link", "add", "name", "switch", "type", "bridge")
            self.switch.do("ip", "link", "set", "dev", "switch", "up")
        except BaseException:
            self.close()
            raise

    def _first(self) -> Space:
        try:
            self._user = True
            return self._hold("switch", ())
        except NotPossibleError:
            if os.geteuid() != 0:
                raise
            self._user = False
            return self._hold("switch", ())

    def _hold(self, name: str, prefix: Sequence[str]) -> Space:
        space = Space(name, prefix, self._user)
        self._stack.callback(space.close)
        self._spaces.append(space)
        return space

    def add(self, name: str) -> Machine:
        """One more machine, plugged in."""
        space = self._hold(name, self.switch.prefix())
        number = len(self.machines) + 1
        machine = self.machines[name] = Machine(self, number, space, self._folder / name)
        port = f"port{number}"
        self.switch.do(
            "ip", "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", space.pid
        )
        self.switch.do("ip", "link", "set", "dev", port, "master", "switch", "up")
        space.do("ip", "link", "set", "dev", "lo", "up")
        space.do("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
        space.do("ip", "link", "set", "dev", "eth0", "up")
        return machine

    def inside(self) -> list[int]:
        """The processes that run on the machines, but for those that hold them."""
        marks = {space.mark for space in self._spaces}
        holders = {space.pid for space in self._spaces}
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in holders:
                try:
                    mark = os.readlink(entry / "ns" / "net")
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue  # gone between two looks, or somebody else's
                if mark in marks:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Kill what runs inside, then let the namespaces go."""
        deadline = time.monotonic() + _READY_S
        # Again and again: a process may be starting another one at this moment.
        while (pids := self.inside()) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)
        for running in self.started:
            # Reads what is left, so that no pipe stays open.
            running.finish(_READY_S)
        self._stack.close()
        assert not pids, f"processes {pids} on the test's machines do not end"


@contextmanager
def network(folder: Path, *names: str) -> Iterator[Network]:
    """A network with these machines, whose homes lie in `folder`; gone at the end, with all that runs on it.

    Skips the test where this machine makes no namespaces, unless DRQUEUE_REQUIRE names `unshare`.
    """
    try:
        made = Network(folder)
    except NotPossibleError as error:
        _not_here(str(error))
    try:
        try:
            for name in names:
                made.add(name)
        except NotPossibleError as error:
            _not_here(str(error))
        yield made
    finally:
        made.close()


def _not_here(why: str) -> Never:
    if "unshare" in os.environ.get(REQUIRE_VARIABLE, "").split(","):
        pytest.fail(
            f"no network namespaces here ({why}), and {REQUIRE_VARIABLE} names unshare", pytrace=False
        )
    pytest.skip(f"no network namespaces here: {why}")
