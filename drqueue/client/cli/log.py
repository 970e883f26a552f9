"""`drqueue log`."""

import codecs
import sys
from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import FRAME, JOB_ID, asked, common

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient


@click.command(short_help="Show a frame's log.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("name", metavar="FRAME", type=FRAME)
@click.option("--follow", "-f", is_flag=True, help="Go on as it is written, until the frame is over.")
@click.option(
    "--attempt", type=click.IntRange(1), metavar="N", help="That attempt's; default: the latest one's."
)
@common
def log(job_id: int, name: tuple[str, int], follow: bool, attempt: int | None) -> None:
    """Show the log of a frame (N or LAYER:N), wherever it lies."""
    layer, number = name
    options = asked()

    async def use(farm: "AsyncClient") -> None:
        if options.json and not follow:
            data = await farm.read_log(job_id, number, layer=layer, attempt=attempt)
            output.show_json(
                {"job": job_id, "layer": layer, "frame": number, "log": data.decode(errors="replace")}
            )
            return
        write = Writer(as_json=options.json)
        if not follow:
            write(await farm.read_log(job_id, number, layer=layer, attempt=attempt))
        else:
            async for data in farm.follow_log(job_id, number, layer=layer, attempt=attempt):
                write(data)
        write(b"", final=True)

    options.talk(use)


class Writer:
    """Log bytes to stdout: as they are into a file or a pipe, without what steers it to a terminal.

    As JSON, every part is a line of its own.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self._json = as_json
        self._raw = not as_json and not sys.stdout.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self, data: bytes, *, final: bool = False) -> None:
        if self._raw:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        text = self._decoder.decode(data, final)
        if self._json:
            if text:
                print(output.json_line({"log": text}), flush=True)
            return
        sys.stdout.write("".join(char if char in "\n\r\t" else output.clean(char) for char in text))
        sys.stdout.flush()
