"""A real master on the loopback, by TLS: people who log in and are taken away, nodes asked by ticket."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from drqueue.client import Client, LimitsChange, NotLoggedIn, connect
from tests.e2e.helpers import Cli, until, wait_until
from tests.ports import free_port

pytestmark = pytest.mark.slow


@dataclass
class NetworkFarm:
    """A master that listens on the network; people and nodes are added to it."""

    folder: Path
    port: int = field(default_factory=free_port)
    daemons: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def admin(self) -> Cli:
        """Whoever works on the master's machine."""
        return Cli(self.folder / "master", self.folder)

    def person(self, name: str) -> Cli:
        """Somebody elsewhere, with a login of their own (or none so far)."""
        env = {
            "DRQUEUE_ACCESS": str(self.folder / name / "access.json"),
            "XDG_STATE_HOME": str(self.folder / name),
        }
        return Cli(self.folder / name / "farm", self.folder, env)

    def start(self, name: str, *words: str, **env: str) -> "subprocess.Popen[bytes]":
        """A daemon whose log is `name`.log."""
        with open(self.folder / f"{name}.log", "ab") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **env},
            )
        self.daemons.append(daemon)
        return daemon

    def start_master(self) -> "subprocess.Popen[bytes]":
        words = ("--state-dir", str(self.folder / "master"), "--listen", f"127.0.0.1:{self.port}")
        daemon = self.start("master", "drqueue.master", *words)
        with Client(f"unix:{self.folder}/master/master.sock", patience_s=30) as farm:
            farm.farm_info()
        return daemon

    def start_node(self, name: str, **env: str) -> None:
        """A node that joins by a line; returns once it is linked."""
        line = self.admin.run("node", "add", "--name", name).out.strip()
        state = ("--name", name, "--state-dir", str(self.folder / f"slave-{name}"))
        self.admin.run("join", line, *state, module="drqueue.slave")
        variables = {"DRQUEUE_GRACE_S": "0.5", "DRQUEUE_RUN_AS": "self", **env}
        self.start(name, "drqueue.slave", *state, "--kill-frames-on-exit", **variables)

        def linked() -> bool:
            return any(view.linked and view.name == name for view in client.slaves())

        with self.admin.client() as client:
            wait_until(f"{name} is linked", linked)

    def end(self) -> None:
        for daemon in reversed(self.daemons):
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGCONT)
                daemon.terminate()
            daemon.wait(30)


@contextmanager
def network_farm(folder: Path) -> Iterator[NetworkFarm]:
    farm = NetworkFarm(folder)
    try:
        farm.start_master()
        yield farm
    finally:
        farm.end()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[NetworkFarm]:
    with network_farm(tmp_path) as running:
        yield running


def log_in(farm: NetworkFarm, name: str, *options: str) -> Cli:
    line = farm.admin.run("user", "add", name, *options).out.strip()
    cli = farm.person(name)
    said = cli.run("login", line)
    assert said.out.startswith(f"logged in to 127.0.0.1:{farm.port} as {name} (")
    return cli


def test_a_person_comes_works_and_is_taken_away(farm: NetworkFarm) -> None:
    assert farm.person("anna").run("jobs", "--master", f"127.0.0.1:{farm.port}", status=3).sentence
    anna = log_in(farm, "anna")
    assert anna.run("login", "drqueue1:user:x", status=2).sentence
    assert anna.run("whoami", "--json").json["role"] == "artist"
    job = anna.submit("--", "true")
    assert anna.run("job", job, "--json").json["submitter"] == "anna"
    other = farm.admin.submit("--", "true")
    assert "anna" not in farm.admin.run("job", other, "--json").json["submitter"]
    assert anna.run("delete", other, status=3).sentence
    assert anna.run("user", "list", status=3).sentence
    farm.admin.run("user", "role", "anna", "viewer")
    assert "(not shown to viewers)" in anna.run("job", job).out
    assert anna.run("stop", job, status=3).sentence
    # A second login of the same person, and a new secret for the first.
    mine = [each["id"] for each in farm.admin.run("user", "list", "--json").json if each["name"] == "anna"]
    line = farm.admin.run("user", "rotate", mine[0]).out.strip()
    assert anna.run("login", line).status == 0
    assert anna.run("whoami").status == 0
    farm.admin.run("user", "revoke", "anna")
    assert "ask an admin for a line" in anna.run("jobs", status=3).sentence
    assert anna.run("logout").status == 0
    rows = farm.admin.run("audit", "--json").json
    refused = [row["what"] for row in rows if row["who"] == "anna" and row["outcome"] == "not-allowed"]
    assert len(refused) >= 3
    assert [row["outcome"] for row in rows if row["what"].startswith("user anna: revoke")] == ["done"]
    text = farm.admin.run("audit").out
    assert "\n!" in text
    assert line.rpartition(":")[2] not in json.dumps(rows), "a token"


