"""`drqueue login`, `logout` and `whoami`."""

import os
from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import asked, common, say

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.messages import You


@click.command(short_help="Log in to a farm with the line that an admin gave you.")
@click.argument("words", metavar="[LINE]", nargs=-1)
@common
def login(words: tuple[str, ...]) -> None:
    """Log in to a farm with the LINE that `drqueue user add` printed.

    Without a LINE, or with -, it is asked for, or read from stdin: then it stands in no shell's history.
    Should the link break, use the same line again.
    """
    from drqueue import ownargs

    for word in words:
        ownargs.hide(word)
    import trio

    from drqueue.client.entrance import master_here
    from drqueue.client.login import log_in
    from drqueue.pasted import read_line
    from drqueue.proto.lines import BEGINNING, LineError

    # A line that was broken over two rows comes as two words.
    text = read_line() if words in ((), ("-",)) else "".join(words)
    try:
        way = trio.run(log_in, text, os.environ)
    except LineError as error:
        why = str(error)
        if text and not text.startswith(BEGINNING):
            why = "this is no line of a farm; ask an admin for a line: drqueue user add NAME"
        raise click.UsageError(why, click.get_current_context()) from None
    if asked().json:
        output.show_json(
            {"master": str(way.address), "name": way.name, "role": way.role, "account": way.account}
        )
    else:
        print(output.clean(f"logged in to {way.address} as {way.name} ({way.role})"))
    env = asked().env()
    here = None if env.get("DRQUEUE_MASTER") else trio.run(master_here, env)
    if here is not None:
        say(
            f"commands here go to the master at {here} while it runs;"
            f" this farm is --master {way.address}, and drqueue whoami says which one answers"
        )


@click.command(short_help="Forget the login for a farm.")
@click.argument("address", metavar="[HOST[:PORT]]", required=False)
@common
def logout(address: str | None) -> None:
    """Forget the login for a farm, by default the only one there is.

    The account stays: an admin takes it away with `drqueue user revoke`.
    """
    from drqueue.client.login import log_out
    from drqueue.settings import parse_address

    named = address or asked().master
    place = parse_address(named) if named else None
    way = log_out(place, os.environ)
    if asked().json:
        output.show_json({"master": str(way.address), "name": way.name})
    else:
        say(f"logged out of {way.address}, where you were {way.name}")


@click.command(short_help="Say who the master takes you for.")
@common
def whoami() -> None:
    """Say who the master takes you for, and what you may do there."""
    options = asked()

    async def use(farm: "AsyncClient") -> "tuple[You, str]":
        you = await farm.whoami()
        return you, str((await farm.linked(0)).address)

    you, master = options.talk(use)
    if options.json:
        output.show_json({**output.plain(you), "master": master})
        return
    output.show(
        output.fields(
            (
                ("name", you.name),
                ("role", you.role),
                ("may", MAY.get(you.role, "")),
                ("account", you.account),
                ("from", you.peer),
                ("master", master),
            )
        )
    )


#: What a role may do, in a few words; each may do what the former may.
MAY = {
    "viewer": "look at jobs, frames and slaves",
    "artist": "submit jobs, and change what you submitted",
    "supervisor": "do anything to jobs and slaves",
    "admin": "do anything",
}
