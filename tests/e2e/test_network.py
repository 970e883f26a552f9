"""A farm of real daemons on machines of their own: who gets in, what the way there may do, who is kept out.

The server, two nodes and the desks of people are network namespaces on a switch (tests/e2e/netns.py). Nodes
and people get in as they do anywhere, by a line that is pasted.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.client import Client
from drqueue.proto.views import AuditView, JobView, SlaveView
from tests.e2e.helpers import LEDGER, Running, Said, lives, wait_until
from tests.e2e.netns import Machine, Network, needs_network, network

pytestmark = [pytest.mark.slow, needs_network]

STRANGER = Path(__file__).with_name("stranger.py")
#: Silence is noticed within two seconds; where everybody is root, no slave can change users.
QUICK = {
    "DRQUEUE_BEAT_S": "0.5",
    "DRQUEUE_SILENCE_S": "2",
    "DRQUEUE_BACKOFF_S": "0.05",
    "DRQUEUE_GRACE_S": "0.5",
    "DRQUEUE_RUN_AS": "self",
    "DRQUEUE_CORES": "1",
}


class Site:
    """A network with a master on its server, and who joined it."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.server = net.machines["server"]
        self.daemons: dict[str, Running] = {}
        self.start(self.server, "-m", "drqueue.master", "--listen", "0.0.0.0:1234")
        #: Who works on the server, as a program: a command of its own for each look takes its time.
        self.admin = Client(f"unix:{self.server.home}/state/master.sock")

    def env(self, machine: Machine) -> dict[str, str]:
        """The environment of what runs on a machine, daemons and commands alike."""
        return {**QUICK, "DRQUEUE_STATE_DIR": str(machine.home / "state")}

    def said(self, machine: Machine) -> str:
        """What the daemon of a machine has logged so far."""
        return (machine.home / "log").read_text()

    def start(self, machine: Machine, *words: object) -> None:
        """Start a daemon; returns once it is up."""
        (machine.home / "log").write_text("")
        self.daemons[machine.name] = machine.start(
            sys.executable, *words, env=self.env(machine), err=machine.home / "log"
        )
        wait_until(f"the daemon of {machine.name} is up", lambda: " is up" in self.said(machine))

    def drqueue(self, machine: Machine, *words: object, status: int | None = 0) -> Said:
        """A command, typed on a machine."""
        return machine.drqueue(*words, status=status, env=self.env(machine))

    def line(self, *words: object) -> str:
        """A line for a node or a person."""
        return self.drqueue(self.server, *words).out.strip()

    def add_node(self, name: str) -> Machine:
        """A machine that joined by a line, and runs its slave."""
        machine = self.net.machines[name]
        line = self.line("node", "add")
        self.start(machine, "-m", "drqueue.slave", "join", line, "--run")
        self.until_linked(name)
        return machine

    def add_person(self, name: str, role: str) -> Machine:
        """A machine on which somebody logged in, called as they are."""
        machine = self.net.add(name)
        self.drqueue(machine, "login", self.line("user", "add", name, "--role", role))
        return machine

    def slave(self, name: str) -> SlaveView:
        """A slave as the master knows it."""
        return self.admin.slave(name)

    def until_linked(self, name: str, linked: bool = True) -> None:
        wait_until(
            f"{name} is {'linked' if linked else 'not linked'}",
            lambda: [view.linked for view in self.admin.slaves() if view.name == name] == [linked],
        )

    def audited(self, what: str, **fields: object) -> list[AuditView]:
        """Rows of the audit that hold this word and have these fields."""
        return [
            row
            for row in self.admin.audit(500)
            if what in row.what and all(getattr(row, name) == value for name, value in fields.items())
        ]

    def submit(self, machine: Machine, *words: object) -> int:
        return int(self.drqueue(machine, "submit", "--cwd", "/", *words).out)

    def finished(self, job: int) -> JobView:
        """A job once it is finished; all its frames must be done."""
        (view,) = self.admin.wait([job])
        assert view.counts.done == view.counts.total, view.counts
        return view


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with network(tmp_path, "server", "node1", "node2") as net:
        site = Site(net)
        with site.admin:
            yield site


def waits_for(path: Path) -> str:
    """A frame's command that goes on until a file is there, and says when it begins and ends."""
    return f"touch {path}.began; while [ ! -e {path} ]; do sleep 0.05; done; touch {path}.ended"


def test_a_job_renders_on_both_nodes(site: Site, tmp_path: Path) -> None:
    site.add_node("node1")
    site.add_node("node2")
    ledger = tmp_path / "ledger"
    command = (sys.executable, "-S", LEDGER, ledger, "0.3")
    job = site.submit(site.server, "--frames", "1-8", "--", *command)
    assert site.finished(job).counts.done == 8
    assert {view.slave for view in site.admin.frames(job)} == {"node1", "node2"}
    starts, ends, overlaps = lives(ledger)
    assert set(starts.values()) == set(ends.values()) == {1}
    assert overlaps == 0
    # The whole log is on the node, and read from there.
    assert site.drqueue(site.server, "log", job, 1).status == 0


