"""What systemd is told, over real datagram sockets."""

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.sdnotify import notify, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The other end of NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@drqueue-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield receiver


def test_lines_go_out_in_one_datagram(systemd: socket.socket) -> None:
    assert notify("READY=1", "STATUS=4 slaves, 7 frames")
    assert systemd.recv(4096) == b"READY=1\nSTATUS=4 slaves, 7 frames"


def test_a_value_forges_no_assignment(systemd: socket.socket) -> None:
    """A job's name in a STATUS may hold anything, undecodable bytes among it."""
    assert notify("STATUS=job\nMAINPID=1\r\udcff")
    received = systemd.recv(4096)
    assert b"\n" not in received
    assert received == b"STATUS=job MAINPID=1 \\udcff"


@pytest.mark.timeout(3)
def test_a_full_socket_neither_blocks_nor_raises(systemd: socket.socket) -> None:
    """Nobody reads: sooner or later a ping cannot be queued, and the daemon goes on."""
    assert any(not notify("WATCHDOG=1") for _ in range(100_000))


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1", "/nowhere/notify"])
def test_without_systemd_nothing_happens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", None, 15.0),
        ("30000000", "mine", 15.0),
        ("30000000", "1", None),
        (None, None, None),
        ("", None, None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
        ("²", None, None),
    ],
)
def test_watchdog_is_pinged_twice_per_timeout(
    usec: str | None, pid: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("WATCHDOG_USEC", usec),
        ("WATCHDOG_PID", str(os.getpid()) if pid == "mine" else pid),
    ):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_interval() == expected
