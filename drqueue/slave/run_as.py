"""Which user a frame runs as.

Rules: names come from this node's settings and user database, never from a client; of a job only the name
counts under which the master knows who submitted it, and only where the settings map it. Nobody's frame runs
as uid 0, nor as the slave's own user where others are possible: it could read the node's secret. Mapped users
are people's (from the system's UID_MIN on); `run_as` may name a user of the system. Either every frame runs
as the slave's own user (then this process gives up what it could have been allowed), or none does.
"""

import os
import pwd
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from drqueue.settings import SELF, SettingsError
from drqueue.slave import privileges

RENDER: Final = "render"
UID_MIN: Final = 1000
#: Users that stand for nobody: what cannot be mapped, and a mistaken -1 of 16 bits.
_NOBODY: Final = (65534, 65535)
#: How long a mapped user is believed to be what the user database said, in seconds.
BELIEVED_S: Final = 60.0
LOGIN_DEFS: Final = "/etc/login.defs"


class RunAsError(SettingsError):
    """A user that frames cannot run as; the text is one sentence."""


class User(NamedTuple):
    """One user of this machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def ids(self) -> privileges.User:
        """What a process of this user has."""
        return self.uid, self.gid, self.groups


class Users:
    """The user database; tests have one of their own."""

    def by_name(self, name: str) -> User | None:
        """A user by name, None where there is none."""
        try:
            return _user(pwd.getpwnam(name))
        except (KeyError, ValueError):  # a name that no user can have
            return None

    def by_uid(self, uid: int) -> User | None:
        """A user by number, None where there is none."""
        try:
            return _user(pwd.getpwuid(uid))
        except KeyError:
            return None


def _user(entry: pwd.struct_passwd) -> User:
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups), entry.pw_dir)


class RunAs:
    """Decides whose a frame is; made at a slave's start, RunAsError says why it cannot start so.

    `may_change` tells whether this process may start others' processes, `own` is its uid.
    """

    def __init__(
        self,
        run_as: str,
        map_users: Sequence[str],
        *,
        users: Users | None = None,
        own: int | None = None,
        may_change: bool | None = None,
        uid_min: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._users = Users() if users is None else users
        self._own = os.getuid() if own is None else own
        self._may_change = privileges.may_change_users() if may_change is None else may_change
        self._uid_min = system_uid_min() if uid_min is None else uid_min
        self._clock = clock
        self._believed: dict[str, tuple[float, User | None]] = {}
        self._everybody = "*" in map_users
        self._map = dict(_pair(entry) for entry in map_users if entry != "*")
        self.default = self._default(run_as)
        if map_users and not self._may_change:
            raise RunAsError(
                "map_users: frames cannot run as other users, as this slave may not change users:"
                " run it as root, or give it CAP_SETUID, CAP_SETGID and CAP_KILL"
            )
        if self.default is None and map_users:
            raise RunAsError(
                "map_users needs another user for all the others' frames, too: set run_as to a user's name"
            )
        for submitter, name in self._map.items():
            user = self._users.by_name(name)
            if user is None:
                raise RunAsError(f"map_users: there is no user {name} on this machine, for {submitter}")
            if (wrong := self._wrong(user)) is not None:
                raise RunAsError(f"map_users: frames cannot run as {name}, for {submitter}: {wrong}")

    @property
    def others(self) -> bool:
        """Whether frames run as other users."""
        return self.default is not None

    def user(self, submitter: str) -> User | None:
        """Whose frames of that submitter are, None: the slave's own user's; RunAsError where that fails."""
        if self.default is None or not submitter:
            return self.default
        name = self._map.get(submitter)
        if name is None:
            return (self._people(submitter) if self._everybody else None) or self.default
        user = self._people(name)
        if user is None:
            raise RunAsError(f"frames of {submitter} cannot run as {name} on this machine any more")
        return user

    def name_and_home(self, user: User | None) -> tuple[str, str]:
        """Name and home of a frame's user; a number without an entry, as in containers, lives in /."""
        user = self._users.by_uid(self._own) if user is None else user
        return (str(self._own), "/") if user is None else (user.name, user.home)

    def owner(self, uid: int, gid: int) -> privileges.User | None:
        """As whom something of that owner may be removed; None where nobody's business here."""
        if self.default is not None and uid == self.default.uid:
            return self.default.ids
        if self.default is None or not self._is_person(uid):
            return None
        user = self._users.by_uid(uid)
        return user.ids if user is not None else (uid, gid, ())

    def settle(self) -> None:
        """Give up rights that are not needed: frames of the slave's own user would have them, too."""
        if self.default is None and self._own != 0:
            privileges.give_up()

    def _default(self, run_as: str) -> User | None:
        if run_as == SELF:
            return None
        if run_as:
            user = self._users.by_name(run_as)
            if user is None:
                raise RunAsError(f"run_as: there is no user {run_as} on this machine")
        else:
            user = self._users.by_name(RENDER)
            if self._own != 0 and (user is None or not self._may_change or user.uid == self._own):
                return None
            if user is None:
                raise RunAsError(
                    "frames must not run as root: make a user for them (useradd --system render),"
                    f" or set run_as to a user's name, or to {SELF} to let them run as root all the same"
                )
        if user.uid == 0:
            raise RunAsError(f"run_as: frames never run as {user.name}, which is uid 0; name another user")
        if user.uid == self._own:
            raise RunAsError(
                f"run_as: {user.name} is the slave's own user, whose secret frames could read;"
                f" name another user, or say {SELF}"
            )
        if not self._may_change:
            raise RunAsError(
                f"run_as: frames cannot run as {user.name}, as this slave may not change users:"
                f" give it CAP_SETUID, CAP_SETGID and CAP_KILL, or set run_as to {SELF}"
            )
        return user

    def _people(self, name: str) -> User | None:
        """A person of this machine, as the user database said lately."""
        now = self._clock()
        believed = self._believed.get(name)
        if believed is None or now - believed[0] > BELIEVED_S:
            if len(self._believed) > 10_000:
                self._believed.clear()
            user = self._users.by_name(name)
            if user is not None and self._wrong(user) is not None:
                user = None
            believed = self._believed[name] = now, user
        return believed[1]

    def _is_person(self, uid: int) -> bool:
        return uid >= self._uid_min and uid != self._own and uid not in _NOBODY

    def _wrong(self, user: User) -> str | None:
        """Why a mapped user's frames cannot run as that user."""
        if user.uid == 0:
            return "that is uid 0"
        if user.uid == self._own:
            return "that is the slave's own user"
        if not self._is_person(user.uid):
            return f"its uid, {user.uid}, is no person's"
        return None


def _pair(entry: str) -> tuple[str, str]:
    submitter, _, name = entry.partition("=")
    return submitter, name or submitter


def system_uid_min(path: str = LOGIN_DEFS) -> int:
    """The first uid of people on this system."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        return UID_MIN
    for found in words:
        if len(found) == 2 and found[0] == "UID_MIN" and found[1].isdigit():
            return max(1, int(found[1]))
    return UID_MIN