def test_a_slave_is_asked_directly_and_through_the_master_where_that_fails(site: Site) -> None:
    node = site.add_node("node1")
    control = site.slave("node1").control
    assert control.startswith(f"{node.address}:")
    site.drqueue(site.server, "slave", "disable", "node1")
    # The slave itself saw who came, over the network; what is passed on comes from a socket.
    (row,) = wait_until("it is audited", lambda: site.audited("enabled=no") or None)
    assert (row.role, row.outcome) == ("admin", "done")
    assert row.peer == f"slave node1 says: {site.server.address}"
    wait_until("the master knows", lambda: site.slave("node1").limits.enabled is False)

    node.drop(int(control.rpartition(":")[2]))
    began = time.monotonic()
    said = site.drqueue(site.server, "slave", "enable", "node1")
    assert time.monotonic() - began < 10
    assert said.err == ""
    wait_until("the master knows", lambda: site.slave("node1").limits.enabled is True)
    (row,) = site.audited("enabled=yes")
    assert (row.outcome, row.peer.startswith("uid ")) == ("done", True)


def test_a_frame_outlives_a_cut_of_its_nodes_link(site: Site, tmp_path: Path) -> None:
    node = site.add_node("node1")
    go = tmp_path / "go"
    job = site.submit(site.server, "--", waits_for(go))
    wait_until("the frame runs", lambda: site.admin.frames(job)[0].state == "RUNNING")
    node.cut()
    site.until_linked("node1", linked=False)
    assert not Path(f"{go}.ended").exists()
    go.touch()
    wait_until("the frame has ended", lambda: Path(f"{go}.ended").exists())
    (frame,) = site.admin.frames(job)
    assert frame.state == "RUNNING"
    node.heal()
    site.finished(job)
    attempts = site.admin.attempts(job, 1)
    assert [attempt.outcome for attempt in attempts] == ["done"]


def test_a_node_that_is_revoked_is_cut_off_and_stays_out(site: Site) -> None:
    node = site.add_node("node1")
    site.add_node("node2")
    began = time.monotonic()
    site.drqueue(site.server, "node", "revoke", "node1")
    site.until_linked("node1", linked=False)
    assert time.monotonic() - began < 10
    # Started anew, it shows the same secret, and is refused.
    with site.daemons["node1"] as running:
        running.process.terminate()
        running.finish()
    site.start(node, "-m", "drqueue.slave")
    wait_until("it says so", lambda: "refuses this slave" in site.said(node))
    assert site.audited("link as a slave", outcome="no-account", peer=node.address)
    assert site.slave("node1").linked is False
    assert site.slave("node2").linked is True
    assert "node1" not in {view.name for view in site.admin.accounts("node")}


def test_somebody_works_from_a_machine_of_their_own(site: Site) -> None:
    site.add_node("node1")
    anna = site.add_person("anna", "artist")
    you = json.loads(site.drqueue(anna, "whoami", "--json").out)
    assert (you["name"], you["role"], you["peer"]) == ("anna", "artist", anna.address)
    others = site.submit(site.server, "--", "true")
    own = site.submit(anna, "--", "echo hello from anna")
    assert site.finished(own).submitter == "anna"
    assert "hello from anna" in site.drqueue(anna, "log", own, 1).out
    refused = site.drqueue(anna, "delete", others, status=3)
    assert refused.sentence.count(str(others)) >= 1
    assert site.admin.job(others)[0].id == others
    assert site.drqueue(anna, "slave", "disable", "node1", status=3).sentence
    assert site.slave("node1").limits.enabled is True
    site.drqueue(anna, "delete", own)
    # What a person may not do is told with who they are, and where they came from.
    assert site.audited("", who="anna", outcome="not-allowed")

    site.drqueue(site.server, "user", "revoke", "anna")
    assert site.drqueue(anna, "jobs", status=None).status != 0


def test_somebody_who_is_revoked_is_cut_off_at_slaves_too(site: Site, tmp_path: Path) -> None:
    site.add_node("node1")
    anna = site.add_person("anna", "artist")
    go = tmp_path / "go"
    job = site.submit(anna, "--", f"echo first; {waits_for(go)}; echo last")
    wait_until("the frame runs", lambda: Path(f"{go}.began").exists())
    log = anna.start(
        sys.executable, "-m", "drqueue", "log", job, 1, "--follow", env=site.env(anna), err=tmp_path / "err"
    )
    assert log.line() == "first\n"
    site.drqueue(site.server, "user", "revoke", "anna")
    said = log.finish()
    assert (said.status != 0, "last" in said.out) == (True, False)
    assert "Traceback" not in (tmp_path / "err").read_text()
    # Whoever it was: what they had submitted goes on.
    go.touch()
    site.finished(job)


