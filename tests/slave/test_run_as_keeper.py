"""The keeper's frames of other users: what they are, what they cannot, how they end. Needs root."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drqueue.slave import spawning
from tests.slave.run_as_harness import (
    KINDS,
    OTHER,
    SLAVE,
    THIRD,
    as_slave,
    needs_root,
    open_folder,
    open_ward,
    python_for_all,
    start_keeper,
    status_of,
    tree_for_all,
)
from tests.slave.tree_harness import Client, Ward, living, marked, pids_in, stat_state, until

pytestmark = [pytest.mark.slow, needs_root, pytest.mark.needs("setpriv")]

K1, K2 = [0, 0, 0, 1], [0, 0, 1, 1]
AS: dict[str, Any] = {"do": "launch-as", "as": OTHER}
AS_THIRD: dict[str, Any] = {"do": "launch-as", "as": THIRD}


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest) -> Iterator[Ward]:
    with open_ward(SLAVE if request.param == "ambient" else 0) as it:
        yield it


@pytest.fixture
def keeper(ward: Ward) -> Iterator[Client]:
    own = ward.state.stat().st_uid
    client = start_keeper(ward, as_slave() if own else ())
    assert client.next()["users"] is True
    assert client.next() == {"is": "held"}
    yield client
    last = Client.attach(ward)
    last.greet()
    last.child = client.child
    last.shutdown()
    client.close()


def code(text: str) -> list[str]:
    return [python_for_all(), "-I", "-S", "-c", text]


def script(name: str, *arguments: str) -> list[str]:
    return [python_for_all(), "-I", "-S", str(tree_for_all()[0] / "tests" / "slave" / name), *arguments]


def test_it_is_that_user_and_nothing_more(keeper: Client, ward: Ward) -> None:
    ended = keeper.run(K1, "/bin/sh", "-c", "umask; readlink /proc/self/fd/*; cat /proc/self/status", **AS)
    assert ended["code"] in (0, 1), ward.log(K1).read_text()
    umask, *rest = ward.log(K1).read_text().splitlines()
    status = status_of("\n".join(rest))
    assert umask == "0022"
    assert status["Uid"] == [str(OTHER[0])] * 4
    assert status["Gid"] == [str(OTHER[1])] * 4
    assert status["Groups"] == [str(group) for group in sorted(OTHER[2])]
    assert {status[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == ["1"]
    for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"):
        # 32 and 33 are the C library's own, and stay as whoever started all this left them.
        assert int(status[name][0], 16) & ~(3 << 31) == 0, name
    # 0, 1 and 2; readlink found what the shell's own listing had open gone again.
    assert [line for line in rest if line.startswith(("/", "socket:", "pipe:", "anon"))] == [
        "/dev/null",
        str(ward.log(K1)),
        str(ward.log(K1)),
    ]


def test_it_leads_a_session_and_is_measured(keeper: Client) -> None:
    started = keeper.launch(
        K1, *code("import os; assert os.getsid(0) == os.getpid(); x = b'x' * (60 << 20)"), **AS
    )
    fields = Path(f"/proc/{started['pid']}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[19]) == started["birth"]
    ended = keeper.next()
    assert ended["code"] == 0
    assert ended["peak"] >= 60 << 20
    assert 0 < ended["cpu"] < 5


ESCAPE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, *words):
    try:
        what(*words)
    except OSError:
        return
    print("ESCAPED by", what.__name__, words)
def capset(bits):
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(bits, bits, bits)
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")
for uid in (0, OWN):
    for change in (os.setuid, os.seteuid, os.setfsuid if hasattr(os, "setfsuid") else os.setuid):
        attempt(change, uid)
    attempt(os.setresuid, uid, uid, uid)
    attempt(os.setgid, uid)
attempt(os.setgroups, [0])
for bit in (5, 6, 7):
    attempt(capset, 1 << bit)
attempt(os.kill, KEEPER, 0)
print(os.getresuid(), os.getresgid())
"""


def test_it_cannot_become_anybody_else(keeper: Client, ward: Ward) -> None:
    own = ward.state.stat().st_uid
    text = ESCAPE.replace("OWN", str(own)).replace("KEEPER", str(keeper.child))
    ended = keeper.run(K1, *code(text), **AS)
    assert ended["code"] == 0, ward.log(K1).read_text()
    assert ward.log(K1).read_text() == f"{(OTHER[0],) * 3} {(OTHER[1],) * 3}\n"


