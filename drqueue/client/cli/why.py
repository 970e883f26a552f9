"""`drqueue why`."""

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import FRAME, JOB_ID, asked, common


@click.command(short_help="Say why a job or a frame does not render.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("name", metavar="[FRAME]", type=FRAME, required=False)
@common
def why(job_id: int, name: tuple[str, int] | None) -> None:
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
    for reason in reasons:
        print(output.clean(reason.text))
