"""Where a master listens, and what it tells others to dial."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drqueue.address import Address, SettingsError
from drqueue.master import listening
from drqueue.master.listening import listeners, other_addresses, place, reached_at
from drqueue.settings import MasterSettings
from tests import ports


@pytest.fixture
def free_port() -> int:
    return ports.free_port()


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., MasterSettings]:
    def made(**values: Any) -> MasterSettings:
        return MasterSettings(state_dir=str(tmp_path), **values)

    return made


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[socket.socket]]:
    """Sockets that systemd opened for this process."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "by-systemd.sock"))
    unix.listen()
    opened = [unix]
    monkeypatch.setattr("drqueue.sdnotify.handed_over", lambda: [(f"s{n}", s) for n, s in enumerate(opened)])
    yield opened
    for sock in opened:
        sock.close()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_the_unix_socket_alone_where_nothing_else_was_asked_for(
    settings: Callable[..., MasterSettings],
) -> None:
    asked = settings(socket_mode=0o660)
    with listeners(asked) as opened:
        (only,) = opened
        assert place(only) == f"unix:{asked.socket}"
        assert stat.S_IMODE(os.stat(asked.socket).st_mode) == 0o660
        assert reached_at(asked, opened).port == 0
    assert not os.path.exists(asked.socket)


def test_a_socket_of_systemds_is_neither_bound_nor_removed(
    settings: Callable[..., MasterSettings], handed: list[socket.socket]
) -> None:
    asked = settings()
    path = handed[0].getsockname()
    with listeners(asked) as opened:
        assert [place(sock) for sock in opened] == [f"unix:{path}"]
        assert not os.path.exists(asked.socket)
    assert os.path.exists(path)


def test_a_port_of_systemds_takes_the_place_of_the_setting(
    settings: Callable[..., MasterSettings], handed: list[socket.socket]
) -> None:
    handed.pop().close()
    handed.append(socket.create_server(("127.0.0.1", 0)))
    port = handed[0].getsockname()[1]
    asked = settings(listen=f"127.0.0.1:{port}")
    with listeners(asked) as opened:
        assert [place(sock) for sock in opened] == [f"unix:{asked.socket}", f"127.0.0.1:{port}"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_the_network_where_it_was_asked_for(
    settings: Callable[..., MasterSettings], free_port: int, host: str
) -> None:
    with listeners(settings(listen=f"{host}:{free_port}")) as opened:
        assert len(opened) >= 2
        with socket.create_connection(("127.0.0.1", free_port), 5):
            pass
        assert all(not sock.getblocking() for sock in opened)
    # At once, in spite of links that were just closed.
    with listeners(settings(listen=f"{host}:{free_port}")):
        pass


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")
def test_both_families_at_the_ipv6_wildcard(settings: Callable[..., MasterSettings], free_port: int) -> None:
    with listeners(settings(listen=f"[::]:{free_port}")) as opened:
        assert place(opened[1]) == f"[::]:{free_port}"
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, free_port), 5):
                pass


def test_a_taken_port_is_one_sentence_and_leaves_nothing(settings: Callable[..., MasterSettings]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        asked = settings(listen=where)
        says = f"cannot listen at {where}: another program listens there already"
        with pytest.raises(OSError, match=says), listeners(asked):
            raise AssertionError("it was taken")
        assert not os.path.exists(asked.socket)


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("unix:/tmp/x", r"^listen must be HOST:PORT, as in 0\.0\.0\.0:1234, not 'unix:/tmp/x'$"),
        (":1234", r"^listen must be HOST:PORT, as in 0\.0\.0\.0:1234, not ':1234'$"),
        ("a b:1", "not 'a b:1'$"),
        ("127.0.0.1:99999", "not '127.0.0.1:99999': a port is a number from 1 to 65535$"),
    ],
)
def test_what_is_no_place_is_refused(settings: Callable[..., MasterSettings], listen: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says), listeners(settings(listen=listen)):
        raise AssertionError("it is none")


