"""What people get wrong: one clear sentence, the right exit status, and nothing half done."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from drqueue.proto.connection import Connection
from drqueue.proto.link_messages import Hi, Message, Rejected, Welcome
from drqueue.unixpath import bind_unix
from tests.e2e.helpers import Cli, Running, Up, farm_up, wait_until

pytestmark = pytest.mark.slow
OK, FAILED, USAGE, NOT_FOUND, UNREACHABLE = 0, 1, 2, 3, 69


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A farm with one job, 0, which is done."""
    with farm_up(tmp_path_factory.mktemp("bad-input"), slaves=1, cores=2) as farm:
        farm.cli.done(farm.cli.submit("--frames", "1-2", "--", "true"))
        yield farm


MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    (("submit", "--fraems", "1", "--", "true"), USAGE, "--fraems"),
    (("job", "77"), NOT_FOUND, "there is no job 77"),
    (("wait", "0", "77"), NOT_FOUND, "there is no job 77"),
    (("log", "0", "3"), NOT_FOUND, "job 0 has no frame 3 in its range 1-2"),
    (("frames", "0", "--layer", "comp"), NOT_FOUND, "job 0 has no layer 'comp'"),
    (("frame", "kill", "0", "8-9"), NOT_FOUND, "nothing of 8-9"),
    (("slave", "disable", "s9"), NOT_FOUND, "there is no slave 's9'"),
    (("submit", "--depend", "77", "--", "true"), NOT_FOUND, "depends on job 77, which does not exist"),
    (("submit", "--frames", "1-", "--", "true"), USAGE, "1-"),
    (("submit", "--frames", "1-20000000", "--", "true"), USAGE, "10,000,000"),
    (("submit", "--"), USAGE, "a command is missing"),
    (("submit", "--", ""), USAGE, "command"),
    (("submit", "--file", "none.toml"), USAGE, "none.toml: cannot be read: No such file or directory"),
    (("slave", "set", "s1", "--autoenable", "25:00"), USAGE, "time of day"),
    (("slave", "set", "s1", "--pools", "a:b"), USAGE, "'a:b' is no name of a pool"),
]


@pytest.fixture(scope="module")
def answers(up: Up) -> Iterator[dict[tuple[str, ...], Running]]:
    """All these commands at once, as each takes its time to start."""
    with ExitStack() as stack:
        yield {words: stack.enter_context(up.cli.start(*words)) for words, _, _ in MISTAKES}


@pytest.mark.parametrize(("words", "status", "says"), MISTAKES)
def test_a_mistake_gets_one_sentence(
    answers: dict[tuple[str, ...], Running], words: tuple[str, ...], status: int, says: str
) -> None:
    """Named, with its own exit status; nothing on stdout."""
    said = answers[words].finish()
    assert said.status == status, said
    assert says in said.sentence
    assert said.sentence.startswith("drqueue: ")
    assert said.out == ""


def test_a_job_file_with_an_unknown_key_names_the_nearest(up: Up) -> None:
    """And nothing is queued."""
    (up.cli.cwd / "bad.toml").write_text('[[layer]]\ncommand = "true"\nfames = "1-2"\n')
    sentence = up.cli.run("submit", "--file", "bad.toml", status=USAGE).sentence
    assert "'fames'" in sentence
    assert "'frames'" in sentence
    with up.cli.client() as client:
        assert len(client.jobs(all=True)) == 1


# -- no master, or not the right one -------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("jobs",), ("submit", "--", "true"), ("wait", "0")])
def test_without_a_master(tmp_path: Path, words: tuple[str, ...]) -> None:
    """69, and what to do about it."""
    cli = Cli(tmp_path, tmp_path)
    sentence = cli.run(*words, status=UNREACHABLE).sentence
    assert f"no master answers at unix:{tmp_path}/master.sock" in sentence
    assert "drqueue up" in sentence


