"""The command `drqueue-slave join`: by a line of the farm's, or by asking; `--run` goes on as the slave.

Rules: what it writes belongs to whom the state directory belongs to, also where root asks: it becomes that
user first. Ctrl-C loses nothing: the same command goes on where it stopped, and so does a slave that runs.
With `--run` a line that this slave came by is not used again: a service or a container starts by the same
command each time. What a master says reaches the terminal without what could steer it.
"""

import argparse
import os
import pwd
import re
import signal
import sys
from collections.abc import Callable, Sequence

from msgspec import structs

from drqueue import __version__, ownargs
from drqueue.access import Access, AccessError, came_by, read_access, same_place
from drqueue.address import Address, SettingsError, parse_address
from drqueue.configuration import Loaded, load
from drqueue.log import render
from drqueue.pasted import read_line
from drqueue.proto.lines import Line, LineError, parse_line
from drqueue.settings import SlaveSettings, candidates
from drqueue.statefile import StateError, lock_state_dir

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
#: State directory of the service, which root means where nothing else is said.
SERVICE_DIR = "/var/lib/drqueue-slave"


def main(argv: Sequence[str], serve: Callable[[SlaveSettings, bool], int]) -> int:
    """Join a farm; the exit status: 0, 1 failed, 2 wrong usage, 3 refused, 69 no master, 130 interrupted.

    `serve` runs a slave; True with its settings: they name it, else its account does.
    """
    options = _parser().parse_args(argv)
    # With --run it would stand in `ps` as long as the slave runs, for its frames to read.
    for word in options.line:
        ownargs.hide(word)
    try:
        # A line that was broken over two rows comes as two words.
        target = _target(read_line() if options.line == ["-"] else " ".join(options.line))
        loaded = load(
            SlaveSettings,
            config=options.config,
            flags={"name": options.name, "state_dir": options.state_dir},
            search=True,
        )
    except (LineError, SettingsError) as error:
        return _complain(str(error), USAGE)
    except (EOFError, KeyboardInterrupt):
        return INTERRUPTED  # at the question for the line
    settings = _for_service(loaded)
    named = loaded.sources["name"] != "default"
    try:
        _become_owner(settings.state_dir)
        _prepare(settings.state_dir)
        # Before the line is used up: two slaves in one folder cannot be.
        if options.run and _runs(settings.state_dir):
            return _complain("a slave runs here: join without --run, it notices by itself", FAILED)
        if options.run and _came_by(settings, target):
            return serve(settings, named)
        status = _join(settings, target)
    except StateError as error:
        return _complain(str(error), FAILED)
    except OSError as error:
        return _complain(f"cannot use {settings.state_dir}: {error.strerror or error}", FAILED)
    if status != OK or not options.run:
        return status
    return serve(settings, named)


def _target(text: str) -> Line | Address:
    """What was pasted. Raises LineError, SettingsError."""
    text = text.strip()
    if text.startswith("drqueue1:"):
        return parse_line(text, "node")
    try:
        address = parse_address(text)
    except SettingsError:
        raise SettingsError("this is neither a line of a farm nor a master's HOST[:PORT]") from None
    if address.kind != "tcp":
        raise SettingsError("a master on this machine needs no joining: run drqueue-slave as the same user")
    return address


def _for_service(loaded: Loaded[SlaveSettings]) -> SlaveSettings:
    """Root means the service, where there is one, and no other folder was named."""
    settings = loaded.settings
    if os.geteuid() == 0 and loaded.sources["state_dir"] == "default" and os.path.isdir(SERVICE_DIR):
        return structs.replace(settings, state_dir=SERVICE_DIR)
    return settings


