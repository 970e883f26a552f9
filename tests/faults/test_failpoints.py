"""The failpoints themselves: what they are told, what they do, and that every one of them is listed."""

import ast
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import drqueue
from drqueue import failpoints

PACKAGE = Path(drqueue.__path__[0])


def places() -> list[tuple[str, bool]]:
    """Every name that the package hits, and whether that stands below a look at ACTIVE."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        guarded = {
            id(inner)
            for outer in ast.walk(tree)
            if isinstance(outer, ast.If) and "failpoints.ACTIVE" in ast.unparse(outer.test)
            for inner in ast.walk(outer)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.hit":
                name = node.args[0]
                assert isinstance(name, ast.Constant), ast.unparse(node)
                found.append((str(name.value), id(node) in guarded))
    return found


def test_every_place_is_listed_and_costs_nothing() -> None:
    found = places()
    assert {name for name, _ in found} == set(failpoints.NAMES)
    assert [name for name, guarded in found if not guarded] == []
    assert not failpoints.ACTIVE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("commit-befor=kill", "names a place that there is not: 'commit-befor'"),
        ("commit-before", "'commit-before'"),
        ("commit-before=explode", "'explode' at commit-before; there is kill, stop, exit"),
        ("commit-before=kill@0", "counts to '0'"),
        ("commit-before=kill@x", "counts to 'x'"),
        ("commit-before=kill,", "names a place that there is not: ''"),
    ],
)
def test_what_is_not_understood_ends_the_program_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^DRQUEUE_FAILPOINT ") as caught:
        failpoints.parse(text)
    assert says in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("module", ["drqueue.master", "drqueue.slave"])
@pytest.mark.slow
def test_a_daemon_does_not_start_with_a_bad_one(module: str, tmp_path: Path) -> None:
    ended = run("-m", module, "--state-dir", str(tmp_path / "state"), points="nowhere=kill")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "'nowhere'" in ended.stderr


def run(*words: str, points: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, failpoints.VARIABLE: points}
    return subprocess.run(
        [sys.executable, *words], env=env, capture_output=True, text=True, check=False, timeout=60
    )


def hitting(points: str) -> "subprocess.CompletedProcess[str]":
    """A process that comes by one place three times, as the keeper loads the module: by path."""
    code = f"""
import sys
sys.path.append({str(PACKAGE)!r})
import failpoints
for nth in (1, 2, 3):
    try:
        failpoints.hit("send-half", lambda: print("half"))
    except OSError as error:
        print(type(error).__name__, error.errno)
    print(nth, flush=True)
"""
    return run("-I", "-S", "-c", code, points=points)


def test_each_action_does_what_it_is_called() -> None:
    killed = hitting("send-half=kill@2")
    assert killed.returncode == -signal.SIGKILL
    assert killed.stderr == "failpoint send-half: kill, time 2\n"
    assert killed.stdout == "1\n"  # what was printed since was not flushed
    assert hitting("send-half=exit").returncode == failpoints.EXIT_STATUS
    failed = hitting("send-half=eio@1,send-half=eagain@2,send-after=kill")
    assert failed.stdout == f"half\nOSError {errno.EIO}\n1\nhalf\nBlockingIOError {errno.EAGAIN}\n2\n3\n"
    assert hitting("send-half=enospc").stdout.count(f"OSError {errno.ENOSPC}") == 3
    assert hitting("send-half=emfile@3").stdout == f"1\n2\nhalf\nOSError {errno.EMFILE}\n3\n"
    assert hitting("send-half=sleep@1").stdout == "half\n1\n2\n3\n"
    assert hitting("").stdout == "1\n2\n3\n"


def test_stop_stops_and_the_process_can_go_on() -> None:
    code = "from drqueue import failpoints; failpoints.hit('commit-after'); print('on')"
    env = {**os.environ, failpoints.VARIABLE: "commit-after=stop"}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as process:
        stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert stopped is not None
        assert stopped.si_status == signal.SIGSTOP
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == b"on\n"