def test_a_revoked_link_that_stands_is_cut(farm: NetworkFarm) -> None:
    anna = log_in(farm, "anna", "--role", "supervisor")

    async def use() -> None:
        async with connect(env=anna.environ()) as client:
            await client.farm_info()
            link = await client.linked(0)
            await trio.to_thread.run_sync(lambda: farm.admin.run("user", "revoke", "anna"))

            async def cut() -> bool:
                return link.over

            await until("the link is cut", cut)
            with pytest.raises(NotLoggedIn):
                await client.farm_info()

    trio.run(use)


def test_the_audit_is_followed_over_a_restart(farm: NetworkFarm) -> None:
    """kill -9 of the master: what was audited before is there, what comes after follows, nothing twice."""
    chief = log_in(farm, "chief", "--role", "admin")
    with chief.start("audit", "--follow", "--json", "-n", 1) as audit:
        assert "join" in json.loads(audit.line())["what"]
        farm.admin.run("user", "add", "bert")
        assert "bert" in json.loads(audit.line())["what"]
        farm.daemons[-1].kill()
        farm.daemons[-1].wait(30)
        farm.start_master()
        farm.admin.run("user", "add", "carl")
        while "carl" not in (row := json.loads(audit.line()))["what"]:
            assert "bert" not in row["what"]


def test_a_node_is_asked_directly_by_ticket(farm: NetworkFarm) -> None:
    """Limits and logs over the slave's own port; what was done there is in the master's audit."""
    farm.start_node("n1")
    boss = log_in(farm, "boss", "--role", "supervisor")
    job = boss.submit("--", "echo hello")
    boss.run("wait", job)

    async def use() -> None:
        async with connect(env=boss.environ()) as client:
            link = await client.direct("n1")
            assert link is not None
            assert (link.welcome.peer, link.local) == ("slave", False)
            await client.set_slave("n1", LimitsChange(max_cpus=1))
            assert await client.read_log(job, 1) == b"hello\n"

    trio.run(use)

    def audited() -> bool:
        return any(
            row["who"] == "boss" and "n1" in json.dumps(row) for row in farm.admin.run("audit", "--json").json
        )

    wait_until("the master hears of it", audited)
    anna = log_in(farm, "anna")
    with farm.admin.client() as client:
        assert client.slave("n1").limits.max_cpus == 1
    assert "supervisor" in anna.run("slave", "disable", "n1", status=3).sentence


BINDING = """
import drqueue
(job,) = drqueue.request_job_list(drqueue.CLIENT)
(computer,) = drqueue.request_computer_list(drqueue.CLIENT)
info = drqueue.frame_info()
drqueue.request_job_frame_info(job.id, 1, info, drqueue.CLIENT)
print(job.name, repr(job.cmd), job.frame_start, job.frame_end, computer.hwinfo.name, info.status)
try:
    print(job.request_stop(drqueue.CLIENT))
except OSError as error:
    print(error)
"""


def test_programs_of_the_original_s_library_come_in_by_the_same_login(farm: NetworkFarm) -> None:
    """An artist works with it; a viewer looks, without the command, and leaves no row in the audit for it."""
    farm.start_node("n1")
    anna, vic = log_in(farm, "anna"), log_in(farm, "vic", "--role", "viewer")
    job = anna.submit("--frames", "1-2", "--name", "hidden", "--", "true")
    anna.run("wait", job)

    def said(cli: Cli) -> list[str]:
        env = {**cli.environ(), "DRQUEUE_MASTER": f"127.0.0.1:{farm.port}"}
        return subprocess.run(
            [sys.executable, "-c", BINDING], env=env, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.splitlines()

    of_viewer, of_artist = said(vic), said(anna)
    assert of_artist[0].startswith("hidden 'true' 1 2 n1 ")
    assert of_viewer[0] == of_artist[0].replace("'true'", "''")
    assert "this takes an artist" in of_viewer[1]
    rows = farm.admin.run("audit", "--json").json
    assert [
        row["what"].split(":")[0] for row in rows if row["who"] == "vic" and row["outcome"] != "done"
    ] == [f"stop job {job} 'hidden'"]


def test_a_node_without_a_port_is_told_through_the_master(farm: NetworkFarm) -> None:
    farm.start_node("n1", DRQUEUE_CONTROL="false")
    boss = log_in(farm, "boss", "--role", "supervisor")
    boss.run("slave", "set", "n1", "--max-cpus", 1)
    assert boss.run("slave", "n1", "--json").json["limits"]["max_cpus"] == 1
    job = boss.submit("--", "echo hello")
    boss.run("wait", job)
    assert boss.run("log", job, 1).out == "hello\n"


def test_a_node_that_was_revoked_is_gone(farm: NetworkFarm) -> None:
    farm.start_node("n1")
    farm.admin.run("node", "revoke", "n1")

    def gone() -> bool:
        with farm.admin.client() as client:
            return not client.slave("n1").linked

    wait_until("it is unlinked", gone)
    assert farm.admin.run("node", "list", "--json").json == []
