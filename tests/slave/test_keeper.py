"""The keeper as a process of its own, spoken to by hand over its socket."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.slave.tree_harness import (
    HERE,
    PYTHON,
    Client,
    Ward,
    living,
    marked,
    pids_in,
    stat_state,
    until,
)

pytestmark = pytest.mark.slow

K1, K2 = [0, 0, 0, 1], [0, 0, 1, 1]
MARK_SIZE = 100 << 20


def script(name: str, *arguments: str) -> list[str]:
    return [*PYTHON, str(HERE / name), *arguments]


def code(text: str) -> list[str]:
    return [*PYTHON, "-c", text]


# --- what a frame gets, and what is told of it


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_exit_codes_are_reported(keeper: Client, status: int) -> None:
    ended = keeper.run(K1, "/bin/sh", "-c", f"exit {status}")
    assert (ended["code"], ended["signal"], ended["reason"]) == (status, None, "")
    assert 0 <= ended["end"] - ended["start"] < 30


def test_a_signal_is_reported_as_one(keeper: Client) -> None:
    ended = keeper.run(K1, "/bin/sh", "-c", "kill -SEGV $$")
    assert (ended["code"], ended["signal"]) == (None, signal.SIGSEGV)


def test_started_names_the_process_and_its_birth(keeper: Client) -> None:
    for number in range(5):  # the birth is mostly computed, not read
        key = [0, 0, number, 1]
        started = keeper.launch(key, "/bin/sleep", "60")
        field = Path(f"/proc/{started['pid']}/stat").read_text().rpartition(")")[2].split()
        assert (started["is"], started["birth"]) == ("started", int(field[19]))
        keeper.send({"do": "signal", "key": key, "kill": True})
        assert keeper.next()["signal"] == signal.SIGKILL


def test_environment_is_exactly_the_given_one(keeper: Client, ward: Ward) -> None:
    env = {"DRQUEUE_ATTEMPT": "0/0/0/1", "A": "x=y", "EMPTY": "", "BYTES": "caf\udce9 é"}
    keeper.run(K1, "/usr/bin/env", "-0", env=env)
    assert set(ward.log(K1).read_bytes().split(b"\0")[:-1]) == {
        os.fsencode(f"{name}={value}") for name, value in env.items()
    }


def test_no_descriptor_leaks_into_a_frame(keeper: Client, ward: Ward) -> None:
    """A frame sees /dev/null, its own log twice, and nothing else, while another frame runs."""
    keeper.launch(K2, "/bin/sleep", "60")
    show = (
        "import os\nfor fd in os.listdir('/proc/self/fd'):\n try: print(fd, os.readlink('/proc/self/fd/'+fd))"
    )
    keeper.run(K1, *code(show + "\n except OSError: pass"))
    log = str(ward.log(K1))
    assert ward.log(K1).read_text().splitlines() == ["0 /dev/null", f"1 {log}", f"2 {log}"]
    keeper.send({"do": "signal", "key": K2, "kill": True})
    keeper.next()


def test_session_signals_umask_and_directory(keeper: Client, ward: Ward) -> None:
    show = "import os; print(os.getsid(0) == os.getpid(), os.getcwd(), os.umask(0))"
    keeper.run(K1, *code(show), umask=0o027)
    assert ward.log(K1).read_text().split() == ["True", str(ward.work), str(0o027)]
    keeper.run(K2, "/bin/grep", "-E", "SigIgn|SigBlk", "/proc/self/status")
    _, blocked, _, ignored = ward.log(K2).read_text().split()
    # The C library ignores its own signals 32 and 33 in what it spawns.
    assert (int(blocked, 16), int(ignored, 16) & ~(3 << 31)) == (0, 0)


def test_log_holds_both_streams_and_is_private(keeper: Client, ward: Ward) -> None:
    ended = keeper.run(K1, "/bin/sh", "-c", "echo out; echo err >&2; printf end")
    assert ward.log(K1).read_text() == "out\nerr\nend"
    assert ended["log"] == 11
    assert ward.log(K1).stat().st_mode & 0o777 == 0o600


def test_cpu_time_and_memory_of_the_whole_tree(keeper: Client) -> None:
    """A child of the frame burns 0.3 s and holds 100 MB; both show in the frame's account."""
    burn = f"x = b'x' * {MARK_SIZE}\nimport time\nwhile time.process_time() < 0.3: pass"
    ended = keeper.run(K1, "/bin/sh", "-c", f'{" ".join(PYTHON)} -c "{burn}"; exit 0')
    assert ended["peak"] >= 90 << 20
    assert 0.3 <= ended["cpu"] < 3
    small = keeper.run(K2, "/bin/true")
    assert small["peak"] < 50 << 20
    assert small["cpu"] < 0.2


