"""Unix sockets at paths of any length, with their mode right from the first moment.

Rules: the kernel takes 107 bytes, so the socket is reached through a descriptor (/proc/self/fd) where
the path is longer. A socket file in the way is removed only when nobody answers at it.
"""

import errno
import fcntl
import os
import socket
import stat

#: Bytes of a path that the kernel takes in an address.
MAX_ADDRESS = 107


def bind_unix(path: str, mode: int = 0o600, backlog: int = 128) -> socket.socket:
    """A listening stream socket at `path`, replacing one that a dead process left behind.

    Raises OSError: EADDRINUSE where somebody answers, EEXIST where something else lies there. The
    file is the caller's to unlink.
    """
    folder, name = os.path.split(path)
    directory = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Two that start at once would each take the other's new socket for a stale one.
        fcntl.flock(directory, fcntl.LOCK_EX)
        _remove_stale(path, name, directory)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # The file takes the socket's mode (less the umask), so it is never open to more than asked.
            os.fchmod(sock.fileno(), mode)
            sock.bind(_address(path, f"/proc/self/fd/{directory}/{name}"))
            os.chmod(name, mode, dir_fd=directory)
            # Before the lock goes: until it listens it looks stale.
            sock.listen(backlog)
        except OSError:
            sock.close()
            raise
        return sock
    finally:
        os.close(directory)


def connect_unix(path: str, blocking: bool = True) -> socket.socket:
    """A stream socket connected to `path`; raises OSError.

    Not blocking: the socket stays non-blocking, and a full backlog raises BlockingIOError (try again).
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(blocking)
        if len(os.fsencode(path)) <= MAX_ADDRESS:
            sock.connect(path)
        else:
            place = os.open(path, os.O_PATH)
            try:
                sock.connect(f"/proc/self/fd/{place}")
            finally:
                os.close(place)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str, name: str, directory: int) -> None:
    try:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        raise FileExistsError(errno.EEXIST, "something that is no socket lies there", path)
    try:
        connect_unix(path, blocking=False).close()
    except ConnectionRefusedError:
        os.unlink(name, dir_fd=directory)
    except BlockingIOError:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path) from None
    else:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def _address(path: str, through: str) -> str:
    if len(os.fsencode(path)) <= MAX_ADDRESS:
        return path
    if len(os.fsencode(through)) <= MAX_ADDRESS:
        return through
    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