def test_an_address_of_another_machine_is_refused(
    settings: Callable[..., MasterSettings], free_port: int
) -> None:
    asked = settings(listen=f"192.0.2.1:{free_port}")
    with pytest.raises(OSError, match=rf"cannot listen at 192\.0\.2\.1:{free_port}: "), listeners(asked):
        raise AssertionError("it is not ours")


# -- what others dial ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("farm.example.org", ("farm.example.org", None)),
        ("farm.example.org:7777", ("farm.example.org", 7777)),
        ("farm.example.org:1234", ("farm.example.org", 1234)),
        ("fd00::1234", ("fd00::1234", None)),
        ("[fd00::1]:1234", ("fd00::1", 1234)),
        ("", ("127.0.0.1", None)),
    ],
)
def test_others_dial_what_was_set_else_where_it_listens(
    settings: Callable[..., MasterSettings],
    free_port: int,
    address: str,
    expected: tuple[str, int | None],
) -> None:
    asked = settings(listen=f"127.0.0.1:{free_port}", address=address)
    with listeners(asked) as opened:
        assert reached_at(asked, opened) == Address("tcp", host=expected[0], port=expected[1] or free_port)


def test_a_wildcard_is_nothing_that_anybody_could_dial(
    settings: Callable[..., MasterSettings], free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The own address on the way out; without one, an interface's; without that, the name."""
    asked = settings(listen=f"0.0.0.0:{free_port}")
    with listeners(asked) as opened:
        found = reached_at(asked, opened)
        assert found.port == free_port
        assert found.host not in ("0.0.0.0", "::", "")

        monkeypatch.setattr(listening, "_NOWHERE", ())
        assert reached_at(asked, opened).host == os.uname().nodename

        # 256.0.0.1 is nowhere at all: no way leads there.
        monkeypatch.setattr(listening, "_NOWHERE", ((socket.AF_INET, "256.0.0.1"),))
        named = {
            "eth0": [SimpleNamespace(family=socket.AF_INET, address="10.9.8.7")],
            "down": [SimpleNamespace(family=socket.AF_INET, address="10.1.1.1")],
            "lo": [SimpleNamespace(family=socket.AF_INET, address="127.0.0.1")],
        }
        monkeypatch.setattr("psutil.net_if_addrs", lambda: named)
        monkeypatch.setattr(
            "psutil.net_if_stats",
            lambda: {name: SimpleNamespace(isup=name != "down") for name in named},
        )
        assert reached_at(asked, opened).host == "10.9.8.7"


def test_the_other_addresses_where_one_had_to_be_taken(
    settings: Callable[..., MasterSettings], free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = ["127.0.0.1", "10.9.8.7", "192.0.2.7", "169.254.1.1"]
    named = {"eth0": [SimpleNamespace(family=socket.AF_INET, address=host) for host in hosts]}
    named["eth0"].append(SimpleNamespace(family=socket.AF_INET6, address="fd00::1"))
    monkeypatch.setattr("psutil.net_if_addrs", lambda: named)
    monkeypatch.setattr("psutil.net_if_stats", lambda: {"eth0": SimpleNamespace(isup=True)})
    taken = Address("tcp", host="10.9.8.7", port=free_port)

    def others(**values: str) -> tuple[str, ...]:
        asked = settings(**values)
        with listeners(asked) as opened:
            return other_addresses(asked, opened, taken)

    assert others(listen=f"0.0.0.0:{free_port}") == ("192.0.2.7",)
    assert others(listen=f"0.0.0.0:{free_port}", address="farm.example.org") == ()
    assert others(listen=f"127.0.0.1:{free_port}") == ()
    assert others() == ()
    hosts.remove("192.0.2.7")
    named["eth0"] = [entry for entry in named["eth0"] if entry.address in (*hosts, "fd00::1")]
    assert others(listen=f"0.0.0.0:{free_port}") == (), "one alone is no choice"


@pytest.mark.parametrize("address", ["unix:/run/x", "a b"])
def test_an_address_that_is_none_is_refused(settings: Callable[..., MasterSettings], address: str) -> None:
    with pytest.raises(SettingsError, match="address must be HOST or HOST:PORT"):
        reached_at(settings(address=address), [])