def test_memory_of_processes_side_by_side_is_added_up(keeper: Client) -> None:
    hold = f"import os,time; os.fork(); x = b'x' * {60 << 20}; open('ready','a').write('.'); time.sleep(60)"
    keeper.launch(K1, *code(hold))
    ready = keeper.ward.work / "ready"
    until(lambda: ready.exists() and ready.stat().st_size == 2)
    # A second frame that outlasts two looks shows that one has passed.
    keeper.launch(K2, "/bin/sleep", "0.6")
    assert keeper.next()["key"] == K2
    keeper.send({"do": "signal", "key": K1, "kill": True})
    assert keeper.next()["peak"] >= 110 << 20


@pytest.mark.parametrize(
    ("argv", "more", "reason", "text"),
    [
        (["no-such-program"], {}, "no-command", "command not found: no-such-program"),
        (["/no/such/program"], {}, "no-command", "command not found: /no/such/program"),
        (["/etc/passwd"], {}, "no-command", "cannot run /etc/passwd: Permission denied"),
        ([""], {}, "no-command", "command not found: "),
        (
            ["/bin/true"],
            {"cwd": "/no/such/dir"},
            "no-cwd",
            "the working directory /no/such/dir does not exist",
        ),
        (["/bin/true"], {"cwd": "/etc/passwd"}, "no-cwd", "/etc/passwd cannot be used: Not a directory"),
        (["/bin/true"], {"log": "/no/such/dir/log"}, "spawn-failed", "cannot open the log /no/such/dir/log"),
        (["/bin/true", "x" * (3 << 20)], {}, "spawn-failed", "Argument list too long"),
        (["/bin/true", "a\0b"], {}, "spawn-failed", "cannot start /bin/true: embedded null"),
        (["/bin/true"], {"env": {"A=B": "c"}}, "spawn-failed", "cannot start /bin/true: illegal environment"),
        (["\udce9"], {}, "no-command", "command not found: ?"),
    ],
)
def test_a_command_that_cannot_start(
    keeper: Client, argv: list[str], more: dict[str, Any], reason: str, text: str
) -> None:
    failed = keeper.run(K1, *argv, **more)
    assert (failed["is"], failed["reason"]) == ("failed", reason)
    assert text in failed["text"]
    assert keeper.run(K2, "/bin/true")["code"] == 0


def test_scripts_that_cannot_start_say_why(keeper: Client, ward: Ward) -> None:
    for name, text in (("bare", "echo\n"), ("lost", "#!/no/such/interpreter\n")):
        (ward.work / name).write_text(text)
        (ward.work / name).chmod(0o755)
    assert "no script with a #! line" in keeper.run(K1, "./bare")["text"]
    failed = keeper.run(K2, "lost", env={"PATH": str(ward.work)})
    assert failed["reason"] == "no-command"
    assert "wants an interpreter" in failed["text"]


def test_the_frames_own_path_and_directory_are_searched(keeper: Client, ward: Ward) -> None:
    tool = ward.work / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho $0")
    tool.chmod(0o755)
    assert keeper.run(K1, "tool", env={"PATH": f"/nowhere:{tool.parent}"})["code"] == 0
    assert keeper.run(K2, "bin/tool")["code"] == 0
    assert ward.log(K2).read_text() == "bin/tool\n"


def test_scratch_directory_is_made(keeper: Client, ward: Ward) -> None:
    place = ward.work / "a" / "b"
    assert keeper.run(K1, "/bin/pwd", cwd=str(place), scratch=True)["code"] == 0
    assert ward.log(K1).read_text().strip() == str(place)
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_second_launch_of_a_key_starts_nothing(keeper: Client, ward: Ward) -> None:
    first = keeper.run(K1, "/bin/sh", "-c", "echo once")
    assert keeper.launch(K1, "/bin/sh", "-c", "echo twice") == first
    assert ward.log(K1).read_text() == "once\n"


