"""How the keeper starts a command: log, working directory, program, and what to say when one is missing.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
It changes the process's working directory and umask for the moment of the spawn: one thread only.

The keeper's own user's commands are started by posix_spawn, which copies nothing of the keeper. Those that
are to be in a cgroup go by a fork that enters it first, so that all they ever start is there. Another user's,
too, go by a fork, and change to that user before they look at any path: what the user may not see or run,
they cannot. Between the change and the exec nobody but root may look into it, since the change makes it
undumpable; stopping it there costs the launch (START_S), not the keeper.
"""

import errno
import os
import select
import signal
import time
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING or __package__:
    from drqueue.slave import cgroups, privileges, proctree
else:  # keeper.py made this folder importable
    import cgroups
    import privileges
    import proctree

NO_COMMAND, NO_CWD, SPAWN_FAILED = "no-command", "no-cwd", "spawn-failed"
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
DEFAULT_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
START_S = 10.0
SPARE_LOGS = 16
# rm follows no link, whatever changes meanwhile; folders that are closed to their own user are opened.
REMOVER = """rm -rf -- "$@" && exit
for path; do [ -L "$path" ] || chmod -R u+rwx -- "$path"; done
rm -rf -- "$@"
"""


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


class Logs:
    """Opens logs. One that stayed empty may become another attempt's, by a new name in the same folder.

    To create a file is the dearest part of a short frame's start, and a hundred times dearer still where many
    were removed lately (ext4 does not use an inode again for minutes, and looks at each).
    """

    def __init__(self) -> None:
        self._spare: dict[str, int] = {}  # their present paths and descriptors

    def open(self, path: str) -> int:
        """A log's descriptor; raises LaunchError."""
        if path in self._spare:
            os.close(self._spare.pop(path))
        elif self._spare:
            former, fd = self._spare.popitem()
            if former.rpartition("/")[0] == path.rpartition("/")[0]:
                try:
                    os.rename(former, path)
                except OSError:  # it was removed
                    os.close(fd)
                else:
                    return fd
            else:
                self._spare[former] = fd
        return open_log(path)

    def close(self, path: str, fd: int, again: bool) -> None:
        """Be done with a log; `again`: it is empty, and nobody writes to it any more."""
        if not again:
            os.close(fd)
            return
        if len(self._spare) == SPARE_LOGS:
            os.close(self._spare.pop(next(iter(self._spare))))
        self._spare[path] = fd


def spawn(
    argv: list[str], env: dict[bytes, bytes], cwd: str, log: int, umask: int, scratch: bool
) -> tuple[int, int]:
    """Start the command in a session of its own; return its process id and birth (clock ticks since boot)."""
    try:
        if scratch:
            os.makedirs(cwd, 0o700, exist_ok=True)
        if cwd != "/":
            os.chdir(cwd)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        text = "does not exist on this node" if missing else f"cannot be used: {why(error)}"
        raise LaunchError(NO_CWD, f"the working directory {cwd} {text}") from None
    own_umask = os.umask(umask)
    program = argv[0]
    try:
        if "/" not in program:
            program = find_program(program, os.fsdecode(env.get(b"PATH", os.defpath)))
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK_NS
        # Standard input is the keeper's own: /dev/null. All other descriptors close by themselves.
        pid = os.posix_spawn(
            program,
            argv,
            env,
            setsid=True,
            setsigmask=(),
            setsigdef=_not_default(),
            file_actions=((os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)),
        )
        # Born and looked at in one tick: that spares a look into /proc, a quarter of what a launch costs.
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK_NS
        return pid, before if before == after else proctree.birth(pid)
    except (OSError, ValueError) as error:
        raise _explain(program, error) from None
    finally:
        os.umask(own_umask)
        if cwd != "/":
            os.chdir("/")  # a keeper must not keep a file system busy


@lru_cache(maxsize=1)
def _not_default() -> tuple[int, ...]:
    """The signals that this process treats in a way of its own, or ignores since its start."""
    return tuple(signo for signo in DEFAULT_SIGNALS if signal.getsignal(signo) is not signal.SIG_DFL)


