"""Which processes a keeper started as other users, in a file that outlives it.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
A frame of the keeper's own user is found again by the environment it was started with. That of another user's
cannot be read without CAP_SYS_PTRACE, so such a frame is noted before its program begins: a line of key,
process id and the two ticks since boot between which it was born, in `keeper.frames`. A line begins with an
end of line: a full disk may have cut the former short.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING or __package__:
    from drqueue.slave import proctree
else:  # keeper.py made this folder importable
    import proctree

NAME = "keeper.frames"
MOST = 64 << 10  # bytes; then what has ended is left out


class Notes:
    """The keeper's side: a descriptor to which lines are appended."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, NAME)
        self._fd = -1
        self._most = MOST

    def ready(self) -> int:
        """The descriptor for the next line; raises OSError."""
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
        if os.fstat(self._fd).st_size > self._most:
            self._shorten()
        return self._fd

    def _shorten(self) -> None:
        lines = [f"{mark} {pid} {birth} {birth}\n" for mark, pid, birth in _running(self._path)]
        temporary = f"{self._path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(temporary, flags, 0o600)
        os.write(fd, "".join(lines).encode())
        os.rename(temporary, self._path)
        os.close(self._fd)
        self._fd = fd
        self._most = MOST + 2 * os.fstat(fd).st_size


def running(state_dir: str) -> list[tuple[str, int, int]]:
    """Mark, process id and birth of all that were noted and still run."""
    try:
        return _running(os.path.join(state_dir, NAME))
    except FileNotFoundError:
        return []


def _running(path: str) -> list[tuple[str, int, int]]:
    with open(path, encoding="ascii", errors="replace") as file:
        rows = [line.split() for line in file if line.endswith("\n")]
    found = []
    for row in rows:
        if len(row) == 4 and all(word.isdigit() for word in row[1:]):
            pid, first, last = map(int, row[1:])
            birth = proctree.birth(pid)
            if first <= birth <= last and proctree.alive(pid, birth):
                found.append((row[0], pid, birth))
    return found