def test_a_copy_of_a_nodes_disk_does_not_take_its_place(site: Site) -> None:
    node, thief = site.add_node("node1"), site.net.machines["node2"]
    shutil.copytree(
        node.home / "state" / "slave-node1",
        thief.home / "state" / "slave-node2",
        ignore=lambda folder, names: [name for name in names if (Path(folder) / name).is_socket()],
    )
    # Another machine does not see the original.
    identity = thief.home / "state" / "slave-node2" / "identity.json"
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "path": "/elsewhere"}))
    site.start(thief, "-m", "drqueue.slave", "--name", "node2")
    wait_until("it is told no", lambda: "refuses this slave" in site.said(thief))
    assert site.slave("node1").linked is True
    assert [view.name for view in site.admin.slaves()] == ["node1"]
    assert site.audited("link slave", outcome="identity-in-use", peer=thief.address)


def test_no_log_and_no_answer_holds_a_secret(site: Site) -> None:
    node = site.add_node("node1")
    anna = site.add_person("anna", "artist")
    job = site.submit(anna, "--env", "SITE_TOKEN=verysecretword", "--", "true")
    site.finished(job)
    files = [
        site.server.home / "state" / "admin.json",
        node.home / "state" / "slave-node1" / "access.json",
        anna.home / ".config" / "drqueue" / "access.json",
    ]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 3
    secrets = ["verysecretword"]
    for path in files:
        for way in json.loads(path.read_text())["farms"]:
            secrets += [way["secret"], *way.get("key", "").splitlines()[1:-1]]
    assert len(secrets) >= 5
    told = [site.said(site.server), site.said(node)]
    views = (
        site.admin.audit(500),
        site.admin.accounts("node"),
        site.admin.accounts("user"),
        site.admin.slaves(),
    )
    told += [*map(repr, views), site.drqueue(site.server, "doctor", "node1", status=None).out]
    told += [site.drqueue(site.add_person("vera", "viewer"), "job", job, status=None).out]
    for secret in secrets:
        assert not any(secret in text for text in told)


def test_a_doctor_sees_a_farm_from_every_side(site: Site) -> None:
    node = site.add_node("node1")
    node2 = site.add_node("node2")
    found = site.drqueue(site.server, "doctor", "--json", status=None)
    rows = json.loads(found.out)
    assert [row for row in rows if row["state"] == "bad"] == []
    assert {row["where"] for row in rows} == {"this machine", "master", "slave node1", "slave node2"}
    ways = {row["where"]: row for row in rows if row["what"] == "from here"}
    assert node.address in ways["slave node1"]["text"]
    node.drop(int(site.slave("node1").control.rpartition(":")[2]))
    node2.cut()
    site.until_linked("node2", linked=False)
    (node2.home / "state").chmod(0o755)
    said = site.drqueue(site.server, "doctor", status=1)
    assert "through the master" in said.out
    assert "BAD   to its master" in said.out
    anna = site.add_person("anna", "artist")
    (anna.home / ".config" / "drqueue" / "access.json").chmod(0o644)
    told = site.drqueue(anna, "doctor", status=None)
    assert told.status != 0
    assert "chmod 600" in told.out


def test_a_node_asks_without_a_line_and_is_approved(site: Site) -> None:
    node = site.net.machines["node1"]
    (node.home / "log").write_text("")
    site.daemons["node1"] = node.start(
        sys.executable, "-m", "drqueue.slave", "join", site.server.address, "--run",
        env=site.env(node), err=node.home / "log",
    )  # fmt: skip
    (pending,) = wait_until("it asks", lambda: site.admin.accounts("node", pending=True) or None)
    # The same code on both sides: nobody sits in between.
    wait_until("it says its code", lambda: pending.code in site.said(node))
    assert site.admin.slaves() == ()
    site.drqueue(site.server, "node", "approve", pending.code)
    site.until_linked("node1")


@pytest.mark.parametrize("at", ["master", "slave"])
def test_a_stranger_is_refused_before_much_is_looked_at(site: Site, at: str) -> None:
    node = site.add_node("node1")
    desk = site.net.add("desk")
    host, port = (site.server.address, "1234") if at == "master" else site.slave("node1").control.split(":")
    secret = json.loads((node.home / "state" / "slave-node1" / "access.json").read_text())["farms"][0][
        "secret"
    ]

    def tries(what: str, *words: str) -> str:
        return desk.run(sys.executable, STRANGER, host, port, what, *words).out.strip()

    # Not TLS: no word of ours is ever said in the clear.
    assert tries("garbage") in ("closed", "alert")
    assert tries("plain-hi") in ("closed", "alert")
    assert tries("old-tls") == "no handshake"
    # TLS, and then something else than a first word that proves who it is.
    assert tries("nothing-shown") == "rejected"
    assert tries("wrong-secret") == "rejected"
    assert tries("claims-4097") == "closed"
    assert tries("garbage-inside") == "closed"
    assert tries("asks-first") == "closed"
    # A node's secret is no client's.
    assert tries("secret", secret) == "rejected"
    assert site.slave("node1").linked is True
    assert site.admin.farm_info().jobs == 0
