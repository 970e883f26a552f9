"""What can be looked at on any machine of a farm to say whether it is well; for `drqueue doctor`.

Rules: a look changes nothing and gives one Finding: what, ok, warn or bad, one line of text, and, where it is
not ok, one line of advice. `bad` is what stops work or gives a secret away, `warn` what will or may. What may
hang (a dead share) is looked at with `looked`, in threads of its own that nobody waits for longer than told.
"""

import ctypes
import os
import pwd
import resource
import ssl
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from drqueue.proto.lines import pin_of
from drqueue.proto.views import Finding

Look = Callable[[], Finding]

#: Seconds that the looks of one examination get, and how many may hang at once in one process.
PATIENCE_S = 5.0
_hanging = threading.BoundedSemaphore(32)

MB = 1 << 20
#: Less room than this is worth a word; less than that, and writes are about to fail (MB, and inodes).
LITTLE_MB, LEAST_MB = 1024, 100
LITTLE_INODES, LEAST_INODES = 10_000, 500
#: Seconds between two clocks.
CLOCK_WARN_S, CLOCK_BAD_S = 2.0, 60.0
_LISTED = 5

#: Left by what sets the clock over the network, for processes that may not ask the kernel.
_TIMESYNC = "/run/systemd/timesync/synchronized"
_TIME_PROGRAMS: Mapping[str, str] = {
    "/run/chrony": "chronyd",
    "/run/chronyd.pid": "chronyd",
    "/run/ntpd.pid": "ntpd",
    "/run/openntpd.pid": "openntpd",
}


def ok(what: str, text: str) -> Finding:
    """A finding that is well."""
    return Finding(what=what, state="ok", text=text)


def warn(what: str, text: str, advice: str = "") -> Finding:
    """A finding that deserves a look."""
    return Finding(what=what, state="warn", text=text, advice=advice)


def bad(what: str, text: str, advice: str = "") -> Finding:
    """A finding that stops work, or gives something away."""
    return Finding(what=what, state="bad", text=text, advice=advice)


def looked(looks: Sequence[tuple[str, Look]], patience_s: float = PATIENCE_S) -> list[Finding]:
    """What each (what, look) finds, all at once, in their order; one that hangs or cannot look is bad.

    Blocks for `patience_s` seconds at most. A look that raises anything but OSError ends this with it.
    """
    answers: SimpleQueue[tuple[int, Finding | BaseException]] = SimpleQueue()
    found: dict[int, Finding] = {}
    waiting: set[int] = set()
    for number, (what, look) in enumerate(looks):
        if not _hanging.acquire(blocking=False):
            found[number] = bad(what, "earlier looks still hang", "see whether a network disk is gone")
            continue
        waiting.add(number)
        threading.Thread(
            target=_look, args=(number, what, look, answers), name=f"look at {what}", daemon=True
        ).start()
    deadline = time.monotonic() + patience_s
    while waiting:
        try:
            number, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        if isinstance(answer, BaseException):
            raise answer
        waiting.discard(number)
        found[number] = answer
    for number in waiting:
        found[number] = bad(
            looks[number][0],
            f"cannot be looked at: nothing came back in {patience_s:g} s",
            "see whether a network disk is gone",
        )
    return [found[number] for number in range(len(looks))]


def _look(
    number: int, what: str, look: Look, answers: "SimpleQueue[tuple[int, Finding | BaseException]]"
) -> None:
    answer: Finding | BaseException
    try:
        answer = look()
    except OSError as error:
        answer = bad(what, f"cannot be looked at: {error.strerror or error}")
    except BaseException as error:  # noqa: BLE001  (raised again by whoever waits)
        answer = error
    finally:
        _hanging.release()
    answers.put((number, answer))


# -- files --------------------------------------------------------------------------------------------------


