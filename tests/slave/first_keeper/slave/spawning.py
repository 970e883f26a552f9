"""How the keeper starts a command: log, working directory, program, and what to say when one is missing.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
It changes the process's working directory and umask for the moment of the spawn: one thread only.
"""

import errno
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from drqueue.slave import proctree
else:  # keeper.py made this folder importable
    import proctree

NO_COMMAND, NO_CWD, SPAWN_FAILED = "no-command", "no-cwd", "spawn-failed"
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
DEFAULT_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class LaunchError(Exception):
    """A command that could not be started: a reason's code and one sentence."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.reason = reason
        # Names may hold bytes that are no UTF-8; a sentence may not.
        self.text = text.encode("utf-8", "replace").decode()


def open_log(path: str) -> int:
    """Open a log for appending, 0600, and return its descriptor."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except (OSError, ValueError) as error:
        raise LaunchError(SPAWN_FAILED, f"cannot open the log {path}: {why(error)}") from None


def spawn(
    argv: list[str], env: dict[str, str], cwd: str, log: int, umask: int, scratch: bool
) -> tuple[int, int]:
    """Start the command in a session of its own; return its process id and birth (clock ticks since boot)."""
    try:
        if scratch:
            os.makedirs(cwd, 0o700, exist_ok=True)
        os.chdir(cwd)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        text = "does not exist on this node" if missing else f"cannot be used: {why(error)}"
        raise LaunchError(NO_CWD, f"the working directory {cwd} {text}") from None
    own_umask = os.umask(umask)
    program = argv[0]
    try:
        program = find_program(argv[0], env)
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK_NS
        # Standard input is the keeper's own: /dev/null. All other descriptors close by themselves.
        pid = os.posix_spawn(
            program,
            argv,
            env,
            setsid=True,
            setsigmask=(),
            setsigdef=DEFAULT_SIGNALS,
            file_actions=((os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)),
        )
        # Born and looked at in one tick: that spares a look into /proc, a quarter of what a launch costs.
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK_NS
        return pid, before if before == after else proctree.birth(pid)
    except (OSError, ValueError) as error:
        raise _explain(program, error) from None
    finally:
        os.umask(own_umask)
        os.chdir("/")  # a keeper must not keep a file system busy


def find_program(name: str, env: dict[str, str]) -> str:
    """Look a command up in the frame's own PATH, as a shell does."""
    if "/" in name:
        return name
    denied = False
    for folder in env.get("PATH", os.defpath).split(":"):
        path = f"{folder or '.'}/{name}"
        if os.access(path, os.F_OK) and os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            denied = True
    if denied:
        raise LaunchError(NO_COMMAND, f"cannot run {name}: it is in PATH but may not be executed")
    raise LaunchError(NO_COMMAND, f"command not found: {name}")


def _explain(program: str, error: Exception) -> LaunchError:
    if isinstance(error, FileNotFoundError):
        if os.path.exists(program):
            return LaunchError(NO_COMMAND, f"{program} wants an interpreter that does not exist on this node")
        return LaunchError(NO_COMMAND, f"command not found: {program}")
    if isinstance(error, (PermissionError, NotADirectoryError)):
        return LaunchError(NO_COMMAND, f"cannot run {program}: {why(error)}")
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return LaunchError(NO_COMMAND, f"{program} is no program, and no script with a #! line")
    return LaunchError(SPAWN_FAILED, f"cannot start {program}: {why(error)}")


def why(error: Exception) -> str:
    """The system's words for an error, without its number and path."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
