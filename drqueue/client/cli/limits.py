"""`drqueue limit`: counters of what runs, for licences, quotas and the like."""

from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import AMOUNT, Commands, asked, common, say
from drqueue.client.cli.output import Cell, Column, Table
from drqueue.client.cli.words import amount_text, many, told

if TYPE_CHECKING:
    from drqueue.proto.model import LimitScope
    from drqueue.proto.views import LimitView

SCOPES = ("attempts", "cores", "slaves")


@click.group(cls=Commands, short_help="List, set and drop limits: licences, quotas.")
def limit() -> None:
    """List, set and drop limits: how many attempts, cores or slaves there are at a time for what jobs name.

    A job names what it takes (`submit --limit nuke`). `user:NAME`, `project:NAME` and `pool:NAME` count by
    themselves; `user:*`, `project:*` and `pool:*` hold for each one that has none of its own.
    """


@limit.command("list", short_help="List limits.")
@common
def list_() -> None:
    """List limits with how much of them is in use, and how many jobs wait that ask for them."""
    options = asked()
    found = options.talk(lambda farm: farm.limits())
    if options.json:
        output.show_json(found)
        return
    if not found:
        say("no limits; set one: drqueue limit set NAME AMOUNT")
        return
    table = Table(
        Column("NAME", least=8),
        Column("IN USE", right=True),
        Column("LIMIT", right=True),
        Column("COUNTS"),
        Column("JOBS WAITING", right=True),
        Column("HELD BY", least=7),
    )
    output.show(table.lines([_row(view) for view in found]))
    unset = [view.name for view in found if view.amount is None]
    if unset:
        say(f"jobs that name {' or '.join(unset[:3])} wait; set it: drqueue limit set {unset[0]} AMOUNT")


def _row(view: "LimitView") -> list[str | Cell]:
    full = view.amount is not None and view.used >= view.amount
    everybody = view.name.endswith(":*")
    return [
        view.name,
        "" if everybody else Cell(amount_text(view.used), "yellow" if full and view.waiting_jobs else ""),
        Cell("never set", "red") if view.amount is None else amount_text(view.amount),
        "" if view.amount is None else view.scope,
        "" if everybody else str(view.waiting_jobs),
        " ".join(view.held_by),
    ]


@limit.command("show", short_help="Show one limit.")
@click.argument("name")
@common
def show(name: str) -> None:
    """Show one limit; of one that counts slaves, the machines that hold its seats, too."""
    from drqueue.client.errors import NoSuchLimit

    options = asked()
    found = {view.name: view for view in options.talk(lambda farm: farm.limits())}
    view = found.get(name)
    if view is None:
        import difflib

        near = difflib.get_close_matches(name, found, n=3)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise NoSuchLimit("no-such-limit", f"no limit {name!r} was set{hint}")
    if options.json:
        output.show_json(view)
        return
    output.show(
        output.fields(
            (
                ("limit", view.name),
                ("amount", Cell("never set", "red") if view.amount is None else amount_text(view.amount)),
                ("counts", view.scope),
                ("in use", "" if name.endswith(":*") else amount_text(view.used)),
                ("waiting", many(view.waiting_jobs, "job") if view.waiting_jobs else ""),
                ("held by", Cell(", ".join(view.held_by), below=True)),
            )
        )
    )


@limit.command(
    "set", short_help="Set a limit, or change one.", context_settings={"ignore_unknown_options": True}
)
@click.argument("name")
@click.argument("amount", type=AMOUNT, required=False)
@click.option("--scope", type=click.Choice(SCOPES), help="What counts; default: attempts.")
@common
def set_(name: str, amount: float | None, scope: "LimitScope | None") -> None:
    """Set a limit, or change one: what is left out stays. What runs goes on, also above it; 0 closes it.

    A limit of `slaves` counts machines: one seat for all that runs on one. `drqueue limit set 'user:*' 100
    --scope cores` gives everybody 100 cores at most.
    """
    if amount is None and scope is None:
        raise click.UsageError("say how much of it there is: drqueue limit set NAME AMOUNT")
    did = asked().talk(lambda farm: farm.set_limit(name, amount, scope))
    if amount is None:
        what = f"counts {scope}"
    else:
        what = f"is {amount_text(amount) if scope is None else many(amount, scope.removesuffix('s'))}"
    told(did, f"limit {name} {what} now", name=name)


@limit.command("drop", short_help="Forget a limit.")
@click.argument("name")
@common
def drop(name: str) -> None:
    """Forget a limit. Frames of jobs that name it wait then until it is set again."""
    told(asked().talk(lambda farm: farm.drop_limit(name)), f"limit {name} is dropped", name=name)
