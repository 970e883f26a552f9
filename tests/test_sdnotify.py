"""What systemd is told, over real datagram sockets, and what it hands over, in real processes."""

import os
import secrets
import socket
import subprocess
import sys
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


# -- sockets that systemd opened -----------------------------------------------------------------------------

TAKE = """
import os
from drqueue.sdnotify import handed_over
try:
    for name, sock in handed_over():
        print(name, sock.family.name, os.get_inheritable(sock.fileno()), sock.getsockname())
except OSError as error:
    print("refused:", error)
print("again:", handed_over(), sorted(name for name in os.environ if name.startswith("LISTEN_")))
"""


def taken(files: list[int], names: str | None = None, pid: str = "$$", count: str = "") -> list[str]:
    """What a process says that was started as a socket unit starts it, with these descriptors from 3 on."""
    # A shell that becomes the program knows its pid; high copies keep one descriptor from closing another.
    high = [os.dup2(file, 60 + at) for at, file in enumerate(files)]
    moves = " ".join(f"{3 + at}<&{file} {file}<&-" for at, file in enumerate(high))
    named = f"LISTEN_FDNAMES={names} " if names is not None else ""
    line = f'LISTEN_PID={pid} LISTEN_FDS={count or len(files)} {named}exec "$0" -c "$1" {moves}'
    try:
        done = subprocess.run(
            ["bash", "-c", line, sys.executable, TAKE],
            pass_fds=high,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    finally:
        for file in high:
            os.close(file)
    return done.stdout.splitlines()


AGAIN = "again: [] []"


@pytest.mark.slow
def test_handed_over_sockets_are_taken_once_with_their_names(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(path)
        unix.listen()
        assert taken([unix.fileno(), tcp.fileno()], "master.socket:net") == [
            f"master.socket AF_UNIX False {path}",
            f"net AF_INET False {tcp.getsockname()}",
            AGAIN,
        ]
        # Names are an addition of later versions of systemd.
        assert taken([unix.fileno()]) == [f" AF_UNIX False {path}", AGAIN]
        assert taken([unix.fileno()], pid="1") == [AGAIN]
        assert taken([unix.fileno()], count="x") == [AGAIN]


@pytest.mark.slow
def test_what_is_no_listening_socket_is_refused_in_a_sentence() -> None:
    with socket.socket(socket.AF_INET) as idle, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        listening = "refused: descriptor 3, handed over by systemd, is no listening stream socket"
        assert taken([idle.fileno()]) == [listening, AGAIN]
        assert taken([datagram.fileno()]) == [listening, AGAIN]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets:
        packets.bind("")
        packets.listen()
        assert taken([packets.fileno()]) == [listening, AGAIN]
    read, write = os.pipe()
    assert taken([read]) == ["refused: descriptor 3, handed over by systemd, is no socket", AGAIN]
    os.close(read)
    os.close(write)
    assert taken([], count="1") == ["refused: descriptor 3, handed over by systemd, is no socket", AGAIN]
