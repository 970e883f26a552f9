"""Attempts' scratch directories: where they are, and that they go again.

Rules: a directory is made by the frame's own user, just before its command begins (see `spawning`), and
removed as its owner: as this user only what this user made, everything else by the keeper. So nothing that a
frame lays there, a link say, reaches further than its user does. Where frames have users of their own, all of
them make their directories in one folder with the sticky bit, outside the state directory, which is closed to
them.
"""

import os
import shutil
import stat
from collections.abc import Callable, Container

import trio

from drqueue import log
from drqueue.proto.ids import AttemptKey, parse_attempt
from drqueue.slave.privileges import User
from drqueue.slave.run_as import RunAs
from drqueue.statefile import StateError

#: Says whose folder this is: another slave would take the directories in it for leftovers.
MARKER = ".drqueue-slave"
SHARED, PRIVATE = 0o1777, 0o700
#: Of leftovers, so many of one user are removed at one look.
AT_ONCE = 500


def scratch_root(work_dir: str, state_dir: str, others: bool) -> str:
    """The folder of scratch directories: in the state directory, or beside it where others are to use it."""
    if work_dir:
        return os.path.abspath(os.path.expanduser(work_dir))
    state_dir = os.path.abspath(state_dir)
    return f"{state_dir}-work" if others else os.path.join(state_dir, "scratch")


def scratch_key(name: str) -> AttemptKey | None:
    """The attempt that a scratch directory belongs to."""
    try:
        return parse_attempt(name.replace(".", "/"))
    except ValueError:
        return None


class Scratch:
    """One slave's scratch directories; StateError says why they cannot be where they should.

    `remove_as` has trees removed as a user; it may fail silently, `purge` finds them again.
    """

    def __init__(
        self, work_dir: str, state_dir: str, run_as: RunAs, remove_as: Callable[[list[str], User], None]
    ) -> None:
        self.root = scratch_root(work_dir, state_dir, run_as.others)
        self._inside = scratch_root("", state_dir, False)
        self._run_as = run_as
        self._remove_as = remove_as
        if self.root != self._inside:
            try:
                _settle(self.root, os.path.abspath(state_dir), SHARED if run_as.others else PRIVATE)
            except OSError as error:
                raise StateError(
                    f"cannot use {self.root} for scratch directories (work_dir): {error.strerror}"
                ) from error

    async def remove(self, key: AttemptKey) -> None:
        """Remove an attempt's directory, where there is one."""
        name = f"{key.job}.{key.layer}.{key.frame}.{key.attempt}"
        await self._remove(lambda: _owners([os.path.join(self.root, name)]))

    async def purge(self, held: Container[AttemptKey | None]) -> None:
        """Remove what is no held attempt's."""
        await self._remove(lambda: _owners(self._leftovers(held)))

    def _leftovers(self, held: Container[AttemptKey | None]) -> list[str]:
        found = []
        for root in {self.root, self._inside}:
            try:
                names = os.listdir(root)
            except FileNotFoundError:
                continue
            # Asked after the listing: an attempt is held before its directory is made.
            found += [
                os.path.join(root, name) for name in names if name != MARKER and scratch_key(name) not in held
            ]
        return found

    async def _remove(self, find: Callable[[], dict[tuple[int, int], list[str]]]) -> None:
        try:
            found = await trio.to_thread.run_sync(find, abandon_on_cancel=True)
            own = found.pop((os.getuid(), os.getgid()), [])
            await trio.to_thread.run_sync(_remove_own, own, abandon_on_cancel=True)
        except OSError as error:
            log.warning("scratch directories cannot be removed", folder=self.root, error=error.strerror)
            return
        for (uid, gid), paths in found.items():
            user = self._run_as.owner(uid, gid)
            if user is not None:
                self._remove_as(paths[:AT_ONCE], user)
            else:
                log.warning("something in the scratch folder is no frame's", path=paths[0], uid=uid)


def _owners(paths: list[str]) -> dict[tuple[int, int], list[str]]:
    """What is there of these, by user and group."""
    found: dict[tuple[int, int], list[str]] = {}
    for path in paths:
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            continue
        own = info.st_uid == os.getuid()
        found.setdefault((info.st_uid, os.getgid() if own else info.st_gid), []).append(path)
    return found


def _remove_own(paths: list[str]) -> None:
    """Remove what belongs to this user; links are not followed."""
    failure: OSError | None = None
    for path in paths:
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


def _settle(root: str, state_dir: str, mode: int) -> None:
    """Make the folder where it is missing; one that is there must be this user's, or root's and shared."""
    try:
        os.mkdir(root, PRIVATE)
    except FileExistsError:
        pass
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(folder)
        if info.st_uid != os.getuid() and (info.st_uid, stat.S_IMODE(info.st_mode)) != (0, SHARED):
            raise StateError(
                f"{root} is not this slave's: scratch directories must not lie in a folder of another user's"
            )
        if info.st_uid == os.getuid() and stat.S_IMODE(info.st_mode) != mode:
            os.fchmod(folder, mode)
        _claim(folder, root, state_dir)
    finally:
        os.close(folder)


def _claim(folder: int, root: str, state_dir: str) -> None:
    """Leave this slave's name there; a folder of scratch directories is no two slaves'."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(MARKER, flags, 0o600, dir_fd=folder)
    with open(fd, "r+", encoding="utf-8", errors="surrogateescape") as file:
        if os.fstat(fd).st_uid != os.getuid():
            raise StateError(
                f"{root} holds a {MARKER} of another user: remove it, or set work_dir to another"
            )
        owner = file.readline().rstrip("\n")
        if owner and owner != state_dir and os.path.exists(owner):
            raise StateError(f"{root} is used by the slave of {owner}: set work_dir to another folder")
        file.seek(0)
        file.truncate()
        file.write(f"{state_dir}\n")
