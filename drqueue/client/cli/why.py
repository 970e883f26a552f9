"""`drqueue why`."""

import sys
from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import FRAME, JOB_ID, asked, common

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from drqueue.proto.views import Reason

#: The code of a line that counts slaves by cause; those that follow it, one for each, are its parts.
_SUMMARY = "slaves"


@click.command(short_help="Say why a job or a frame does not render.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("name", metavar="[FRAME]", type=FRAME, required=False)
@click.option("--each", is_flag=True, help="Tell each cause that slaves are counted by, with alternatives.")
@common
def why(job_id: int, name: tuple[str, int] | None, each: bool) -> None:
    """Say why a job, or one frame of it (N or LAYER:N), does not render, most telling reason first."""
    layer, number = name or ("", None)
    options = asked()
    reasons = options.talk(lambda farm: farm.why(job_id, number, layer=layer))
    if options.json:
        output.show_json(reasons)
        return
    what = f"job {job_id}" if number is None else f"frame {number} of job {job_id}"
    if not reasons:
        print(f"{what} does not wait for anything")
    output.show(_lines(reasons, each=each))


def _lines(reasons: "Iterable[Reason]", *, each: bool) -> "Iterator[str]":
    """One line for each reason; on a terminal as many as it takes. `each`: for parts of a summary, too."""
    left = 0
    for reason in reasons:
        indent = "  " if left > 0 else ""
        if indent and not each:
            left -= reason.count
            continue
        left = reason.count if reason.code == _SUMMARY else left - reason.count
        until = f" (until {output.moment(reason.until_at)})" if reason.until_at else ""
        if sys.stdout.isatty():
            first, *rest = output.wrapped(reason.text + until, indent + "  ") or [""]
            yield from (indent + first.lstrip(), *rest)
        else:
            yield indent + output.clean(reason.text) + until
