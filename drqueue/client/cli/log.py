"""`drqueue log`."""

import codecs
import sys
from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import FRAME, JOB_ID, POSITIVE, asked, common, say
from drqueue.client.cli.words import ending

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.views import AttemptView

#: Reasons of attempts whose command was never started.
NEVER_RAN = frozenset({"no-command", "no-cwd", "spawn-failed", "bad-order"})


@click.command(short_help="Show a frame's log.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("name", metavar="FRAME", type=FRAME)
@click.option("--follow", "-f", is_flag=True, help="Go on as it is written, until the frame is over.")
@click.option("--attempt", type=POSITIVE, metavar="N", help="That attempt's; default: the latest one's.")
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
        if follow:
            if attempt is None and not await farm.attempts(job_id, number, layer=layer):
                say(f"frame {number} of job {job_id} has not begun: waiting for it")
            async for data in farm.follow_log(job_id, number, layer=layer, attempt=attempt):
                write(data)
        else:
            await _once(farm, write)
        write(b"", final=True)
        if not write.wrote:
            await _say_why(farm)

    async def _once(farm: "AsyncClient", write: "Writer") -> None:
        from drqueue.client.errors import NotFound, Refused

        try:
            write(await farm.read_log(job_id, number, layer=layer, attempt=attempt))
        except NotFound:
            raise
        except Refused:
            # What never ran left no log anywhere, and nobody can read it out.
            view = await _attempt(farm)
            if view is None or view.reason not in NEVER_RAN:
                raise

    async def _attempt(farm: "AsyncClient") -> "AttemptView | None":
        views = await farm.attempts(job_id, number, layer=layer)
        return next((view for view in reversed(views) if attempt in (None, view.attempt)), None)

    async def _say_why(farm: "AsyncClient") -> None:
        view = await _attempt(farm)
        if view is None:
            return
        what = f"attempt {view.attempt} at frame {number} of job {job_id}"
        if not view.outcome:
            say(f"{what} has printed nothing so far")
        else:
            say(f"{what} printed nothing; it {_ended(view)}")

    options.talk(use)


def _ended(view: "AttemptView") -> str:
    why = ending(view)
    if view.outcome == "done" or not why:
        return f"ended well on {view.slave}" if view.outcome == "done" else f"ended ({view.outcome})"
    return f"{view.outcome} on {view.slave}: {why}"


class Writer:
    """Log bytes to stdout: as they are into a file or a pipe, without what steers it to a terminal.

    As JSON, every part is a line of its own. `wrote` says whether there was anything.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self._json = as_json
        self._raw = not as_json and not sys.stdout.isatty()
        self.wrote = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self, data: bytes, *, final: bool = False) -> None:
        self.wrote = self.wrote or bool(data)
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
