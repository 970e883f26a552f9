"""The master as a process that is started: its files, where it listens, whose links it knows."""

import json
import os
import pickle
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drqueue.access import read_access
from drqueue.master.admin import ADMIN_FILE
from drqueue.master.core.records import AccountRecord
from drqueue.master.storage.statedir import open_state
from drqueue.proto.link_messages import Rejected, Welcome
from drqueue.proto.messages import GetSpec, JobVerb, ListAudit, Refusal, Spec, Submit, WhoAmI, You
from drqueue.tls import pin_of_pem
from drqueue.unixpath import bind_unix
from tests.builders import a_job
from tests.master.test_daemon import PATIENCE_S, Link, Running, a_master, run_master
from tests.ports import free_port

pytestmark = pytest.mark.slow

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
#: A user id without an entry, and one with.
NAMELESS, NOBODY = 54_321, 65_534


# -- files -------------------------------------------------------------------------------------------


def test_the_first_start_makes_everything_and_the_second_keeps_it(tmp_path: Path) -> None:
    state, port = tmp_path / "state", free_port()
    with a_master(state) as master:
        said = master.logged("master is up")
        assert master.stop() == 0
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in state.iterdir() if file.is_file()}
    assert {"tls.crt", "tls.key", ADMIN_FILE, "farm.json", "master.db"} <= set(files)
    assert set(files.values()) == {0o600}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    pin = pin_of_pem((state / "tls.crt").read_text())
    assert f"pin={pin}" in said
    assert f"at=unix:{state}/master.sock" in said
    (way,) = read_access(str(state / ADMIN_FILE))
    farm = json.loads((state / "farm.json").read_text())["farm"]
    assert (way.name, way.role, way.pin, way.farm) == ("admin", "admin", pin, farm)

    with a_master(state, "--listen", f"127.0.0.1:{port}") as master:
        said = master.logged("master is up")
        assert f"pin={pin}" in said
        assert f'at="unix:{state}/master.sock, 127.0.0.1:{port}"' in said
        assert master.stop() == 0
    (after,) = read_access(str(state / ADMIN_FILE))
    assert (str(after.address), after.secret) == (f"127.0.0.1:{port}", way.secret)


def test_a_lost_admin_is_made_anew_and_the_old_one_is_nobody(tmp_path: Path) -> None:
    """What the operations page says: delete the file, and start again."""
    import trio

    from drqueue.address import Address
    from drqueue.dialling import open_channel
    from drqueue.proto.handshake import Dialler, HandshakeRejected

    async def enters(secret: str) -> bool:
        at = Address("tcp", host="127.0.0.1", port=port)
        async with await open_channel(at, pin=old.pin) as channel:
            try:
                await channel.dial(Dialler("client", "test", secret=secret))
            except HandshakeRejected as error:
                return error.code != "no-account"
            return True

    state, port = tmp_path / "state", free_port()
    with a_master(state, "--listen", f"127.0.0.1:{port}") as master:
        (old,) = read_access(str(state / ADMIN_FILE))
        assert trio.run(enters, old.secret)
        assert master.stop() == 0
    (state / ADMIN_FILE).unlink()
    with a_master(state, "--listen", f"127.0.0.1:{port}") as master:
        (new,) = read_access(str(state / ADMIN_FILE))
        assert trio.run(enters, new.secret)
        assert not trio.run(enters, old.secret)
        assert master.stop() == 0


