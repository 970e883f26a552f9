"""`drqueue kinds`."""

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import KindMistake, asked, common
from drqueue.client.cli.output import Cell, Column, Table


@click.command(short_help="List kinds of job, or one kind's parameters.")
@common
@click.argument("name", metavar="[KIND]", required=False)
def kinds(name: str | None) -> None:
    """List the kinds of job, or the parameters of one: for `drqueue submit --kind KIND --set NAME=VALUE`."""
    from drqueue.client.kinds import KINDS, KindError, find

    options = asked()
    if name is None:
        if options.json:
            output.show_json([kind.described() for kind in KINDS.values()])
            return
        table = Table(Column("KIND"), Column("WHAT IT RENDERS", least=20))
        output.show(table.lines((kind.name, Cell(kind.help, below=True)) for kind in KINDS.values()))
        return
    try:
        kind = find(name)
    except KindError as error:
        raise KindMistake(str(error)) from None
    if options.json:
        output.show_json(kind.described())
        return
    output.show([f"{kind.title}: {kind.help}"])
    for param in kind.params:
        said = [param.wanted() + (f" ({param.unit})" if param.unit else "")]
        said += ["required"] if param.required else []
        said += [f"default {param.default}"] if param.default else []
        output.show(["", f"{output.paint(param.name, 'bold')}: {', '.join(said)}"])
        output.show(output.wrapped(param.help, "    "))
