"""`drqueue-master backup FILE` and `drqueue-master restore FILE`.

A running master is asked for a backup over its Unix socket: it makes one in its own folder, and this process
copies that, so no path is ever said to it. The database of a stopped one is copied directly. A file that is
there is never written over; what was not finished is not left behind.
"""

import argparse
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from drqueue import __version__, log
from drqueue.address import Address
from drqueue.configuration import load
from drqueue.master.storage import StorageError
from drqueue.master.storage.backups import BACKUPS
from drqueue.settings import MasterSettings, SettingsError
from drqueue.statefile import StateError, sync_dir

#: The other side is to hear something so often (seconds).
_BEAT_S = 10.0

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class FailedError(Exception):
    """One sentence for whoever called."""


def main(command: str, argv: Sequence[str]) -> int:
    """Run `backup` or `restore`; the exit status: 0, 1 (it failed), 2 (wrong usage), 130 (Ctrl-C)."""
    options = _parser(command).parse_args(argv)
    try:
        loaded = load(
            MasterSettings, config=options.config, flags={"state_dir": options.state_dir}, search=True
        )
        log.setup(loaded.settings.log_level)
        done = _backup if command == "backup" else _restore
        print(done(loaded.settings, options))
    except SettingsError as error:
        return _complain(error, USAGE)
    except (FailedError, StateError, StorageError) as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        return INTERRUPTED
    return 0


def _parser(command: str) -> argparse.ArgumentParser:
    backing_up = command == "backup"
    parser = argparse.ArgumentParser(
        prog=f"drqueue-master {command}",
        description=(
            "Copies the master's database to a new file, checked, while the master runs or is stopped."
            if backing_up
            else "Puts a backup in place of a stopped master's database; what was there is kept."
        ),
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the new file" if backing_up else "the backup")
    parser.add_argument("--state-dir", metavar="DIR", help="folder of the master's own files")
    parser.add_argument("-c", "--config", metavar="FILE", help="the master's settings file")
    if not backing_up:
        parser.add_argument(
            "--farm-epoch-above",
            metavar="N",
            type=_natural,
            help="where farm.json is lost: a number surely above every epoch that there was",
        )
    return parser


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 13):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no epoch, which is a number like 17")
    return int(text)


def _complain(error: Exception, status: int) -> int:
    print(f"drqueue-master: {error}", file=sys.stderr)
    return status


# -- backup ------------------------------------------------------------------------------------------------


def _backup(settings: MasterSettings, options: argparse.Namespace) -> str:
    from drqueue.master.storage.statedir import DATABASE, open_stopped

    database = os.path.join(settings.state_dir, DATABASE)
    if not os.path.exists(database):
        raise FailedError(f"there is no master's database: {database}")
    file = os.path.abspath(options.file)
    with _arriving(file) as part:
        try:
            with open_stopped(settings.state_dir) as storage:
                storage.backup(part)
        except StateError as error:
            if not _is_locked(error):
                raise
            _fetch(settings, part, error)
        size = os.path.getsize(part)
    return f"{file}: {size} bytes, checked; `drqueue-master restore {file}` brings it back"


def _is_locked(error: StateError) -> bool:
    return isinstance(error.__cause__, BlockingIOError)


@contextmanager
def _arriving(file: str) -> Iterator[str]:
    """The name of a file to fill, which becomes `file` if the block ends well. Raises FailedError."""
    if os.path.lexists(file):
        raise FailedError(f"{file} is there already: name another file, or remove it")
    folder = os.path.dirname(file)
    if not os.path.isdir(folder):
        raise FailedError(f"there is no folder {folder}")
    part = f"{file}.{secrets.token_hex(4)}.part"
    try:
        yield part
        _name(part, file)
        sync_dir(folder)
    except OSError as error:
        raise FailedError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            os.unlink(part)


def _name(part: str, file: str) -> None:
    """Give it its name, which nobody took meanwhile. Raises OSError."""
    try:
        os.link(part, file, follow_symlinks=False)
    except OSError as error:
        # File systems without links: on sticks, of other systems.
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS) or os.path.lexists(file):
            raise
        os.rename(part, file)


def _fetch(settings: MasterSettings, part: str, locked: StateError) -> None:
    """Have the master that runs make one, and copy it from its folder."""
    import trio  # not for a master that is stopped

    name = trio.run(_ask, settings, locked)
    made = os.path.join(settings.state_dir, BACKUPS, os.path.basename(name))
    try:
        try:
            source = open(made, "rb")  # noqa: SIM115  (closed below)
        except OSError as error:
            raise FailedError(f"cannot read {made}: {error.strerror}") from error
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with source, open(fd, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(fd)
    finally:
        with suppress(OSError):
            os.unlink(made)


async def _ask(settings: MasterSettings, locked: StateError) -> str:
    """The name of the backup that the master made. Raises FailedError."""
    import trio

    from drqueue.channel import Channel, LinkClosed
    from drqueue.dialling import open_channel
    from drqueue.proto.errors import RemoteProtocolError
    from drqueue.proto.handshake import Dialler, HandshakeRejected
    from drqueue.proto.link_messages import Beat, Rejected
    from drqueue.proto.messages import BackedUp, BackUp, Refusal

    address = Address("unix", path=settings.socket)

    async def beat(channel: Channel) -> None:
        while True:
            await trio.sleep(_BEAT_S)
            channel.send(Beat())

    async def answer(channel: Channel) -> BackedUp | Refusal | Rejected:
        await channel.dial(Dialler("client", f"drqueue {__version__}", name="drqueue-master backup"))
        channel.send(BackUp(rq=0))
        while True:
            message = await channel.receive()
            if isinstance(message, BackedUp | Refusal | Rejected):
                return message

    try:
        channel = await open_channel(address)
    except OSError as error:
        raise FailedError(f"{locked}, and {address} does not answer: {error.strerror or error}") from error
    found: BackedUp | Refusal | Rejected | str
    async with channel, trio.open_nursery() as nursery:
        nursery.start_soon(channel.pump)
        nursery.start_soon(beat, channel)
        try:
            found = await answer(channel)
        except (LinkClosed, RemoteProtocolError, HandshakeRejected) as error:
            found = f"the link ended ({error})"
        nursery.cancel_scope.cancel()
    if isinstance(found, BackedUp):
        return found.name
    raise FailedError(f"the master makes no backup: {found if isinstance(found, str) else found.text}")


# -- restore -----------------------------------------------------------------------------------------------


def _restore(settings: MasterSettings, options: argparse.Namespace) -> str:
    from drqueue.master.storage.restoring import restore

    done = restore(settings.state_dir, options.file, options.farm_epoch_above)
    kept = f"; what was there is {done.kept}" if done.kept else ""
    return (
        f"restored {options.file} (farm {done.farm[:8]}, epoch above {done.epoch}){kept}. Start the master: "
        "jobs of the backup wait until no slave can still run what the backup does not know, or until "
        "`drqueue farm resume`."
    )
