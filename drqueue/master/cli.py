"""`drqueue-master`: flags to settings to a running master."""

import argparse
import sys

import drqueue
from drqueue import log
from drqueue.configuration import load, print_settings
from drqueue.settings import MasterSettings, SettingsError


def main(argv: list[str] | None = None) -> None:
    """Run the command; exits with 0, 1 (cannot run) or 2 (usage).

    `backup` and `restore`, as first word, are commands of their own: see `backup_command`.
    """
    words = sys.argv[1:] if argv is None else argv
    if words[:1] in (["backup"], ["restore"]):
        from drqueue.master import backup_command  # not for a master that runs

        sys.exit(backup_command.main(words[0], words[1:]))
    parser = argparse.ArgumentParser(
        prog="drqueue-master",
        description="The master of a DrQueue render farm: decides which frame runs on which slave.",
        epilog="Also: drqueue-master backup FILE, drqueue-master restore FILE; -h after them says more.",
    )
    parser.add_argument("--state-dir", metavar="DIR", help="folder of the master's own files")
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="settings file: FILE.toml, or FILE.conf of DrQueue 0.x"
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="listen on the network, too, by TLS (0.0.0.0: everywhere)"
    )
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    parser.add_argument(
        "--new-certificate",
        action="store_true",
        help="where tls.key and tls.crt are lost: make new ones, though everybody has to join again",
    )
    parser.add_argument(
        "--print-settings", action="store_true", help="show every setting, its value and its source"
    )
    parser.add_argument("--version", action="version", version=f"drqueue-master {drqueue.__version__}")
    args = parser.parse_args(argv)
    try:
        loaded = load(
            MasterSettings,
            config=args.config,
            flags={"state_dir": args.state_dir, "listen": args.listen, "log_level": args.log_level},
            search=True,
        )
    except SettingsError as error:
        print(f"drqueue-master: {error}", file=sys.stderr)
        sys.exit(2)
    for note in loaded.notes:
        print(f"drqueue-master: {note}", file=sys.stderr)
    if args.print_settings:
        print_settings(loaded)
        return
    log.setup(loaded.settings.log_level)
    sys.exit(_run(loaded.settings, args.new_certificate))


def _run(settings: MasterSettings, new_certificate: bool) -> int:
    # Late, so that --help and --print-settings need neither trio nor sqlite3.
    from drqueue.access import AccessError
    from drqueue.master.daemon import run
    from drqueue.master.storage import StorageError
    from drqueue.statefile import StateError

    try:
        run(settings, new_certificate=new_certificate)
    except SettingsError as error:
        print(f"drqueue-master: {error}", file=sys.stderr)
        return 2
    except (StateError, StorageError, AccessError, OSError) as error:
        print(f"drqueue-master: {error}", file=sys.stderr)
        return 1
    except BaseExceptionGroup as group:
        fatal, rest = group.split((StateError, StorageError, AccessError))
        if fatal is None or rest is not None:
            raise
        print(f"drqueue-master: {_first(fatal)}", file=sys.stderr)
        return 1
    return 0


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