def _become_owner(state_dir: str) -> None:
    """Go on as the user to whom a state directory belongs; raises OSError."""
    if os.geteuid() != 0:
        return
    try:
        info = os.stat(state_dir)
    except FileNotFoundError:
        return
    if info.st_uid == 0:
        return
    try:
        user = pwd.getpwuid(info.st_uid)
        groups, group = os.getgrouplist(user.pw_name, user.pw_gid), user.pw_gid
    except KeyError:
        groups, group = [info.st_gid], info.st_gid
    # Before: an interpreter in root's own folders cannot be read by others.
    import encodings.idna  # noqa: F401

    from drqueue import dialling  # noqa: F401
    from drqueue.slave import identity, joining  # noqa: F401

    os.setgroups(groups)
    os.setgid(group)
    os.setuid(info.st_uid)


def _prepare(state_dir: str) -> None:
    """Make a state directory fit for secrets, unless a slave did that before. Raises StateError."""
    if not os.path.lexists(os.path.join(state_dir, "lock")):
        os.close(lock_state_dir(state_dir, "slave"))


def _runs(state_dir: str) -> bool:
    """Whether a slave runs in a state directory; raises StateError."""
    try:
        os.close(lock_state_dir(state_dir, "slave"))
    except StateError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return True
        raise
    return False


def _came_by(settings: SlaveSettings, target: Line | Address) -> bool:
    """Whether this slave got its way in by this very line; raises StateError."""
    from drqueue.slave.credentials import access_file
    from drqueue.slave.identity import for_joining

    if not isinstance(target, Line):
        return False
    # First: on a cloned disk it is another machine's way, and is set aside.
    for_joining(settings.state_dir, settings.name)
    try:
        ways = read_access(access_file(settings.state_dir))
    except AccessError:
        return False  # joining again replaces it
    return came_by(ways, target.pin, target.token) is not None


def _join(settings: SlaveSettings, target: Line | Address) -> int:
    # Late, so that wrong usage is told without loading trio.
    import trio

    from drqueue.slave.identity import for_joining
    from drqueue.slave.joining import Introduction, JoinFailed, join

    identity = for_joining(settings.state_dir, settings.name)
    who = Introduction(identity.id, identity.fingerprint, settings.name, f"drqueue {__version__}")
    outcome: Access | JoinFailed | None = None

    async def asking() -> None:
        nonlocal outcome
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def interrupted() -> None:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(interrupted)
                try:
                    outcome = await join(settings.state_dir, target, who, _say)
                except JoinFailed as error:
                    outcome = error
                nursery.cancel_scope.cancel()

    trio.run(asking)
    if outcome is None:
        return _complain("not joined yet: the same command goes on where this one stopped", INTERRUPTED)
    if isinstance(outcome, JoinFailed):
        return _complain(str(outcome), outcome.status)
    joined = f"joined {outcome.address} as {outcome.role} {outcome.name} (in {settings.state_dir})"
    print(render(joined, {}), flush=True)
    if re.fullmatch(re.escape(settings.name) + "-[0-9]+", outcome.name):
        _say(f"the name {settings.name} was taken: this is {outcome.name}")
    dialled = candidates(settings.master, os.environ)
    if settings.master and not any(same_place(outcome.address, each) for each in dialled):
        _say(f"its settings name another master, {settings.master!r}: it dials that one alone")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drqueue-slave join",
        description="Joins a farm. The slave finds its master from then on, whether it runs already or not.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "line",
        metavar="LINE|HOST[:PORT]",
        nargs="+",
        help="what `drqueue node add` printed (-: read it from stdin), or a master that is asked to approve",
    )
    parser.add_argument("--state-dir", metavar="D", help="folder of the slave's identity, spool and logs")
    parser.add_argument("--name", metavar="N", help="name on the farm (default: the host's)")
    parser.add_argument("-c", "--config", metavar="F", help="file with the slave's settings")
    parser.add_argument("--run", action="store_true", help="go on as the slave, in the foreground")
    return parser


def _say(text: str) -> None:
    lines = [render(line, {}) for line in text.split("\n")]
    print("drqueue-slave: " + "\n".join(lines), file=sys.stderr, flush=True)


def _complain(text: str, status: int) -> int:
    _say(text)
    return status
