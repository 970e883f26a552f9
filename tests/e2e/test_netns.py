"""The harness of machines in network namespaces does what tests on it rest on."""

import sys
from pathlib import Path

import pytest

from tests.e2e.helpers import wait_until
from tests.e2e.netns import Machine, needs_network, network

pytestmark = [pytest.mark.slow, needs_network]

_SERVE = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as listener:
    print("listening", flush=True)
    while True:
        with listener.accept()[0] as peer:
            peer.sendall(socket.gethostname().encode())
"""
_ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2])) as peer:
    print(peer.recv(100).decode())
"""


def asked(machine: Machine, address: str, patience_s: float = 10) -> str:
    """What a server says to a machine; "" where it cannot be reached."""
    return machine.run(sys.executable, "-S", "-c", _ASK, address, patience_s, status=None).out.strip()


def test_machines_reach_each_other_until_a_cable_is_pulled(tmp_path: Path) -> None:
    with network(tmp_path, "server", "node1", "node2") as net:
        server, node1, node2 = net.machines.values()
        assert len({server.address, node1.address, node2.address}) == 3
        with server.start(sys.executable, "-S", "-c", _SERVE, server.address) as running:
            assert running.line() == "listening\n"
            assert asked(node1, server.address) == asked(node2, server.address) == "server"
            node1.cut()
            assert asked(node1, server.address, 0.3) == ""
            assert asked(node2, server.address) == "server"
            node1.heal()
            wait_until("node1 is plugged in", lambda: asked(node1, server.address, 1) == "server")
            server.drop(7000)
            assert asked(node1, server.address, 0.3) == ""
            server.pass_on(7000)
            assert asked(node1, server.address) == "server"


def test_nothing_is_left_of_a_network(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), network(tmp_path, "one") as net:  # noqa: PT012
        one = net.machines["one"]
        left = one.start("sleep", 600)
        # Away from its parent and its session, as a keeper is.
        one.run("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 </dev/null &")
        wait_until("it runs", lambda: len(net.inside()) == 2)
        _ = 1 / 0
    assert net.inside() == []
    assert left.process.returncode == -9
    assert not Path(f"/proc/{one.pid}").exists()
