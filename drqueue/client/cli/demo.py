"""`drqueue demo`: an animation, a farm that is started for it, and what came out."""

import re
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import Whole, asked, common, say
from drqueue.client.cli.output import Column, Table
from drqueue.client.cli.signals import ended_by_signals
from drqueue.client.demo.scenes import RENDERERS
from drqueue.client.errors import DrQueueError

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient
    from drqueue.client.demo.scenes import DemoScene
    from drqueue.proto.views import FrameView

SLAVES = 2
SHEET = "contact-sheet.png"


class DemoFailed(DrQueueError):  # noqa: N818  (reads as what it says)
    """The animation was not rendered; the text says why."""


class _Size(click.ParamType[tuple[int, int]]):
    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", str(value))
        if match is None:
            self.fail(f"{value!r} is no size: it is written WIDTHxHEIGHT", param, ctx)
        return int(match[1]), int(match[2])


@click.command(short_help="Render an animation on a farm started for it.")
@click.option(
    "--renderer", type=click.Choice(RENDERERS), default="tracer", show_default=True, help="What renders it."
)
@click.option(
    "--frames",
    type=Whole(1, 9999),
    default=24,
    show_default=True,
    metavar="N",
    help="Frames of the animation.",
)
@click.option(
    "--size", type=_Size(), default="256x144", show_default=True, metavar="WxH", help="Pixels of a frame."
)
@click.option(
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    metavar="DIR",
    help="Where frames and contact sheet go.",
)
@common
def demo(renderer: str, frames: int, size: tuple[int, int], folder: Path) -> int:
    """Render an animation on a master and two slaves that are started for it and ended after it.

    The frames and a contact sheet are left in DIR; what an earlier demo left there is replaced.
    """
    import trio

    from drqueue.client.demo.scenes import SceneError

    options = asked()
    state_dir = tempfile.mkdtemp(prefix="drqueue-demo-")
    try:
        return trio.run(_run, renderer, frames, size, folder, state_dir, options.json)
    except SceneError as error:
        raise DemoFailed(str(error)) from None
    except OSError as error:
        raise DemoFailed(f"the demo cannot use {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(state_dir, ignore_errors=True)


async def _run(
    renderer: str, frames: int, size: tuple[int, int], folder: Path, state_dir: str, as_json: bool
) -> int:
    import trio

    from drqueue.client.demo.scenes import prepare
    from drqueue.client.farm import local_farm

    result: dict[str, Any] = {}
    async with ended_by_signals("ending the demo ...") as ending:
        _clear(folder)
        scene = await trio.to_thread.run_sync(prepare, renderer, size, frames, folder, abandon_on_cancel=True)
        async with local_farm(state_dir, slaves=SLAVES) as (farm, client):
            await farm.ready(client)
            result = await _render(client, scene)
        say("drawing the contact sheet ...")
        result["contact_sheet"] = str(await trio.to_thread.run_sync(_draw_sheet, scene))
    if ending.by is not None:
        return 128 + ending.by if ending.by != signal.SIGINT else 130
    if as_json:
        output.show_json(result)
    else:
        _show(result)
    return 0


async def _render(client: "AsyncClient", scene: "DemoScene") -> dict[str, Any]:
    """Have the scene rendered; what there is to say about it. DemoFailed where a frame failed."""
    from drqueue.client.cli.wait import progress
    from drqueue.client.specs import login_name
    from drqueue.client.waiting import all_done
    from drqueue.proto.model import JobSpec, LayerSpec, Needs
    from drqueue.proto.placeholders import escaped

    layer = LayerSpec(
        name="render",
        argv=scene.argv,
        frames=scene.frames,
        chunk=scene.chunk,
        cwd=escaped(str(scene.cwd)),
        env=dict(scene.env),
        outputs=(scene.output,),
        needs=Needs(cores=scene.cores),
        retries=1,
    )
    began = time.monotonic()
    job = await client.submit(JobSpec(name=scene.name, owner=login_name(), layers=(layer,)))
    with progress() as show:
        (view,) = await client.wait([job], show)
    wall_s = time.monotonic() - began
    views = await client.frames(job)
    if not all_done(view):
        raise DemoFailed(await _what_failed(client, views))
    return {
        "renderer": scene.name,
        "output": str(scene.cwd),
        "frames": sum(view.count for view in views),
        "seconds": round(wall_s, 3),
        "slaves": _shares(views),
    }


async def _what_failed(client: "AsyncClient", views: "tuple[FrameView, ...]") -> str:
    bad = [view for view in views if view.state != "DONE"]
    first = bad[0]
    log = (await client.read_log(first.job, first.number)).decode(errors="replace").splitlines()
    said = f"; the last line of its log: {log[-1]}" if log else ""
    why = first.text or first.reason or f"exit status {first.code}"
    return f"{len(bad)} of {len(views)} attempts failed, first frame {first.number} ({why}){said}"


def _shares(views: "tuple[FrameView, ...]") -> list[dict[str, Any]]:
    shares: dict[str, list[FrameView]] = defaultdict(list)
    for view in views:
        shares[view.slave].append(view)
    return [
        {
            "slave": name,
            "frames": sum(view.count for view in done),
            "busy_s": round(sum(view.ended_at - view.started_at for view in done), 3),
            "cpu_s": round(sum(view.cpu_s for view in done), 3),
        }
        for name, done in sorted(shares.items())
    ]


def _clear(folder: Path) -> None:
    """Remove what an earlier demo left; a folder that holds no contact sheet is none of ours."""
    sheet = folder / SHEET
    if sheet.is_file():
        for picture in folder.glob("frame_*.png"):
            if re.fullmatch(r"frame_[0-9]{4}\.png", picture.name):
                picture.unlink()
        sheet.unlink()


def _draw_sheet(scene: "DemoScene") -> Path:
    from drqueue.client.demo.contact import contact_sheet

    sheet = scene.cwd / SHEET
    try:
        contact_sheet(scene.pictures(), sheet)
    except ValueError as error:
        raise DemoFailed(f"a picture is damaged: {error}") from error
    return sheet


def _show(result: dict[str, Any]) -> None:
    frames, seconds = result["frames"], result["seconds"]
    output.show(
        output.fields(
            (
                ("output", result["output"]),
                ("contact sheet", result["contact_sheet"]),
                ("frames", f"{frames}, all valid"),
                ("wall time", f"{output.duration(seconds)} ({frames / max(seconds, 1e-9):.1f} frames/s)"),
            )
        )
    )
    print()
    table = Table(
        Column("SLAVE", least=8),
        Column("FRAMES", right=True),
        Column("SHARE", right=True),
        Column("RENDERING", right=True),
        Column("CPU", right=True),
    )
    output.show(
        table.lines(
            (
                share["slave"],
                str(share["frames"]),
                output.percent(share["frames"] / frames),
                output.duration(share["busy_s"]),
                output.duration(share["cpu_s"]),
            )
            for share in result["slaves"]
        )
    )