# --- killing


def test_term_ignored_then_kill(keeper: Client, ward: Ward) -> None:
    keeper.launch(K1, *script("tree_eleven.py", "--ignore-term"))
    pids = until(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
    keeper.send({"do": "signal", "key": K1, "kill": False}, {"do": "signal", "key": K2, "kill": True})
    assert keeper.run(K2, "/bin/true")["code"] == 0  # after this the signal has been handled
    assert living(pids) == pids
    keeper.send({"do": "signal", "key": K1, "kill": True})
    ended = keeper.next()
    assert living(pids) == []
    assert ended["signal"] == signal.SIGKILL


def test_term_reaches_the_whole_tree(keeper: Client, ward: Ward) -> None:
    """Those that left by double fork and setsid end by TERM too, while the main process goes on."""
    deaf = "import os,runpy,signal\nif os.fork():\n signal.signal(15, 1)\n while 1: signal.pause()\n"
    keeper.launch(K1, *code(deaf + f"runpy.run_path({str(HERE / 'tree_eleven.py')!r})"))
    pids = until(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
    keeper.send({"do": "signal", "key": K1, "kill": False})
    until(lambda: living(pids) == [], "the tree's end by TERM")
    keeper.send({"do": "signal", "key": K1, "kill": True})
    assert keeper.next()["signal"] == signal.SIGKILL


def test_a_stopped_frame_ends_by_term(keeper: Client) -> None:
    pid = keeper.launch(K1, "/bin/sleep", "60")["pid"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: stat_state(pid) == "T")
    keeper.send({"do": "signal", "key": K1, "kill": False})
    assert keeper.next()["signal"] == signal.SIGTERM


@pytest.mark.parametrize("neighbours", [0, 3])
def test_fork_bomb_leaves_no_survivor(keeper: Client, ward: Ward, neighbours: int) -> None:
    for number in range(neighbours):
        keeper.launch([9, 0, number, 1], "/bin/sleep", "60")
    keeper.launch(K1, *script("tree_bomb.py", "100"))
    count = ward.work / "count"
    until(lambda: count.exists() and count.stat().st_size > 20)
    keeper.send({"do": "signal", "key": K1, "kill": True})
    assert keeper.next()["key"] == K1
    left = marked(ward.token)
    assert len(left) == neighbours
    for number in range(neighbours):
        keeper.send({"do": "signal", "key": [9, 0, number, 1], "kill": True})
        keeper.next()


def test_what_a_frame_leaves_behind_ends_before_it_is_reported(keeper: Client, ward: Ward) -> None:
    leave = "import os,time\nif os.fork(): os.wait(); os._exit(3)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    keeper.launch(K2, "/bin/sleep", "60")
    ended = keeper.run(K1, *code(leave + "open('pids','w').write(f'{os.getpid()}\\n'); time.sleep(60)"))
    assert (ended["key"], ended["code"]) == (K1, 3)
    assert living(pids_in(ward.work / "pids")) == []
    assert len(marked(ward.token)) == 1  # the neighbour lives
    keeper.send({"do": "signal", "key": K2, "kill": True})
    keeper.next()


def test_a_helper_that_got_away_lives_as_long_as_its_frame(keeper: Client, ward: Ward) -> None:
    leave = (
        "import os,time\nif os.fork(): os.wait(); time.sleep(600)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    )
    keeper.launch(K1, *code(leave + "open('pids','w').write(f'{os.getpid()}\\n'); time.sleep(600)"))
    (helper,) = until(lambda: pids_in(ward.work / "pids"))
    assert keeper.run(K2, "/bin/sleep", "0.6")["code"] == 0  # neither another's end nor a look may kill it
    assert living([helper]) == [helper]
    keeper.send({"do": "signal", "key": K1, "kill": True})
    assert keeper.next()["key"] == K1
    assert living([helper]) == []


def test_a_stray_without_marks_ends_with_the_last_that_could_own_it(keeper: Client, ward: Ward) -> None:
    """A double fork with an empty environment and a session of its own, beside another frame."""
    keeper.launch(K2, "/bin/sleep", "600")
    hide = "import os,time\nif os.fork(): os.wait(); os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    hide += "open('pids','w').write(f'{os.getpid()}\\n'); time.sleep(600)"
    wait = "while [ ! -s pids ]; do sleep 0.02; done"
    ended = keeper.run(K1, "/bin/sh", "-c", f'/usr/bin/env -i {" ".join(PYTHON)} -c "$0"; {wait}', hide)
    assert ended["is"] == "ended"
    (stray,) = pids_in(ward.work / "pids")
    keeper.send({"do": "signal", "key": K2, "kill": True})
    assert keeper.next()["key"] == K2
    until(lambda: living([stray]) == [], "the stray's end")


def test_a_stray_without_a_suspect_left_is_killed(keeper: Client, ward: Ward) -> None:
    """Both frames that could own it end in one moment, so that it is neither's and nobody's."""
    first = keeper.launch(K2, "/bin/sleep", "600")["pid"]
    hide = (
        "import os,time\nif os.fork(): os.wait(); time.sleep(600)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    )
    hide += "open('pids','w').write(f'{os.getpid()}\\n'); time.sleep(600)"
    second = keeper.launch(K1, *PYTHON, "-c", hide, env={})["pid"]
    (stray,) = until(lambda: pids_in(ward.work / "pids"))
    os.kill(keeper.child, signal.SIGSTOP)
    until(lambda: stat_state(keeper.child) == "T")
    for pid in (first, second):
        os.kill(pid, signal.SIGKILL)
    until(lambda: living([first, second]) == [])
    os.kill(keeper.child, signal.SIGCONT)
    until(lambda: living([stray]) == [], "the stray's end")
    assert {keeper.next()["signal"], keeper.next()["signal"]} == {signal.SIGKILL}


def test_a_stray_is_known_by_its_session(keeper: Client, ward: Ward) -> None:
    """It has no environment to tell, and another frame runs."""
    keeper.launch(K2, "/bin/sleep", "600")
    leave = "(env -i sleep 600 & echo $! > pids); p=$(cat pids)"
    settled = 'while [ "$(cat /proc/$p/comm)" != sleep ]; do :; done'
    ended = keeper.run(K1, "/bin/sh", "-c", f"{leave}; {settled}; exit 4")
    assert (ended["key"], ended["code"]) == (K1, 4)
    assert living(pids_in(ward.work / "pids")) == []
    keeper.send({"do": "signal", "key": K2, "kill": True})
    assert keeper.next()["key"] == K2


# --- logs


def test_a_flooded_log_keeps_its_ends_and_little_disk(keeper: Client, ward: Ward) -> None:
    middle = "for _ in range(300): os.write(1, b'x' * (1 << 20))"
    flood = f"import os\nos.write(1, b'first\\n')\n{middle}\nos.write(1, b'last\\n')"
    ended = keeper.run(K1, *code(flood))
    status = ward.log(K1).stat()
    assert ended["code"] == 0
    assert ended["log"] == status.st_size == (300 << 20) + 11
    assert status.st_blocks * 512 <= 1 << 20
    with ward.log(K1).open("rb") as file:
        assert file.read(7) == b"first\nx"
        file.seek(-100_000, os.SEEK_END)
        assert file.read() == b"x" * 99_995 + b"last\n"


def test_a_log_is_trimmed_while_the_frame_runs(keeper: Client, ward: Ward) -> None:
    flood = "import os,time\nfor _ in range(64): os.write(1, b'x' * (1 << 20))\ntime.sleep(600)"
    keeper.launch(K1, *code(flood))
    log = ward.log(K1)
    until(lambda: log.exists() and log.stat().st_size == 64 << 20)
    until(lambda: log.stat().st_blocks * 512 <= 1 << 20, "the trimming")
    keeper.send({"do": "signal", "key": K1, "kill": True})
    assert keeper.next()["log"] == 64 << 20


def test_a_log_under_its_cap_is_left_alone(keeper: Client, ward: Ward) -> None:
    keeper.run(K1, "/usr/bin/head", "-c", str(1 << 20), "/dev/urandom")
    assert ward.log(K1).read_bytes().count(b"\0") < 1 << 14
    assert ward.log(K1).stat().st_size == 1 << 20
