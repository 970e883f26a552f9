"""cli.md, written from the commands themselves."""

import re
from collections.abc import Iterable, Iterator

import click
from markdown_text import WRITTEN_BY, table

from drqueue.client.cli import main as cli_main

EXIT_STATUSES = (
    (cli_main.OK, "it worked; for `wait` and `submit --wait`: every frame is DONE"),
    (cli_main.FAILED, "it failed; for `wait` and `submit --wait`: some frame is not DONE"),
    (cli_main.USAGE, "wrong usage: an unknown option, a malformed range, a job without a command"),
    (cli_main.NOT_FOUND, "not there, not allowed, not let in (a line, a login, a certificate)"),
    (cli_main.UNREACHABLE, "no master answers"),
    (cli_main.INTERRUPTED, "ended by Ctrl-C"),
)


def cli() -> str:
    """The whole of cli.md."""
    root = cli_main.cli
    parts = [
        f"""{WRITTEN_BY}

# The command line

{_prose(root.help)}

Every command takes these options, before or after its name:

{_options(root, ("version",))}

`drqueue --version` says the version. Answers go to stdout, everything else to stderr. With `--json` the
answer is JSON; its names are the fields of the [views](protocol.md#views). `FRAME` is a frame's number N, or
LAYER:N; `FRAMES` is a [frame range](jobs.md#frame-ranges), or LAYER:RANGE.

Completion of the shell: `eval "$(drqueue completion bash)"`.

## Exit status

{table(("status", "meaning"), ((str(status), meaning) for status, meaning in EXIT_STATUSES))}
"""
    ]
    parts += _commands(root, "drqueue", shown=set(_names(root)))
    return "\n".join(parts)


def _names(command: click.Command) -> list[str]:
    return [parameter.name or "" for parameter in command.params]


def _commands(group: click.Group, path: str, shown: set[str]) -> Iterator[str]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise LookupError(f"{path} {name} is listed, but is no command")
        yield _command(command, f"{path} {name}", shown)
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}", shown)


def _command(command: click.Command, path: str, shown: set[str]) -> str:
    arguments = [p.metavar or (p.name or "").upper() for p in command.params if isinstance(p, click.Argument)]
    if path == "drqueue submit":
        arguments = ["-- COMMAND ..."]
    if isinstance(command, click.Group):
        arguments = [command.subcommand_metavar if command.invoke_without_command else "COMMAND ..."]
    lines = [f"## {path}", "", f"    {' '.join([path, *arguments])}", "", _prose(command.help)]
    options = _options(command, shown)
    if options:
        lines += ["", options]
    return "\n".join([*lines, ""])


def _prose(text: str | None) -> str:
    return re.sub(r"[ \t]*\n[ \t]*", "\n", (text or "").strip())


def _options(command: click.Command, but: Iterable[str] = ()) -> str:
    rows = [
        (f"`{_spelled(option)}`", _described(option))
        for option in command.params
        if isinstance(option, click.Option) and option.name not in but
    ]
    return table(("option", "meaning"), rows) if rows else ""


def _spelled(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    if option.metavar is None and isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}"
    return f"{names} {option.metavar or 'TEXT'}"


def _described(option: click.Option) -> str:
    text = option.help or ""
    if option.show_default and isinstance(option.default, str | int | float) and not option.is_flag:
        text += f" Default: {option.default}."
    return text
