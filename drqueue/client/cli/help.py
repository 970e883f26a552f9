"""`drqueue help`."""

import click

from drqueue.client.cli.common import common, unknown_command


@click.command("help", short_help="Explain drqueue, or one command.")
@click.argument("words", metavar="[COMMAND]", nargs=-1)
@common
def help_(words: tuple[str, ...]) -> None:
    """Explain drqueue, or one command, as `drqueue COMMAND --help` does."""
    from drqueue.client.cli.main import cli

    command: click.Command = cli
    context = click.Context(cli, info_name="drqueue", **cli.context_settings)
    for word in words:
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            known = command.list_commands(context) if isinstance(command, click.Group) else ()
            raise click.UsageError(unknown_command(word, known))
        command = found
        context = click.Context(command, info_name=word, parent=context)
    print(command.get_help(context))