def private_folder(what: str, path: str, secrets: Collection[str] = ()) -> Finding:
    """Whether a folder is 0700, what lies in it 0600, and both the own user's.

    `secrets` are files in it whose reader could pass for their owner; the others are only worth a word.
    """
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return bad(what, f"there is no {path}", "make it, with mode 0700, or start the daemon once")
    if not stat.S_ISDIR(info.st_mode):
        return bad(what, f"{path} is no folder", "move it away")
    if info.st_uid != os.geteuid() and os.geteuid() != 0:
        return bad(what, f"{path} belongs to {user_name(info.st_uid)}", f"chown it to {user_name()}")
    if info.st_mode & 0o077:
        return bad(
            what,
            f"{path} is open to others (mode {stat.S_IMODE(info.st_mode):04o})",
            f"chmod 700 {path}",
        )
    open_secrets: list[str] = []
    open_files: list[str] = []
    foreign: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                of_entry = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(of_entry.st_mode):
                    continue
                if of_entry.st_uid != info.st_uid:
                    foreign.append(entry.name)
                if of_entry.st_mode & 0o077:
                    (open_secrets if entry.name in secrets else open_files).append(entry.name)
    if open_secrets:
        return bad(
            what,
            f"others may read {listed(open_secrets)} in {path}",
            f"chmod 600 {' '.join(os.path.join(path, name) for name in sorted(open_secrets))}",
        )
    if foreign:
        return bad(
            what,
            f"{listed(foreign)} in {path} belongs to somebody else",
            f"chown them to {user_name(info.st_uid)}",
        )
    if open_files:
        return warn(what, f"the mode of {listed(open_files)} in {path} is not 0600", "chmod 600 them")
    return ok(what, f"{path}, mode 0700, of {user_name(info.st_uid)}")


def private_file(what: str, path: str, missing: Finding) -> Finding:
    """Whether a file can be read by the own user alone; `missing` is the finding where there is none."""
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return missing
    if not stat.S_ISREG(info.st_mode):
        return bad(what, f"{path} is no file", "move it away")
    if info.st_uid not in (os.geteuid(), 0):
        return bad(what, f"{path} belongs to {user_name(info.st_uid)}", f"chown it to {user_name()}")
    if info.st_mode & 0o077:
        return bad(
            what,
            f"others may read {path} (mode {stat.S_IMODE(info.st_mode):04o}), and it holds a secret",
            f"chmod 600 {path}",
        )
    return ok(what, f"{path}, mode {stat.S_IMODE(info.st_mode):04o}")


def disk_room(what: str, path: str, little_mb: int = LITTLE_MB, least_mb: int = LEAST_MB) -> Finding:
    """Whether there is room, for the own user, on the disk that a folder lies on."""
    try:
        disk = os.statvfs(path)
    except FileNotFoundError:
        return bad(what, f"there is no {path}", "make it, or mount it")
    free_mb = disk.f_bavail * disk.f_frsize // MB
    text = f"{amount(free_mb)} free at {path}"
    if disk.f_flag & os.ST_RDONLY:
        return bad(what, f"{path} is on a disk that is mounted read-only", "see dmesg, and mount it again")
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return bad(what, f"{user_name()} may not write in {path}", "see its owner and mode")
    # Some file systems (btrfs) count no inodes.
    inodes = disk.f_favail if disk.f_files else LITTLE_INODES
    if free_mb < least_mb or inodes < LEAST_INODES:
        lack = text if free_mb < least_mb else f"{inodes} more files fit at {path}"
        return bad(what, f"full: {lack}", "delete what is not needed, or lower logs_keep_mb")
    if free_mb < little_mb or inodes < LITTLE_INODES:
        lack = text if free_mb < little_mb else f"{inodes} more files fit at {path}"
        return warn(what, f"nearly full: {lack}", "make room before writes fail")
    return ok(what, text)


def open_files(needed: int, what: str = "open files") -> Finding:
    """Whether this process may open `needed` files and sockets, and how many it has open."""
    used = len(os.listdir("/proc/self/fd"))
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return ok(what, f"{used} open, no limit")
    text = f"{used} open, {most} allowed"
    way = f"set LimitNOFILE={max(needed, 65536)} in its unit, or ulimit -n before the start"
    if used > most * 0.9:
        return bad(what, f"nearly used up: {text}", way)
    if most < needed:
        return warn(what, f"{text}, {needed} may be needed", way)
    return ok(what, text)


# -- clocks -------------------------------------------------------------------------------------------------


def kernel_clock_synchronised() -> bool | None:
    """What the kernel says of its clock; None where it may not be asked (a service with ProtectClock=)."""
    # struct timex is 208 bytes with 64-bit longs, less without; all zero means: change nothing.
    timex = (ctypes.c_char * 512)()
    try:
        state: int = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):
        return None
    # 5 is TIME_ERROR: not synchronised.
    return None if state < 0 else state != 5


def clock_set(
    ask: Callable[[], bool | None] = kernel_clock_synchronised,
    exists: Callable[[str], bool] = os.path.exists,
    what: str = "clock",
) -> Finding:
    """Whether something keeps this machine's clock right over the network."""
    answer = ask()
    if answer or exists(_TIMESYNC):
        return ok(what, "kept right over the network")
    running = sorted({program for path, program in _TIME_PROGRAMS.items() if exists(path)})
    if answer is None and running:
        return ok(what, f"{running[0]} is there to keep it right")
    text = "nothing keeps it right" if answer is False else "it cannot be told whether it is kept right"
    return warn(what, f"{text} over the network", "see timedatectl; install chrony or systemd-timesyncd")


