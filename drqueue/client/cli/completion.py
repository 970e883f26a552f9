"""`drqueue completion`."""

import click

from drqueue.client.cli.common import asked, common
from drqueue.client.cli.output import show_json


@click.command(short_help="Print the shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(shell: str) -> None:
    """Print the completion script of a shell, as in: eval "$(drqueue completion bash)"."""
    from click.shell_completion import get_completion_class

    from drqueue.client.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "drqueue", "_DRQUEUE_COMPLETE").source()
    if asked().json:
        show_json({"shell": shell, "script": script})
    else:
        print(script)
