"""`drqueue pool`: pools, who comes first in them, and how long frames wait there."""

from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import Commands, asked, common, say
from drqueue.client.cli.output import Cell, Column, Table
from drqueue.client.cli.words import amount_text, told

if TYPE_CHECKING:
    from drqueue.proto.model import PoolPolicy
    from drqueue.proto.views import PoolView


@click.group(cls=Commands, short_help="List pools and how long frames wait, or set a policy.")
def pool() -> None:
    """List pools and how long frames wait there, or say who comes first in one.

    Slaves say themselves which pools they work for (`drqueue slave set NAME --pools A,B`).
    """


@pool.command("list", short_help="List pools.")
@common
def list_() -> None:
    """List pools with their slaves and frames, and how long frames of late waited for a place.

    50%, 90% and 99% of them waited no longer than the three times shown.
    """
    options = asked()
    found = options.talk(lambda farm: farm.pools())
    if options.json:
        output.show_json(found)
        return
    if not found:
        say("no pools: there is no slave and no job")
        return
    table = Table(
        Column("NAME", least=8),
        Column("POLICY"),
        Column("SLAVES", right=True),
        Column("CORES", right=True),
        Column("JOBS", right=True),
        Column("RUN", right=True),
        Column("WAIT", right=True),
        Column("50%", right=True),
        Column("90%", right=True),
        Column("99%", right=True),
    )
    output.show(table.lines([_row(view) for view in found]))


def _row(view: "PoolView") -> list[str | Cell]:
    waits = view.waits
    times = (waits.p50_s, waits.p90_s, waits.p99_s)
    return [
        view.name,
        view.policy,
        Cell(str(view.slaves), "red" if view.waiting and not view.slaves else ""),
        f"{amount_text(view.cores_used)}/{amount_text(view.cores)}",
        str(view.jobs),
        str(view.running),
        str(view.waiting),
        *(output.duration(seconds) if waits.count else "-" for seconds in times),
    ]


@pool.command("set", short_help="Say who comes first in a pool.")
@click.argument("name")
@click.option(
    "--policy",
    type=click.Choice(["fair", "fifo"]),
    required=True,
    help="fair: by shares; fifo: the oldest job.",
)
@common
def set_(name: str, policy: "PoolPolicy") -> None:
    """Say who comes first among jobs of one priority in a pool: by shares (fair) or by age (fifo)."""
    did = asked().talk(lambda farm: farm.set_pool(name, policy))
    told(did, f"pool {name} is {policy} now", name=name, policy=policy)