def clock_against(other: float, whose: str, own: float | None = None, what: str = "clock") -> Finding:
    """How far the own wall clock is from another one, which says `other` (seconds since 1970) now."""
    off = (time.time() if own is None else own) - other
    text = f"{abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} {whose}"
    advice = "have both set over the network (chrony, systemd-timesyncd)"
    if abs(off) >= CLOCK_BAD_S:
        return bad(what, text, advice)
    if abs(off) >= CLOCK_WARN_S:
        return warn(what, text, advice)
    return ok(what, f"within {max(0.1, abs(off)):.1f} s of {whose}")


# -- programs, certificates ---------------------------------------------------------------------------------


def version(whose: str, theirs: str, own: str, what: str = "software") -> Finding:
    """Whether another side runs the own version; both as they introduce themselves."""
    if not theirs:
        return warn(what, f"{whose} does not say what it runs; this is {own}", "run one version everywhere")
    if theirs != own:
        return warn(what, f"{whose} runs {theirs}, this is {own}", "run one version everywhere")
    return ok(what, f"{whose} runs {theirs}, too")


def certificate_files(what: str, certificate: str, key: str, pin: str = "") -> Finding:
    """The same as `certificate` for PEM files; the key's must be private."""
    missing = bad(what, f"there is no {key}", "put it back from a backup, or all must join again")
    of_key = private_file(what, key, missing)
    if of_key.state != "ok":
        return of_key
    try:
        with open(certificate, encoding="ascii", errors="replace") as file:
            shown = file.read(1 << 16)
        with open(key, encoding="ascii", errors="replace") as file:
            secret = file.read(1 << 16)
    except FileNotFoundError:
        return bad(what, f"there is no {certificate}", missing.advice)
    return check_certificate(what, shown, secret, pin)


def check_certificate(what: str, certificate: str, key: str, pin: str = "") -> Finding:
    """Whether a certificate (PEM) can be read, its key is its own, and its pin is the one others know."""
    again = "put both back from a backup, or join again"
    try:
        own = pin_of(ssl.PEM_cert_to_DER_cert(certificate.strip()))
    except ValueError:
        return bad(what, "the certificate cannot be read", again)
    handle = os.memfd_create("certificate")
    with open(handle, "wb") as file:
        file.write(f"{certificate}\n{key}\n".encode())
        file.flush()
        try:
            # The one thing in the standard library that compares a key with its certificate. It asks for a
            # password on the terminal where the key has one, if it is not told that there is none.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(f"/proc/self/fd/{handle}", password="")
        except (ssl.SSLError, OSError, ValueError):
            return bad(what, "the key does not belong to the certificate, or cannot be read", again)
    if pin and pin != own:
        return bad(what, f"its pin is {own[:12]}…, but others know {pin[:12]}…", again)
    return ok(what, f"key and certificate fit; the pin begins with {own[:12]}")


# -- frames: whose they are, and their processes ------------------------------------------------------------


def frames_user(frames_as: str | None, own_uid: int | None = None, what: str = "frames' user") -> Finding:
    """Whom frames run as; None: as whoever the daemon runs as."""
    uid = os.geteuid() if own_uid is None else own_uid
    own = user_name(uid)
    if frames_as == "root" and uid != 0:
        return bad(what, "frames run as root: each can do anything here", "set run_as to a user for frames")
    if frames_as in (None, own):
        can = "do anything here" if uid == 0 else "read the slave's secret"
        return warn(
            what,
            f"frames run as {own}, as the slave does: each can {can}",
            "run it by the shipped unit, which may change users, and set run_as",
        )
    return ok(what, f"frames run as {frames_as}, the slave as {own}")


# -- words --------------------------------------------------------------------------------------------------


def user_name(uid: int | None = None) -> str:
    """A user's name, or its number where it has none; the own one's without `uid`."""
    uid = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def amount(mb: int) -> str:
    """Megabytes, or larger where that reads better."""
    for unit, size in (("TB", MB), ("GB", 1024)):
        if mb >= size:
            return f"{mb / size:.1f} {unit}"
    return f"{mb} MB"


def listed(names: Iterable[str], most: int = _LISTED) -> str:
    """A few of many names, in order, and how many more there are."""
    shown = sorted(names)
    more = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {more} more" if more > 0 else "")