@contextmanager
def scripted_master(path: Path, answer: Message | bytes) -> Iterator[list[Hi]]:
    """A peer that hears Hi and gives one answer, on every link; the His that it heard."""
    heard: list[Hi] = []
    listener = bind_unix(str(path))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                connection = Connection()
                connection.receive(sock.recv(65536))
                message = connection.next_message()
                if isinstance(message, Hi):
                    heard.append(message)
                sock.sendall(answer if isinstance(answer, bytes) else connection.send(answer))
                sock.recv(65536)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


REFUSAL = Rejected(
    code="version",
    text="this master (drqueue 9.0) speaks protocol 7 to 8, the client (drqueue 1.0) speaks 1: "
    "upgrade the client",
)


def test_a_master_of_another_version_says_who_must_upgrade(tmp_path: Path) -> None:
    """Its own sentence is shown, status 1, and no advice to start another master."""
    with scripted_master(tmp_path / "master.sock", REFUSAL) as heard:
        sentence = Cli(tmp_path, tmp_path).run("jobs", status=FAILED).sentence
    assert sentence == f"drqueue: {REFUSAL.text}"
    assert (heard[0].oldest, heard[0].newest) == (1, 1)


@pytest.mark.parametrize(
    "answer", [Welcome(version=9), b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x03\xc1\xc1\xc1"]
)
def test_a_peer_that_is_no_master_of_ours(tmp_path: Path, answer: Message | bytes) -> None:
    """A version that was not offered, another program's words, hostile bytes: one sentence, status 69."""
    with scripted_master(tmp_path / "master.sock", answer):
        sentence = Cli(tmp_path, tmp_path).run("jobs", status=UNREACHABLE).sentence
    assert "no master answers" in sentence


@pytest.mark.parametrize(
    ("hi", "upgrade"), [({"oldest": 2, "newest": 3}, "master"), ({"oldest": 1, "newest": 1}, "")]
)
def test_the_master_tells_a_newer_client_to_upgrade_the_master(
    up: Up, hi: dict[str, int], upgrade: str
) -> None:
    """The real master, met by a peer of another version."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(up.state_dir / "master.sock"))
        connection = Connection()
        sock.sendall(connection.send(Hi(role="client", software="drqueue 9", **hi)))
        connection.receive(sock.recv(65536))
        answer = connection.next_message()
    if upgrade:
        assert isinstance(answer, Rejected)
        assert answer.text.endswith(f"the client (drqueue 9) speaks 2 to 3: upgrade the {upgrade}")
    else:
        assert isinstance(answer, Welcome)


def test_a_slave_of_another_version_keeps_waiting_and_says_why(tmp_path: Path) -> None:
    """Once, not at every try; it lives on, for its frames, until it is upgraded or stopped."""
    with scripted_master(tmp_path / "master.sock", REFUSAL):
        log = tmp_path / "slave.log"
        words = ("--state-dir", tmp_path / "s", "--master", f"unix:{tmp_path}/master.sock", "--name", "s")
        with Cli(tmp_path, tmp_path).start(
            *words, "--kill-frames-on-exit", module="drqueue.slave", err=log
        ) as slave:
            wait_until("its complaint", lambda: "upgrade" in log.read_text())
            slave.process.terminate()
            assert slave.finish().status == OK
    assert log.read_text().count("upgrade the client") == 1


# -- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "written", "says"),
    [
        ("drqueue.master", "backof_s = 3", "unknown key 'backof_s' (did you mean 'backoff_s'?)"),
        ("drqueue.slave", "graceS = 3", "unknown key 'graceS' (did you mean 'grace_s'?)"),
        ("drqueue.slave", "grace_s = 'long'", "grace_s must be a number"),
        ("drqueue.master", "retries = ", "is not TOML"),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, module: str, written: str, says: str) -> None:
    """Status 2, the file and the key named, and nothing was started or made."""
    config = tmp_path / "farm.toml"
    config.write_text(written)
    state = tmp_path / "state"
    cli = Cli(tmp_path, tmp_path)
    sentence = cli.run("--state-dir", state, "--config", config, module=module, status=USAGE).sentence
    assert f"{config}: " in sentence
    assert says in sentence
    assert not state.exists()


# -- damaged state -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a farm that has ended, with a thousand frames done."""
    folder = tmp_path_factory.mktemp("saved")
    with farm_up(folder, slaves=1, cores=2) as up:
        up.cli.run("slave", "set", "s1", "--max-cpus", 2)
        up.cli.done(up.cli.submit("--frames", "1-20", "--", "true"))
    return up.state_dir


def middle(path: Path) -> None:
    """Overwrite bytes in the middle of a file."""
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 3000] = b"\xa5" * 3000
    path.write_bytes(data)


