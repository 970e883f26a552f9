"""`drqueue classic`: the original's tools, and launchers for them under their bare names."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from drqueue.client.cli.common import Asked, asked, common, say

_INSTALL = "install"


@click.command(
    short_help="Run one of the original's tools: sendjob, cjob, jobinfo ...",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("words", metavar="[TOOL ...]", nargs=-1, type=click.UNPROCESSED)
@common
def classic(words: tuple[str, ...]) -> int:
    """Run one of the original's command line tools, with its own flags; `drqueue classic TOOL -h` explains
    them. Without a TOOL: list them.

    `drqueue classic install DIR` writes launchers for all of them, under their bare names, into a folder.
    """
    from drqueue.client.classic import TOOLS, run
    from drqueue.client.cli.common import unknown_command

    if not words:
        return _list()
    tool, *arguments = words
    if tool == _INSTALL:
        return _install(arguments)
    if tool not in TOOLS:
        raise click.UsageError(unknown_command(tool, [*TOOLS, _INSTALL]), click.get_current_context())
    options = asked()
    if options.json:
        raise click.UsageError(
            "the original's tools have no --json: see `drqueue jobs`", click.get_current_context()
        )
    with _master_named(options):
        return run(tool, arguments)


def _list() -> int:
    from drqueue.client.classic import TOOLS
    from drqueue.client.cli import output

    if asked().json:
        output.show_json(TOOLS)
        return 0
    width = max(map(len, TOOLS)) + 2
    for tool, summary in TOOLS.items():
        print(f"{tool:{width}}{summary}")
    return 0


def _install(arguments: list[str]) -> int:
    context = click.get_current_context()
    if len(arguments) != 1 or arguments[0].startswith("-") or not arguments[0]:
        raise click.UsageError("install takes one folder", context)

    import shlex

    from drqueue.client.classic.launchers import NotOurs, install
    from drqueue.client.cli import output

    folder = os.path.abspath(arguments[0])
    try:
        paths = install(folder)
    except NotOurs as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder}: {error.strerror}") from None
    if asked().json:
        output.show_json({"folder": folder, "launchers": paths})
        return 0
    say(f"{len(paths)} launchers are in {folder}; this line puts them on the PATH:")
    print(f'export PATH={shlex.quote(folder)}:"$PATH"', file=sys.stdout)
    return 0


@contextmanager
def _master_named(options: Asked) -> Iterator[None]:
    """DRQUEUE_MASTER says what --master and --state-dir say: the binding looks nowhere else."""
    address = options.address()
    if address is None:
        yield
        return
    before = os.environ.get("DRQUEUE_MASTER")
    os.environ["DRQUEUE_MASTER"] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ["DRQUEUE_MASTER"]
        else:
            os.environ["DRQUEUE_MASTER"] = before
