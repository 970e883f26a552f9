"""`drqueue audit`: who did what, and who was not let."""

import sys
from collections.abc import Sequence
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
    """Prints rows as one table, batch by batch."""

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
        output.show(self._table.lines(map(_cells, rows)))
        # Whoever reads a pipe waits for it.
        sys.stdout.flush()


def _cells(row: "AuditView") -> tuple[str | Cell, ...]:
    refused = row.outcome != DONE
    style = "red" if refused else ""
    times = f" x{row.count}" if row.count > 1 else ""
    what = f"{row.what}: {row.text}" if row.text else row.what
    return (
        Cell("!" if refused else "", style),
        output.moment(row.at),
        f"{row.who} ({row.role})" if row.who and row.role else row.who or "-",
        row.peer,
        Cell(f"{row.outcome}{times}", style),
        Cell(what, style, below=True),
    )
