"""Unix sockets at long paths, with stale files and with their mode."""

import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from drqueue.unixpath import bind_unix, connect_unix


@pytest.fixture(params=["short", "long"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path
    while request.param == "long" and len(str(folder)) < 300:
        folder = folder / ("d" * 60)
    folder.mkdir(exist_ok=True, parents=True)
    return str(folder / "master.sock")


def talk(server: socket.socket, path: str) -> bytes:
    with connect_unix(path) as client, server.accept()[0] as other:
        client.sendall(b"hello")
        return other.recv(10)


def test_bind_and_connect(path: str) -> None:
    with bind_unix(path) as server:
        assert talk(server, path) == b"hello"


def test_a_relative_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with bind_unix("s") as server:
        assert talk(server, "s") == b"hello"


@pytest.mark.parametrize("mode", [0o600, 0o666])
@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_mode_is_exact_whatever_the_umask(path: str, mode: int, mask: int) -> None:
    before = os.umask(mask)
    try:
        with bind_unix(path, mode):
            assert stat.S_IMODE(os.stat(path).st_mode) == mode
    finally:
        os.umask(before)


def test_the_file_is_never_more_open_than_asked(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after bind, before anything else is done to the file."""
    seen = []
    real = os.chmod

    def chmod(name: str, mode: int, **how: int) -> None:
        seen.append(stat.S_IMODE(os.stat(path).st_mode))
        real(name, mode, **how)

    monkeypatch.setattr(os, "chmod", chmod)
    before = os.umask(0)
    try:
        bind_unix(path, 0o600).close()
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_stale_socket_is_replaced(path: str) -> None:
    bind_unix(path).close()
    assert os.path.exists(path)
    with pytest.raises(ConnectionRefusedError):
        connect_unix(path)
    with bind_unix(path) as server:
        assert talk(server, path) == b"hello"


def test_a_socket_that_answers_is_left_alone(path: str) -> None:
    with bind_unix(path) as server:
        with pytest.raises(OSError, match=r"in use") as caught:
            bind_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
        server.accept()[0].close()
        assert talk(server, path) == b"hello"


def test_a_socket_too_busy_to_answer_is_left_alone(path: str) -> None:
    with bind_unix(path, backlog=0):
        clients = [connect_unix(path, blocking=False)]
        with pytest.raises(BlockingIOError):
            connect_unix(path, blocking=False)
        with pytest.raises(OSError, match=r"in use"):
            bind_unix(path)
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_is_no_socket_is_left_alone(path: str, kind: str) -> None:
    if kind == "file":
        Path(path).write_text("precious")
    elif kind == "link":
        os.symlink("elsewhere", path)
    else:
        os.mkdir(path)
    with pytest.raises(FileExistsError):
        bind_unix(path)
    assert os.path.lexists(path)


def test_of_many_that_bind_at_once_one_wins_and_can_be_reached(path: str) -> None:
    bind_unix(path).close()
    barrier = threading.Barrier(8)
    won: list[socket.socket] = []
    lost: list[OSError] = []

    def start() -> None:
        barrier.wait()
        try:
            won.append(bind_unix(path))
        except OSError as error:
            lost.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {error.errno for error in lost} == {errno.EADDRINUSE}
    assert len(won) == 1
    for _ in lost:
        won[0].accept()[0].close()
    assert talk(won[0], path) == b"hello"
    won[0].close()


def test_missing_places_are_plain_errors_and_leak_nothing(path: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        connect_unix(path)
    with pytest.raises(FileNotFoundError):
        bind_unix(os.path.join(os.path.dirname(path), "missing", "s"))
    with pytest.raises(OSError, match=r"too long"):
        bind_unix(path + "x" * 150)
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptors_are_not_inherited(path: str) -> None:
    with bind_unix(path) as server, connect_unix(path) as client:
        assert not server.get_inheritable()
        assert not client.get_inheritable()