def test_no_set_uid_program_helps_it(keeper: Client, ward: Ward) -> None:
    """A shell that belongs to root and says so."""
    shell = ward.work / "sh"
    shell.write_bytes(Path("/bin/sh").read_bytes())
    shell.chmod(0o4755)
    assert (
        keeper.run(K1, str(shell), "-pc", "grep -E 'Uid|Cap(Prm|Eff)' /proc/self/status", **AS)["code"] == 0
    )
    status = status_of(ward.log(K1).read_text())
    assert status["Uid"] == [str(OTHER[0])] * 4
    assert {status["CapPrm"][0], status["CapEff"][0]} == {"0" * 16}


def test_frames_of_the_keepers_own_user_inherit_no_capability(ward: Ward, keeper: Client) -> None:
    if not ward.state.stat().st_uid:
        pytest.skip("root has them all, whatever is inherited")
    assert keeper.run(K1, "/bin/cat", "/proc/self/status")["code"] == 0
    status = status_of(ward.log(K1).read_text())
    assert status["Uid"] == [str(SLAVE)] * 4
    assert {status[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


PRY = """
import ctypes, os
def pry(path, flags=os.O_RDONLY):
    try:
        fd = os.open(path, flags)
        os.lseek(fd, MAPPED if path.endswith("/mem") else 0, 0)
        print("OPENED", path, len(os.read(fd, 1)))
    except OSError as error:
        print("closed", error.strerror)
for path in ("STATE", "STATE/access.json", "STATE/keeper.sock", "STATE/logs", "LOG"):
    pry(path)
for name in ("mem", "environ", "maps", "fd", "cwd/keeper.lock", "root/STATE"):
    pry("/proc/KEEPER/" + name)
libc = ctypes.CDLL(None, use_errno=True)
for request in (16, 0x4206):
    print("closed" if libc.ptrace(request, KEEPER, None, None) else "ATTACHED")
"""


def test_it_sees_nothing_of_the_slaves(keeper: Client, ward: Ward) -> None:
    """State directory, secrets, its own log by name, the keeper's memory and descriptors; no tracing."""
    secret = ward.state / "access.json"
    secret.write_text("secret")
    secret.chmod(0o600)
    os.chown(secret, ward.state.stat().st_uid, -1)
    mapped = Path(f"/proc/{keeper.child}/maps").read_text().partition("-")[0]
    text = PRY.replace("STATE", str(ward.state)).replace("LOG", str(ward.log(K1)))
    text = text.replace("KEEPER", str(keeper.child)).replace("MAPPED", f"0x{mapped}")
    assert keeper.run(K1, *code(text), **AS)["code"] == 0, ward.log(K1).read_text()
    said = ward.log(K1).read_text().splitlines()
    assert len(said) == 13
    assert all(line.startswith("closed") for line in said), said
    assert ward.log(K1).stat().st_mode & 0o777 == 0o600
    assert ward.log(K1).stat().st_uid == ward.state.stat().st_uid


@pytest.mark.parametrize(
    ("argv", "more", "reason", "text"),
    [
        (["no-such-program"], {}, "no-command", "command not found: no-such-program"),
        (["/no/such/program"], {}, "no-command", "command not found: /no/such/program"),
        (["/etc/passwd"], {}, "no-command", "cannot run /etc/passwd: Permission denied"),
        (["/bin/true"], {"cwd": "/no/such/dir"}, "no-cwd", "/no/such/dir does not exist on this node"),
        (["/bin/true"], {"cwd": "CLOSED"}, "no-cwd", "cannot be used: Permission denied"),
        (["CLOSED/true"], {}, "no-command", "CLOSED/true: Permission denied"),
        (["/bin/true"], {"log": "/no/such/dir/log"}, "spawn-failed", "cannot open the log /no/such/dir/log"),
        (["/bin/true", "x" * (3 << 20)], {}, "spawn-failed", "Argument list too long"),
        (["/bin/true", "a\0b"], {}, "spawn-failed", "cannot start /bin/true: embedded null"),
        (["/bin/true"], {"env": {"A=B": "c"}}, "spawn-failed", "cannot start /bin/true: illegal environment"),
        (["/bin/true"], {"as": [0, 54_321, []]}, "spawn-failed", "frames never run as that user"),
        (["\udce9"], {}, "no-command", "command not found: ?"),
    ],
)
def test_a_command_that_cannot_start(
    keeper: Client, ward: Ward, argv: list[str], more: dict[str, Any], reason: str, text: str
) -> None:
    """The reasons and sentences of the keeper's own frames; what the user may not see, it cannot run."""
    closed = ward.work / "closed"
    closed.mkdir(0o700)
    (closed / "true").write_bytes(Path("/bin/true").read_bytes())
    (closed / "true").chmod(0o755)
    argv = [word.replace("CLOSED", str(closed)) for word in argv]
    more = {**AS, **more, **({"cwd": str(closed)} if more.get("cwd") == "CLOSED" else {})}
    failed = keeper.run(K1, *argv, **more)
    assert (failed["is"], failed["reason"]) == ("failed", reason)
    assert text.replace("CLOSED", str(closed)) in failed["text"]
    assert keeper.run(K2, "/bin/true", **AS)["code"] == 0


def test_it_is_never_the_keepers_own_user(keeper: Client, ward: Ward) -> None:
    own = ward.state.stat().st_uid
    failed = keeper.run(K1, "/bin/true", **{**AS, "as": [own, OTHER[1], []]})
    assert (failed["reason"], "never run as that user" in failed["text"]) == ("spawn-failed", True)


@pytest.mark.parametrize(
    "user",
    [None, [], [1, 2], [1, 2, 3], ["1", 2, []], [1, 2, ["3"]], [-1, 2, []], [True, 2, []], [2**32, 2, []]],
)
def test_a_user_that_is_none_costs_the_connection(keeper: Client, ward: Ward, user: object) -> None:
    bad = Client.attach(ward)
    bad.greet()
    order = {"do": "launch-as", "key": K1, "argv": ["/bin/true"], "env": {}, "cwd": "/", "umask": 0}
    bad.send({**order, "log": str(ward.log(K1)), "cap": 1 << 20, "as": user})
    assert bad.closed()
    bad.close()
    assert not ward.log(K1).exists()


# --- scratch directories


def test_a_scratch_directory_is_the_frames_own(keeper: Client, ward: Ward) -> None:
    place = ward.work / "0.0.0.1"
    assert keeper.run(K1, "/bin/pwd", cwd=str(place), scratch=True, umask=0o777, **AS)["code"] == 0
    assert ward.log(K1).read_text().strip() == str(place)
    info = place.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (OTHER[0], OTHER[1], 0o700)


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_lies_in_its_place_already_is_refused(keeper: Client, ward: Ward, kind: str) -> None:
    place, victim = ward.work / "0.0.0.1", ward.work / "victim"
    victim.mkdir()
    os.chown(victim, OTHER[0], OTHER[1])
    if kind == "folder":
        place.mkdir()
        os.chown(place, OTHER[0], OTHER[1])
    elif kind == "link":
        place.symlink_to(victim)
    else:
        place.touch()
    failed = keeper.run(K1, "/bin/touch", "here", cwd=str(place), scratch=True, **AS)
    assert (failed["reason"], "File exists" in failed["text"]) == ("no-cwd", True)
    assert list(victim.iterdir()) == []


def removed(keeper: Client, user: Any, *paths: Path) -> None:
    """Have trees removed, and wait for that."""
    keeper.send({"do": "remove-as", "as": user, "paths": [str(path) for path in paths]})
    assert keeper.run([9, 9, 9, 9], "/bin/true")["code"] == 0  # after this it has begun
    keeper.send({"do": "forget", "key": [9, 9, 9, 9]})
    until(lambda: helpers(keeper.child) == [], "the removal")


def helpers(keeper: int) -> list[str]:
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return [pid for pid in children if stat_state(int(pid)) not in ("", "Z")]


def test_removal_takes_the_users_own_and_follows_no_link(keeper: Client, ward: Ward) -> None:
    """Another user's folder that a link names, closed and read-only folders, a deep tree."""
    with open_folder() as elsewhere:
        victim = elsewhere / "victim"
        victim.mkdir(0o777)
        victim.chmod(0o777)
        (victim / "file").touch()
        place, other = ward.work / "0.0.0.1", ward.work / "0.0.0.2"
        make = f"ln -s {victim} link; mkdir -p a/b/c; touch a/b/c/x; chmod 0 a/b; mkdir -m 555 d; touch ./-rf"
        assert keeper.run(K1, "/bin/sh", "-c", make, cwd=str(place), scratch=True, **AS)["code"] == 0
        other.symlink_to(victim)
        os.chown(other, OTHER[0], OTHER[1], follow_symlinks=False)
        removed(keeper, OTHER, place, other)
        assert not place.exists()
        assert not other.is_symlink()
        assert (victim / "file").exists()


def test_removal_takes_nobody_elses(keeper: Client, ward: Ward) -> None:
    place = ward.work / "0.0.0.1"
    assert keeper.run(K1, "/bin/touch", "mine", cwd=str(place), scratch=True, **AS)["code"] == 0
    removed(keeper, THIRD, place)
    assert (place / "mine").exists()


def test_a_removal_is_no_frames_stray(keeper: Client, ward: Ward) -> None:
    """It runs while a frame ends, and comes to its own end."""
    place = ward.work / "0.0.0.1"
    make = "seq 2000 | xargs touch"
    assert keeper.run(K1, "/bin/sh", "-c", make, cwd=str(place), scratch=True, **AS)["code"] == 0
    keeper.send({"do": "remove-as", "as": OTHER, "paths": [str(place)]})
    for number in range(10):
        assert keeper.run([0, 0, 2, number], "/bin/true", **AS)["code"] == 0
    until(lambda: not place.exists(), "the removal")


# --- ending


def test_term_ignored_then_kill(keeper: Client, ward: Ward) -> None:
    keeper.launch(K1, *script("tree_eleven.py", "--ignore-term"), **AS)
    pids = until(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
    keeper.send({"do": "signal", "key": K1, "kill": False})
    assert keeper.run(K2, "/bin/true", **AS)["code"] == 0
    assert living(pids) == pids
    keeper.send({"do": "signal", "key": K1, "kill": True})
    ended = keeper.next()
    assert living(pids) == []
    assert ended["signal"] == signal.SIGKILL


@pytest.mark.parametrize("neighbour", [AS, AS_THIRD, {}], ids=["same user", "another", "the keeper's"])
def test_fork_bomb_leaves_no_survivor(keeper: Client, ward: Ward, neighbour: dict[str, Any]) -> None:
    keeper.launch(K2, "/bin/sleep", "600", **neighbour)
    keeper.launch(K1, *script("tree_bomb.py", "100"), **AS)
    count = ward.work / "count"
    until(lambda: count.exists() and count.stat().st_size > 20)
    keeper.send({"do": "signal", "key": K1, "kill": True})
    assert keeper.next()["key"] == K1
    assert len(marked(ward.token)) == 1
    keeper.send({"do": "signal", "key": K2, "kill": True})
    assert keeper.next()["key"] == K2


def test_a_stray_is_known_by_its_session(keeper: Client, ward: Ward) -> None:
    """Its environment tells nothing (and may not be read), and frames of the same user run beside it."""
    keeper.launch(K2, "/bin/sleep", "600", **AS)
    leave = "(env -i sleep 600 & echo $! > pids); p=$(cat pids)"
    settled = 'while [ "$(cat /proc/$p/comm)" != sleep ]; do :; done'
    ended = keeper.run(K1, "/bin/sh", "-c", f"{leave}; {settled}; exit 4", **AS)
    assert (ended["key"], ended["code"]) == (K1, 4)
    assert living(pids_in(ward.work / "pids")) == []
    keeper.send({"do": "signal", "key": K2, "kill": True})
    assert keeper.next()["key"] == K2


def test_a_child_that_does_not_come_to_its_program_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where somebody of that user stops it before it runs."""
    monkeypatch.setattr(spawning, "START_S", 0.2)
    monkeypatch.setattr(spawning, "_enter", lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
    null = os.open(os.devnull, os.O_WRONLY)
    with pytest.raises(spawning.LaunchError, match="/bin/true did not start within 0 s"):
        spawning.spawn_as(OTHER, ["/bin/true"], {}, "/", null, 0o022, False)
    os.close(null)
    # Keepers that other tests started may have ended just now, too.
    while os.WTERMSIG(os.waitpid(-1, 0)[1]) != signal.SIGKILL:
        pass


def test_a_keeper_without_the_right_says_so() -> None:
    with open_ward(SLAVE) as ward:
        keeper = start_keeper(ward, as_slave(ambient=False))
        assert keeper.next()["users"] is False
        assert keeper.next() == {"is": "held"}
        failed = keeper.run(K1, "/bin/true", **AS)
        assert (failed["reason"], failed["text"]) == (
            "spawn-failed",
            f"cannot start /bin/true as uid {OTHER[0]}: Operation not permitted",
        )
        keeper.shutdown()
