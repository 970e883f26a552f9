"""`drqueue job --tree`: what a job and its layers wait for, how far that is, and who waits for it in turn.

The same structure is printed for people and, with --json, for programs, whose names are stable.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drqueue.client.cli import output
from drqueue.client.cli.jobtext import counts_text

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.model import Depend, LayerDepend
    from drqueue.proto.views import Counts, JobView, LayerView

    Known = dict[int, tuple[JobView, tuple[LayerView, ...]] | None]

#: Jobs that are looked at; further ones stand in the tree by their numbers.
MOST = 100
#: Columns of a job's name; those of a line that are never cut, however deep it stands.
_NAME = 24
_LEAST = 20


async def gather(farm: "AsyncClient", job_id: int) -> "Known":
    """A job, those that it depends on and those that depend on it, and so on; None: it is gone."""
    from drqueue.client.errors import NoSuchJob

    known: Known = {job_id: await farm.job(job_id)}
    for links in (_above, _below):
        todo = [job_id]
        seen = {job_id}
        while todo:
            found = known.get(todo.pop(0))
            for number in links(found) if found is not None else ():
                if number not in known and len(known) < MOST:
                    try:
                        known[number] = await farm.job(number)
                    except NoSuchJob:
                        known[number] = None
                if number not in seen:
                    seen.add(number)
                    todo.append(number)
    return known


def _above(found: "tuple[JobView, tuple[LayerView, ...]]") -> list[int]:
    view, layers = found
    numbers = [depend.job for depend in view.depends]
    numbers += [depend.job for layer in layers for depend in layer.depends if depend.job is not None]
    return [number for number in dict.fromkeys(numbers) if number != view.id]


def _below(found: "tuple[JobView, tuple[LayerView, ...]]") -> list[int]:
    return list(found[0].dependents)


def tree(known: "Known", job_id: int) -> dict[str, Any]:
    """The job as a structure: its waits (with the jobs waited for), its layers, and its dependents.

    A job stands in it once as a whole; where it is met again, or is not known, it is its number alone.
    """
    told = {job_id}
    root = _job(known, job_id, told)
    root["dependents"] = _dependents(known, job_id, told)
    return root


def _job(known: "Known", number: int, told: set[int]) -> dict[str, Any]:
    found = known[number]
    assert found is not None
    view, layers = found
    return {
        "id": view.id,
        "name": view.name,
        "state": view.state,
        "waits_for": view.waits_for,
        "counts": output.plain(view.counts),
        "depends": [_wait(known, view.id, depend, told) for depend in view.depends],
        "layers": [_layer(known, view.id, layer, told) for layer in layers],
    }


def _layer(known: "Known", job: int, layer: "LayerView", told: set[int]) -> dict[str, Any]:
    from drqueue.proto.model import LayerDepend

    depends = [*(LayerDepend(layer=name) for name in layer.after), *layer.depends]
    return {
        "name": layer.name,
        "counts": output.plain(layer.counts),
        "depends": [_wait(known, job, depend, told, layer) for depend in depends],
    }


def _wait(
    known: "Known", job: int, depend: "Depend | LayerDepend", told: set[int], own: "LayerView | None" = None
) -> dict[str, Any]:
    """One dependency. `over` of its frames are, `wanted` must be (`chunks`: they are such); `met` is None
    where that differs from frame to frame, or is not known; `never`: it will not be met by itself."""
    from drqueue.client.depend_text import depend_text
    from drqueue.proto.model import LayerDepend
    from drqueue.proto.rules import frames_wanted

    by_frame = depend.frames in ("each", "previous")
    number = job if depend.job is None else depend.job
    wait: dict[str, Any] = {
        "depend": depend_text(depend),
        "job": number,
        "layer": depend.layer,
        "frames": depend.frames,
        "offset": depend.offset if isinstance(depend, LayerDepend) else 0,
        "percent": depend.percent,
        "until": depend.until,
    }
    found = known.get(number)
    layers: list[Counts] = []
    wait["chunks"] = False
    if found is not None:
        name = own.name if depend.frames == "previous" and own is not None else depend.layer
        wait["layer"] = name
        meant = [layer for layer in found[1] if layer.name == name]
        if not name:
            meant = list(found[1] if own is None else found[1][:1])
        layers = [layer.chunk_counts for layer in meant]
        wait["chunks"] = any(layer.chunk > 1 for layer in meant)
    total = sum(counts.total for counts in layers)
    lost = sum(counts.failed + counts.cancelled for counts in layers)
    over = sum(counts.done for counts in layers) + (lost if depend.until == "ended" else 0)
    wanted = frames_wanted(total, depend.frames, depend.percent)
    wait |= {"over": over, "wanted": wanted, "total": total, "lost": lost}
    wait["met"] = None if number not in known else True if over >= wanted else None if by_frame else False
    wait["never"] = depend.until == "done" and total - lost < wanted
    if number != job and number not in told and found is not None:
        told.add(number)
        wait["of"] = _job(known, number, told)
    return wait


def _dependents(known: "Known", job: int, told: set[int]) -> list[dict[str, Any]]:
    found = known.get(job)
    nodes: list[dict[str, Any]] = []
    for number in found[0].dependents if found is not None else ():
        other = known.get(number)
        if number in told or other is None:
            nodes.append({"id": number})
            continue
        told.add(number)
        view = other[0]
        node = {"id": number, "name": view.name, "state": view.state, "waits_for": view.waits_for}
        node["counts"] = output.plain(view.counts)
        nodes.append({**node, "dependents": _dependents(known, number, told)})
    return nodes


# -- for people -------------------------------------------------------------------------------------------


Branch = tuple[output.Cell, list[Any]]


def tree_lines(node: dict[str, Any]) -> list[str]:
    """The tree, a line for each job, layer and dependency."""
    text, children = _job_branch(node)
    behind = [_dependent_branch(each) for each in node["dependents"]]
    if behind:
        children.append((output.Cell("waited for by", "dim"), behind))
    return list(_drawn((text, children), "", ""))


def _drawn(branch: Branch, first: str, then: str) -> Iterator[str]:
    cell, children = branch
    room = max(_LEAST, output.screen_width() - len(first))
    text = output.clean(cell.text)
    yield first + output.paint(output.cut(text, room), cell.style)
    for child in children[:-1]:
        yield from _drawn(child, f"{then}├─ ", f"{then}│  ")
    for child in children[-1:]:
        yield from _drawn(child, f"{then}└─ ", f"{then}   ")


def _job_branch(node: dict[str, Any]) -> Branch:
    children = [_wait_branch(wait, node["id"]) for wait in node["depends"]]
    for layer in node["layers"]:
        waits = [_wait_branch(wait, node["id"]) for wait in layer["depends"]]
        children.append((output.Cell(f"layer {layer['name']}  {_counts(layer['counts'])}"), waits))
    return _job_text(node), children


def _dependent_branch(node: dict[str, Any]) -> Branch:
    if "state" not in node:
        return output.Cell(f"job {node['id']}", "dim"), []
    return _job_text(node), [_dependent_branch(each) for each in node["dependents"]]


def _job_text(node: dict[str, Any]) -> output.Cell:
    text = f"job {node['id']} {output.cut(node['name'], _NAME)}  {node['state']}  {_counts(node['counts'])}"
    return output.Cell(text, output.state(node["state"]).style)


def _counts(counts: dict[str, int]) -> str:
    from drqueue.proto.views import Counts

    return counts_text(Counts(**counts))


def _wait_branch(wait: dict[str, Any], job: int) -> Branch:
    who = wait["layer"]
    if wait["job"] != job:
        who = f"{wait['job']}/{who}" if who else f"job {wait['job']}"
    words = {
        "all": f"after {who}",
        "any": f"after any frame of {who}",
        "percent": f"after {wait['percent']:g}% of {who}",
        "previous": "each frame after the one before it",
        "each": f"each frame {_same(wait['offset'])} of {who}",
    }
    text, style = words[wait["frames"]], ""
    if wait["met"]:
        text, style = f"{text}: met", "green"
    elif wait["total"]:
        what = "chunks " if wait["chunks"] else ""
        text += f": {wait['over']} of {wait['wanted']} {what}{wait['until']}"
        if wait["never"]:
            # For which it would take a requeue, or a finish.
            text, style = f"{text}, {wait['lost']} failed or cancelled", "red"
    return output.Cell(text, style), [_job_branch(wait["of"])] if "of" in wait else []


def _same(offset: int) -> str:
    return f"n after n{offset:+d}" if offset else "after the same"
