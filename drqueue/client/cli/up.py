"""`drqueue up`: a farm on this machine, in the foreground."""

import os
import shlex

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import POSITIVE, Whole, asked, common, say
from drqueue.client.cli.signals import ended_by_signals


@click.command(short_help="Run a farm on this machine, in the foreground.")
@click.option(
    "--slaves",
    type=Whole(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="How many slaves.",
)
@click.option(
    "--cores",
    type=POSITIVE,
    metavar="N",
    help="Cores that each slave offers; default: this machine's, divided among them.",
)
@common
def up(slaves: int, cores: int | None) -> int:
    """Run a master and N slaves until Ctrl-C or TERM, which end their frames, too.

    Says "farm is up" on stdout once every slave can take frames.
    """
    import trio

    from drqueue.settings import default_state_dir

    options = asked()
    if options.master is not None:
        raise click.UsageError("`up` starts a master of its own: --master has no place here")
    state_dir = default_state_dir(options.env())
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"cannot make the folder {state_dir}: {error.strerror}") from None
    trio.run(_run, state_dir, slaves, cores, options.json, default_state_dir(os.environ))
    return 0


async def _run(state_dir: str, slaves: int, cores: int | None, as_json: bool, usual_dir: str) -> None:
    import trio

    from drqueue.client.farm import local_farm

    async with (
        ended_by_signals("ending the farm and its frames ..."),
        local_farm(state_dir, slaves=slaves, cores=cores) as (farm, client),
    ):
        views = await farm.ready(client)
        if as_json:
            print(output.json_line({"state_dir": state_dir, "master": farm.address, "slaves": views}))
        print("farm is up", flush=True)
        say(f"state and logs: {state_dir}")
        if state_dir != usual_dir:
            say(f"to talk to it: export DRQUEUE_STATE_DIR={shlex.quote(state_dir)}")
        else:
            say("to talk to it: drqueue slaves, drqueue submit -- COMMAND ...")
            if (elsewhere := _login()) and not os.environ.get("DRQUEUE_MASTER"):
                say(
                    "commands here go to this farm while it runs;"
                    f" the farm at {elsewhere} is --master {elsewhere}"
                )
        await trio.sleep_forever()


def _login() -> str:
    """Where the newest login leads, which this farm goes before; "" where there is none."""
    from drqueue.access import AccessError, access_path, read_access

    try:
        ways = read_access(access_path(os.environ))
    except AccessError:
        return ""
    return str(ways[0].address) if ways else ""
