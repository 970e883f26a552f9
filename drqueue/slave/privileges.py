"""What this process may do, giving that up, and becoming another user for good.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
A capability that is *ambient* survives a change of user, and exec: whoever leaves it there hands out the
right to become uid 0. So all sets are emptied after the change, and looked at before anything else happens.
"""

import ctypes
import os

CAP_KILL, CAP_SETGID, CAP_SETUID = 5, 6, 7
NEEDED = 1 << CAP_KILL | 1 << CAP_SETGID | 1 << CAP_SETUID

_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

User = tuple[int, int, tuple[int, ...]]  # uid, gid, supplementary groups

_libc = ctypes.CDLL(None, use_errno=True)


def may_change_users() -> bool:
    """Whether this process may start others' processes and signal them."""
    return _capabilities()[0] & NEEDED == NEEDED


def keep_to_self() -> None:
    """Hand no capability on to what is started from here; this process keeps its own. Raises OSError."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    effective, permitted, _ = _capabilities()
    _set_capabilities(effective, permitted)


def give_up() -> None:
    """Have no capability any more; raises OSError."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(0, 0)


def become(user: User) -> None:
    """Become that user, with no way back: not by exec, not by a set-uid program. Raises OSError.

    For a process of one thread that is about to exec: what fails here leaves it somewhere between.
    """
    uid, gid, groups = user
    if uid in (0, os.getuid()):
        raise PermissionError(1, "frames never run as that user")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _set_capabilities(0, 0)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or any(_capabilities()):
        raise PermissionError(1, "privileges were left over")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _capabilities() -> tuple[int, int, int]:
    """Effective, permitted and inheritable capabilities, as bits."""
    header, data = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if _libc.capget(header, data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return data[0] | data[3] << 32, data[1] | data[4] << 32, data[2] | data[5] << 32


def _set_capabilities(effective: int, permitted: int) -> None:
    """Set both, and no inheritable ones."""
    low = (1 << 32) - 1
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(effective & low, permitted & low, 0, effective >> 32, permitted >> 32, 0)
    if _libc.capset(header, data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
