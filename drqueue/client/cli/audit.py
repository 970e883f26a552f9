"""`drqueue audit`: who did what, and who was not let."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import POSITIVE, asked, common, say
from drqueue.client.cli.output import Cell, Column, Table

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.views import AuditView

_LATEST = 50
_BEFORE = 10
DONE = "done"


@click.command(short_help="Show what was done, and what was refused.")
@click.option(
    "-n", "latest", type=POSITIVE, metavar="N", help="The last N rows; default: 50, or 10 to follow."
)
@click.option("--follow", "-f", is_flag=True, help="Go on as rows are written, until Ctrl-C.")
@common
def audit(latest: int | None, follow: bool) -> None:
    """Show what was done and what was refused, oldest first: when, by whom, from where.

    Refused rows have an exclamation mark; `x3` says how often within a minute. With --follow, --json prints a
    line for each row.
    """
    options = asked()

    async def use(farm: "AsyncClient") -> None:
        show = Rows()
        if not follow:
            rows = await farm.audit(latest or _LATEST)
            if options.json:
                output.show_json(rows)
            elif rows:
                show(rows)
            else:
                say("there is nothing in the audit")
            return
        source = farm.follow_audit(_BEFORE if latest is None else latest)
        while rows := await source.together():
            if options.json:
                for row in rows:
                    print(output.json_line(row), flush=True)
            else:
                show(rows)

    options.talk(use)


class Rows:
    """Prints rows batch by batch: in a pipe a line each, on a terminal with what was done below."""

    def __init__(self) -> None:
        self._table = Table(
            Column(""),
            Column("TIME"),
            Column("WHO", least=10),
            Column("FROM", least=9),
            Column("OUTCOME"),
            Column("WHAT", least=12, whole=True),
        )

    def __call__(self, rows: "Sequence[AuditView]") -> None:
        if sys.stdout.isatty():
            output.show(line for row in rows for line in _two_lines(row))
        else:
            output.show(self._table.lines(map(_cells, rows)))
        # Whoever reads a pipe waits for it.
        sys.stdout.flush()


_INDENT = " " * 11


def _two_lines(row: "AuditView") -> Iterator[str]:
    """When, who, from where, and what came of it if it was refused; below that, what it was."""
    refused = row.outcome != DONE
    times = f" x{row.count}" if row.count > 1 else ""
    head = f"{_who(row)} from {row.peer}" if row.peer else _who(row)
    if refused:
        head += f": {row.outcome}{times}"
    width = output.screen_width()
    first = output.cut(f"{'!' if refused else ' '} {output.moment(row.at):8} {output.clean(head)}", width)
    yield output.paint(first, "red" if refused else "")
    for line in output.wrapped(output.clean(_what(row)), _INDENT):
        yield output.paint(line, "red" if refused else "")


def _who(row: "AuditView") -> str:
    return f"{row.who} ({row.role})" if row.who and row.role else row.who or "somebody"


def _what(row: "AuditView") -> str:
    return f"{row.what}: {row.text}" if row.text else row.what


def _cells(row: "AuditView") -> tuple[str | Cell, ...]:
    refused = row.outcome != DONE
    style = "red" if refused else ""
    times = f" x{row.count}" if row.count > 1 else ""
    return (
        Cell("!" if refused else "", style),
        output.moment(row.at),
        _who(row),
        row.peer,
        Cell(f"{row.outcome}{times}", style),
        Cell(_what(row), style, below=True),
    )
