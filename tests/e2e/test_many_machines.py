"""docs/many-machines.md, executed: three machines on a network of their own, its commands typed.

A block "```sh on=MACHINE" is typed there, line by line; with `background` it goes on, and what comes next
waits for the daemon to be up; with `prints=LINE` what it prints stands for LINE from then on.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import wait_until
from tests.e2e.netns import Machine, needs_network, network

PAGE = (Path(__file__).parents[2] / "docs" / "many-machines.md").read_text()
BLOCK = re.compile(r"^```sh on=(?P<on>\w+)(?P<how>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = [pytest.mark.slow, needs_network]


class Terminals:
    """The machines of the page, and what was printed on them."""

    def __init__(self, machines: dict[str, Machine], folder: Path) -> None:
        self._machines = machines
        self._folder = folder
        self._line = "LINE"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # In a namespace made without root everybody is root, and no slave changes users there.
        self._env = {"PATH": path, "DRQUEUE_RUN_AS": "self"}
        self.said: list[tuple[str, str]] = []

    def type(self, on: str, command: str, how: list[str]) -> None:
        """Type one line."""
        command = re.sub(r"\bLINE\b", self._line, command)
        machine = self._machines[on]
        if "background" in how:
            errors = self._folder / f"{on}.err"
            machine.start("sh", "-c", f"exec {command}", env=self._env, err=errors)
            wait_until(f"{command!r} is up", lambda: " is up" in errors.read_text() or None)
            return
        said = machine.run("sh", "-c", command, env=self._env)
        self.said.append((command, said.out))
        if "prints=LINE" in how:
            self._line = said.out.strip()
            assert re.fullmatch(r"drqueue1:(node|user):\S+", self._line), said


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    with network(tmp_path, "server", "node1", "node2") as net:
        yield Terminals(net.machines, tmp_path)


def test_the_page_does_what_it_says(terminals: Terminals) -> None:
    """Every block runs; the job's frames ran on both nodes, and Anna is known where she logged in."""
    blocks = [(found["on"], found["how"].split(), found["text"]) for found in BLOCK.finditer(PAGE)]
    assert shutil.which("ip"), "checked by the marker"
    assert [on for on, _, _ in blocks[:5]] == ["server", "server", "node1", "node2", "server"]
    for on, how, text in blocks:
        for command in text.splitlines():
            terminals.type(on, command, how)
    said = dict(terminals.said)
    whoami = said["drqueue whoami"]
    assert "anna" in whoami
    assert "artist" in whoami
    slaves = said["drqueue slaves"]
    assert "node1" in slaves
    assert "node2" in slaves