def test_a_certificate_without_its_key_ends_the_start_in_a_sentence(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with a_master(state) as master:
        assert master.stop() == 0
    (state / "tls.key").unlink()
    status, said = run_master(state)
    assert (status, said.count("\n")) == (1, 1)
    assert "tls.key is missing" in said
    assert not (state / "master.sock").exists()


def test_a_lost_certificate_that_others_know_is_made_anew_only_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    """A disk that was lost, and a backup of the database alone."""
    state = tmp_path / "state"
    with a_master(state) as master:
        assert master.stop() == 0
    for name in ("tls.key", "tls.crt"):
        (state / name).unlink()
    with a_master(state) as master:
        assert master.stop() == 0, "nobody but the admin of its own file knew it"
    opened = open_state(str(state))
    node = AccountRecord(
        id="n", kind="node", name="n1", role="node", secret_hash="h", created_at=1.0, created_by="root"
    )
    opened.storage.commit([node])
    opened.close()
    for name in ("tls.key", "tls.crt"):
        (state / name).unlink()
    status, said = run_master(state)
    assert (status, said.count("\n")) == (1, 1)
    assert "tls.crt are missing, and nodes or users know them: restore both from a backup" in said
    assert not (state / "tls.key").exists()
    with a_master(state, "--new-certificate") as master:
        assert master.stop() == 0
    with a_master(state) as master:
        assert master.stop() == 0


def test_an_admin_file_that_others_can_read_ends_the_start_in_a_sentence(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with a_master(state) as master:
        assert master.stop() == 0
    (state / ADMIN_FILE).chmod(0o644)
    status, said = run_master(state)
    assert (status, said.count("\n")) == (1, 1)
    assert f"chmod 600 {state / ADMIN_FILE}" in said


# -- where it listens ----------------------------------------------------------------------------------


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        status, said = run_master(tmp_path / "state", "--listen", where)
    assert status == 1
    assert said == f"drqueue-master: cannot listen at {where}: another program listens there already\n"
    assert not (tmp_path / "state" / "master.sock").exists()


@pytest.mark.parametrize("listen", ["unix:/tmp/x", "127.0.0.1:zwei", "127.0.0.1:70000"])
def test_what_is_no_place_is_wrong_usage(tmp_path: Path, listen: str) -> None:
    status, said = run_master(tmp_path / "state", "--listen", listen)
    assert (status, said.count("\n")) == (2, 1)
    assert "listen" in said


def test_an_address_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text('address = "unix:/x"')
    status, said = run_master(tmp_path / "state", "--config", str(config))
    assert (status, said.count("\n")) == (2, 1)
    assert "address must be HOST or HOST:PORT, as others dial it, not 'unix:/x'" in said


class Activated(Running):
    """A master that a socket unit started: descriptor 3 is its socket."""

    def __init__(self, state: Path, listener: socket.socket, env: dict[str, str]) -> None:
        self.state = state
        self.socket = Path(listener.getsockname())
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.settimeout(PATIENCE_S)
        path = state.with_name(f"{state.name}.notify")
        self._notify.bind(str(path))
        words = [sys.executable, "-m", "drqueue.master", "--state-dir", str(state)]
        # A shell that becomes the program knows its pid.
        line = f'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=master exec "$@" 3<&{listener.fileno()}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, "master", *words],
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[listener.fileno()],
            env={**os.environ, "NOTIFY_SOCKET": str(path), **env},
        )


def test_a_socket_of_systemds_is_served_and_stays_when_the_master_goes(tmp_path: Path) -> None:
    """Links that come between two masters wait in its queue; a second start takes it over again."""
    path = tmp_path / "run.sock"
    with closing(bind_unix(str(path), 0o666)) as listener:
        early = Link(path)
        for epoch in (1, 2):
            with closing(Activated(tmp_path / "state", listener, {})) as master:
                if epoch == 1:
                    with early:
                        assert isinstance(early.greet(), Welcome)
                assert master.epoch() == epoch
                assert f"at=unix:{path}" in master.logged("master is up")
                assert not (tmp_path / "state" / "master.sock").exists()
                assert master.stop() == 0
            (tmp_path / "state.notify").unlink()
            assert stat.S_IMODE(path.stat().st_mode) == 0o666


# -- who is on its Unix socket ---------------------------------------------------------------------------


def as_user(uid: int, do: Callable[[], Any]) -> Any:
    """What `do` returns in a process of that user's; its exceptions are raised here."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            result = (True, do())
        except BaseException as error:  # noqa: BLE001  (it has to be known over there)
            result = (False, repr(error))
        os.write(write, pickle.dumps(result))
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        well, result = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    assert well, result
    return result


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """A master whose socket everybody may open, in a folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="drqueue-test-"))
    folder.chmod(0o755)
    try:
        words = {
            "DRQUEUE_SOCKET": str(folder / "farm.sock"),
            "DRQUEUE_SOCKET_MODE": "666",
            "DRQUEUE_LOCAL_ROLES": "nobody=supervisor,1007=viewer,1008=node",
            "DRQUEUE_ARTIST_MAX_PRIORITY": "700",
        }
        with a_master(folder / "state", **words) as master:
            master.socket = folder / "farm.sock"
            yield master
            assert master.stop() == 0
    finally:
        shutil.rmtree(folder)