def spawn_as(
    user: privileges.User | None,
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    output: int,
    umask: int,
    scratch: bool,
    note: tuple[int, str] | None = None,
    group: cgroups.Group | None = None,
) -> tuple[int, int]:
    """Start a command as another user, as `spawn`; but a scratch directory of theirs must not exist yet.

    `note` is a file and a key: before the command can begin, a line in it says which process the key's is.
    It goes into `group` first, where there is one.
    """
    pipe = pid = -1
    try:
        pipe, writing = os.pipe()
        # The child must be nobody's to interrupt before it is what it is to be.
        masked = signal.pthread_sigmask(signal.SIG_SETMASK, DEFAULT_SIGNALS)
        try:
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK_NS
            pid = os.fork()
            if pid == 0:
                _run_as(user, argv, env, cwd, output, umask, scratch, note, group, before, writing)
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK_NS
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
            os.close(writing)
        _wait_for_start(pid, pipe, argv[0])
        return pid, before if before == after else proctree.birth(pid)
    except OSError as error:
        raise LaunchError(SPAWN_FAILED, f"cannot start {argv[0]}: {why(error)}") from None
    finally:
        if pipe >= 0:
            os.close(pipe)


def remove_as(user: privileges.User, paths: list[str]) -> int:
    """Start a process that removes trees as that user; its process id."""
    with open(os.devnull, "wb") as null:
        argv = ["/bin/sh", "-c", REMOVER, "sh", *paths]
        return spawn_as(user, argv, {"PATH": "/usr/bin:/bin"}, "/", null.fileno(), 0o077, False)[0]


def _wait_for_start(pid: int, pipe: int, name: str) -> None:
    """Wait until the child runs its program; raise what it says where it cannot."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(START_S * 1000):
        os.kill(pid, signal.SIGKILL)  # reaped as any other child, whenever it is gone
        raise LaunchError(SPAWN_FAILED, f"{name} did not start within {START_S:.0f} s")
    said = os.read(pipe, 65536)
    if said:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        reason, _, text = said.decode("utf-8", "replace").partition(" ")
        raise LaunchError(reason, text)


def _run_as(
    user: privileges.User | None,
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    output: int,
    umask: int,
    scratch: bool,
    note: tuple[int, str] | None,
    group: cgroups.Group | None,
    before: int,
    pipe: int,
) -> None:
    """The child's way from the fork to its program; it never returns."""
    program = argv[0]
    try:
        os.setsid()
        if note is not None:
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK_NS
            os.write(note[0], f"\n{note[1]} {os.getpid()} {before} {after}\n".encode())
        if group is not None:
            group.join()
        signal.set_wakeup_fd(-1)
        for signo in DEFAULT_SIGNALS:
            if signal.getsignal(signo) is not signal.SIG_DFL:
                signal.signal(signo, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if user is not None:
            _become(user, program)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _enter(cwd, scratch, user is None)
        os.umask(umask)
        program = find_program(program, env.get("PATH", os.defpath))
        os.execve(program, argv, env)
    except LaunchError as error:
        failure = error
    except (OSError, ValueError) as error:
        failure = _explain(program, error)
    except BaseException as error:  # noqa: BLE001 - whatever it is, a second keeper must not come of it
        failure = LaunchError(SPAWN_FAILED, f"cannot start {program}: {error!r}")
    try:
        os.write(pipe, f"{failure.reason} {failure.text}".encode()[:60_000])
    finally:
        os._exit(127)


def _become(user: privileges.User, program: str) -> None:
    try:
        privileges.become(user)
    except OSError as error:
        raise LaunchError(SPAWN_FAILED, f"cannot start {program} as uid {user[0]}: {why(error)}") from None


def _enter(cwd: str, scratch: bool, may_exist: bool) -> None:
    """Go to the working directory. Another user's must be new, or somebody else laid it there."""
    try:
        if scratch and may_exist:
            os.makedirs(cwd, 0o700, exist_ok=True)
        elif scratch:
            os.mkdir(cwd, 0o700)
        os.chdir(cwd)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError) and not scratch
        text = "does not exist on this node" if missing else f"cannot be used: {why(error)}"
        raise LaunchError(NO_CWD, f"the working directory {cwd} {text}") from None


def find_program(name: str, search: str) -> str:
    """Look a command up in the frame's own PATH, as a shell does."""
    if "/" in name:
        return name
    denied = False
    for folder in search.split(":"):
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
