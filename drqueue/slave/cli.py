"""The command `drqueue-slave`: reads settings, checks them, runs the daemon in the foreground."""

import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drqueue import __version__
from drqueue.configuration import load, print_settings
from drqueue.settings import Address, SettingsError, SlaveSettings, candidates
from drqueue.statefile import StateError

if TYPE_CHECKING:
    import argparse

OK, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a slave until it is stopped; the exit status: 0, 1 for a failure, 2 for wrong usage.

    `join`, as first word, is a command of its own: see `drqueue.slave.join_command`.
    """
    argv = sys.argv[1:] if argv is None else argv
    if list(argv[:1]) == ["join"]:
        from drqueue.slave import join_command  # not for slaves that only run

        return join_command.main(argv[1:], _serve_joined)
    options = _parser().parse_args(argv)
    flags = {
        "name": options.name,
        "state_dir": options.state_dir,
        "cores": options.cores,
        "memory_mb": options.memory,
        "gpus": options.gpus,
        "disk_mb": options.disk,
        "amounts": _joined(options.amounts),
        "tags": _joined(options.tags),
        "attributes": _joined(options.attributes),
        "master": options.master,
    }
    try:
        loaded = load(SlaveSettings, config=options.config, flags=flags, search=True)
        settings = loaded.settings
        addresses = candidates(settings.master, os.environ)
    except SettingsError as error:
        return _complain(str(error), USAGE)
    for note in loaded.notes:
        print(f"drqueue-slave: {note}", file=sys.stderr)
    if options.print_settings:
        print_settings(loaded)
        return OK
    named = loaded.sources["name"] != "default"
    return _serve(settings, addresses, named, options.kill_frames_on_exit)


def _serve_joined(settings: SlaveSettings, named: bool) -> int:
    return _serve(settings, candidates(settings.master, os.environ), named, False)


def _serve(settings: SlaveSettings, addresses: list[Address], named: bool, kill_frames: bool) -> int:
    _forget_parser()
    # Late, so that wrong usage is told without loading trio.
    import trio

    from drqueue import log
    from drqueue.slave.daemon import Daemon
    from drqueue.slave.daemon import main as run

    log.setup(settings.log_level)
    try:
        daemon = Daemon(settings, addresses, named=named, kill_frames_on_exit=kill_frames)
    except SettingsError as error:
        return _complain(str(error), USAGE)
    except StateError as error:
        return _complain(str(error), FAILED)
    except OSError as error:
        return _complain(f"cannot start in {settings.state_dir}: {error.strerror or error}", FAILED)
    trio.run(run, daemon)
    return OK


def _forget_parser() -> None:
    """Give back what only the command line needed: a slave lives long, and its memory is the frames'."""
    for name in ("argparse", "gettext"):
        sys.modules.pop(name, None)
    gc.collect()


def _parser() -> "argparse.ArgumentParser":
    import argparse  # see `_forget_parser`

    parser = argparse.ArgumentParser(
        prog="drqueue-slave",
        description="Runs frames on this machine for a DrQueue master.",
        epilog="For a master on another machine: `drqueue-slave join LINE`, see `drqueue-slave join -h`.",
        allow_abbrev=False,
    )
    parser.add_argument("--name", metavar="N", help="name on the farm (default: the host's)")
    parser.add_argument("--state-dir", metavar="D", help="folder of its identity, spool and logs")
    parser.add_argument(
        "-c", "--config", metavar="F", help="file with settings: F.toml, or F.conf of DrQueue 0.x"
    )
    parser.add_argument("--cores", metavar="N", help="cores to offer (default: as measured)")
    parser.add_argument("--memory", metavar="MB", help="memory to offer (default: as measured)")
    parser.add_argument("--gpus", metavar="LIST", help="GPUs to offer: all (default), none, or like 0,2")
    parser.add_argument(
        "--disk", metavar="MB", help="room for scratch files to offer (default: what is free)"
    )
    for option, metavar, what in (
        ("--amounts", "NAME=N,...", "further amounts to offer; may be given again"),
        ("--tags", "TAG,...", "tags that it has; may be given again"),
        ("--attributes", "NAME=TEXT,...", "attributes that it has; may be given again"),
    ):
        parser.add_argument(option, metavar=metavar, action="append", help=what)
    parser.add_argument("--master", metavar="ADDR", help="its master: HOST[:PORT], unix:PATH, or localhost")
    parser.add_argument(
        "--print-settings", action="store_true", help="show all settings and where each is from"
    )
    parser.add_argument(
        "--kill-frames-on-exit", action="store_true", help="end its frames with the daemon; else they go on"
    )
    parser.add_argument("--version", action="version", version=f"drqueue {__version__}")
    return parser


def _joined(parts: list[str] | None) -> str | None:
    return None if parts is None else ",".join(parts)


def _complain(text: str, status: int) -> int:
    print(f"drqueue-slave: {text}", file=sys.stderr)
    return status