def head(path: Path) -> None:
    """Overwrite the first bytes."""
    path.write_bytes(b"not what it was " + path.read_bytes()[16:])


def wrong_types(path: Path) -> None:
    """Good JSON, wrong content."""
    path.write_text('{"farm": 3, "epoch": "one", "id": 7, "pools": "Default"}')


def zeros(path: Path) -> None:
    """As after a power cut on some file systems."""
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES: list[tuple[str, str, Callable[[Path], object]]] = [
    ("master", "master.db", head),
    ("master", "master.db", middle),
    ("master", "master.db", Path.unlink),
    ("master", "farm.json", zeros),
    ("master", "farm.json", wrong_types),
    ("master", "farm.json", Path.unlink),
    ("slave", "identity.json", head),
    ("slave", "limits.json", wrong_types),
    ("slave", "spool", head),
]


@dataclass(frozen=True)
class Refused:
    """A daemon that was started on damaged state, and what lay there before."""

    running: Running
    folder: Path
    before: dict[Path, bytes]


@pytest.fixture(scope="module")
def refusals(
    tmp_path_factory: pytest.TempPathFactory, saved: Path
) -> Iterator[dict[tuple[str, str, object], Refused]]:
    """Each damage done to a copy of its own, and the daemon started there; all at once."""
    begun = {}
    with ExitStack() as stack:
        for daemon, name, damage in DAMAGES:
            state = tmp_path_factory.mktemp("damaged") / "farm"
            shutil.copytree(saved, state)
            state.chmod(0o700)
            folder = state if daemon == "master" else state / "slave-s1"
            # As if it had been moved there: a slave's copy would take an identity of its own first.
            identity = state / "slave-s1" / "identity.json"
            identity.write_text(
                json.dumps({**json.loads(identity.read_text()), "path": str(identity.parent)})
            )
            damage(folder / name)
            before = {path: path.read_bytes() for path in files(folder)}
            words = ("--state-dir", folder) + (("--name", "s1") if daemon == "slave" else ())
            running = stack.enter_context(Cli(state, state).start(*words, module=f"drqueue.{daemon}"))
            begun[daemon, name, damage] = Refused(running, folder, before)
        yield begun


@pytest.mark.parametrize(("daemon", "name", "damage"), DAMAGES)
def test_damaged_state_is_refused_and_left_alone(
    refusals: dict[tuple[str, str, object], Refused], daemon: str, name: str, damage: object
) -> None:
    """One sentence that names the file, status 1; no byte is changed and no socket opened."""
    refused = refusals[daemon, name, damage]
    said = refused.running.finish()
    assert said.status == FAILED
    assert said.sentence.startswith(f"drqueue-{daemon}: ")
    assert str(refused.folder / name) in said.sentence
    after = {path: path.read_bytes() for path in files(refused.folder)}
    assert {path: after.get(path) for path in refused.before} == refused.before
    assert not list(refused.folder.glob("*.sock"))


def files(folder: Path) -> list[Path]:
    """A daemon's own files: all but its lock and logs."""
    own = ("master.db", "farm.json", "identity.json", "limits.json", "spool")
    return sorted(path for path in folder.iterdir() if path.name.startswith(own))