def greeted(master: Running, role: str = "client") -> Any:
    with Link(master.socket) as link:
        return link.greet(role=role)


def you(master: Running) -> tuple[str, str, str, str]:
    with master.link() as link:
        answer = link.ask(WhoAmI)
    assert isinstance(answer, You), answer
    return answer.name, answer.role, answer.account, answer.peer


@needs_root
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_kernel_says_who_is_on_the_unix_socket(shared: Running) -> None:
    """Root is an admin, others are artists by name or number, or what the setting says."""
    assert you(shared) == ("root", "admin", "", "uid 0")
    assert as_user(NAMELESS, lambda: you(shared)) == (
        f"uid {NAMELESS}", "artist", "", f"uid {NAMELESS}",
    )  # fmt: skip
    assert as_user(NOBODY, lambda: you(shared)) == ("nobody", "supervisor", "", f"uid {NOBODY}")
    assert as_user(1007, lambda: you(shared))[1] == "viewer"


@needs_root
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_who_may_run_a_slave_over_the_unix_socket(shared: Running) -> None:
    assert isinstance(greeted(shared, "slave"), Welcome)
    assert isinstance(as_user(1008, lambda: greeted(shared, "slave")), Welcome)
    for uid, role in ((NAMELESS, "slave"), (NOBODY, "slave"), (1008, "client")):
        answer = as_user(uid, partial(greeted, shared, role))
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retry) == ("not-allowed", False)
    with shared.link() as link:
        rows = link.ask(ListAudit)
        assert [row.what for row in rows.rows if row.peer == "uid 1008"] == ["link as a client"]  # type: ignore[union-attr]


@needs_root
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_artist_is_bound_to_what_they_submitted(shared: Running) -> None:
    with shared.link() as root:
        others = root.submit()

    def work() -> list[Any]:
        with shared.link() as link:
            mine = link.submit()
            high = link.ask(Submit, token="token-too-high", spec=a_job("1", priority=701))
            return [
                link.ask(JobVerb, job=mine, verb="stop"),
                link.ask(JobVerb, job=others, verb="delete"),
                high,
                link.ask(ListAudit),
                link.jobs(),
            ]

    stopped, deleted, high, audit, jobs = as_user(NAMELESS, work)
    assert type(stopped).__name__ == "Done"
    for refused in (deleted, high, audit):
        assert isinstance(refused, Refusal)
        assert refused.code == "not-allowed"
    assert "was submitted by root" in deleted.text
    assert others in jobs


@needs_root
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_values_that_are_secret_are_their_submitters_and_the_admins(shared: Running) -> None:
    spec = a_job("1", env={"API_TOKEN": "xyz", "SHOT": "s1"})

    def mine(number: int | None = None) -> Any:
        with shared.link() as link:
            if number is None:
                answer = link.ask(Submit, token="token-secrets", spec=spec)
                number = answer.job  # type: ignore[union-attr]
            answer = link.ask(GetSpec, job=number)
            return number, answer.spec.env if isinstance(answer, Spec) else answer

    number, env = as_user(NAMELESS, mine)
    assert env == {"API_TOKEN": "xyz", "SHOT": "s1"}
    assert mine(number)[1] == env
    assert as_user(NOBODY, lambda: mine(number))[1] == {"API_TOKEN": "(hidden)", "SHOT": "s1"}
    refused = as_user(1007, lambda: mine(number))[1]
    assert isinstance(refused, Refusal)
    assert refused.code == "not-allowed"
