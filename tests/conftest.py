"""What every test session has in common: a clean environment, the marker `needs`, and nobody left behind.

At the end of a session no process that it started may be left: no daemon, no keeper, no frame. Several
sessions run side by side on one machine, so each knows its own by two marks:

* DRQUEUE_TEST_SESSION, a random name in the environment: daemons inherit it, and keepers from them;
* a path below the session's own temporary folder, as working directory, open file (a frame's log), or
  anywhere in the command line or environment (a frame's TMPDIR): frames have a clean environment, but their
  state directory lies there.

Processes that carry another session's name are that session's business; what has a terminal belongs to the
person who looks at the files; whoever started pytest is no child of it.
"""

import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Machines are shared and noisy: a slow example is no failure. The same examples every time: a failure is due
# to the change that was tested. What nobody thought of yet is found with `--hypothesis-profile=explore`.
settings.register_profile("drqueue", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("drqueue")

SESSION_VARIABLE = "DRQUEUE_TEST_SESSION"
REQUIRE_VARIABLE = "DRQUEUE_REQUIRE"
KEPT_VARIABLES = (REQUIRE_VARIABLE, "DRQUEUE_FAULTS")
ENDING_S = 5.0
"""Seconds that processes which are just ending get at the end of a session."""

LEFTOVERS = pytest.StashKey[list[tuple[int, str]]]()
FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    # Whoever runs the tests may have a farm of their own, which no test may talk to.
    for variable in [v for v in os.environ if v.startswith("DRQUEUE_") and v not in KEPT_VARIABLES]:
        del os.environ[variable]
    for variable in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"):
        os.environ.pop(variable, None)
    os.environ[SESSION_VARIABLE] = secrets.token_hex(8)
    # As root, a slave would want another user for its frames.
    os.environ["DRQUEUE_RUN_AS"] = "self"


@pytest.fixture(scope="session", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """Put everything that goes by XDG below this session's temporary folder, and remember that."""
    base = tmp_path_factory.getbasetemp().resolve()
    request.config.stash[FOLDER] = base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(base / "xdg-state"))
        patch.setenv("XDG_CONFIG_HOME", str(base / "xdg-config"))
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    required = [name.strip() for name in os.environ.get(REQUIRE_VARIABLE, "").split(",")]
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if shutil.which(program):
                continue
            if program in required:
                pytest.fail(
                    f"{program} is not on this machine, and {REQUIRE_VARIABLE} names it", pytrace=False
                )
            pytest.skip(f"needs {program}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("dist", "no") != "no":
        # The workers are sessions of their own, and tell what they leave.
        if session.config.stash.get(LEFTOVERS, []):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return
    folder = session.config.stash.get(FOLDER, None)
    left = _leftovers(folder)
    deadline = time.monotonic() + ENDING_S
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = _leftovers(folder)
    session.config.stash[LEFTOVERS] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["left"] = left


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Of a session in several workers: one ended."""
    left = node.config.stash.setdefault(LEFTOVERS, [])
    left += [(pid, command) for pid, command in getattr(node, "workeroutput", {}).get("left", [])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash.get(LEFTOVERS, [])
    if not left:
        return
    names = "\n".join(f"{pid} {command}" for pid, command in left)
    report = pytest.TestReport(
        nodeid="end of session",
        location=("", None, "end of session"),
        keywords={},
        outcome="failed",
        longrepr=f"{len(left)} processes of this session were left behind (and are killed now):\n{names}",
        when="teardown",
    )
    terminalreporter.stats.setdefault("error", []).append(report)
    terminalreporter.section("processes left behind", red=True)
    terminalreporter.line(str(report.longrepr))
    for pid, _ in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _leftovers(folder: Path | None) -> list[tuple[int, str]]:
    """Processes of this user that this session started and that still run: (pid, command line)."""
    mine = _ancestors()
    mark = f"{SESSION_VARIABLE}={os.environ[SESSION_VARIABLE]}".encode()
    below = os.fsencode(folder) + b"/" if folder else None
    left = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in mine:
            continue
        try:
            if entry.stat().st_uid != os.getuid():
                continue
            environ = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
            # A zombie has neither any more, and runs nothing.
            if not command and not environ:
                continue
            variables = environ.split(b"\0")
            named = [v for v in variables if v.startswith(SESSION_VARIABLE.encode() + b"=")]
            ours = mark in named or (
                not named
                and below is not None
                and _touches(entry, below, environ + command)
                and not _tty(entry)
            )
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # Gone between two looks; or another user's after all (a set-uid program).
            continue
        if ours:
            left.append((int(entry.name), command.replace(b"\0", b" ").decode(errors="replace").strip()))
    return sorted(left)


def _stat(process: Path) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, group, session, terminal, ..."""
    return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _tty(process: Path) -> bool:
    return _stat(process)[4] != "0"


def _ancestors() -> set[int]:
    """This process and all above it."""
    found: set[int] = set()
    pid = os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = int(_stat(Path("/proc") / str(pid))[1])
    return found


def _touches(process: Path, folder: bytes, words: bytes) -> bool:
    """Whether a process has `folder` in its words, works below it, or holds a file of it open."""
    if folder in words:
        return True
    links = [process / "cwd"]
    try:
        links += (process / "fd").iterdir()
    except (FileNotFoundError, PermissionError):
        return False
    for link in links:
        try:
            if os.readlink(os.fsencode(link)).startswith(folder):
                return True
        except FileNotFoundError:
            continue
    return False
