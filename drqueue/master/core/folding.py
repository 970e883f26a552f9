"""Rows of frames that say no more than that they are DONE are dropped: their layer's own row says it for all.

Rules of this file:
1. It is done a few rows at a time, in the steps in which they are due; nobody waits for it.
2. Only positions without a history are folded. What becomes of them later is written as for any position that
   stands in its layer's row; `LayerRecord.top` keeps the numbers of their attempts from being given again.
3. A layer whose done frames lie scattered keeps its rows until they have grown together: its own row is
   written with each fold, and is as long as they are many.
"""

from typing import Final

from drqueue.master.core.layer import Layer
from drqueue.master.core.records import FramesForget
from drqueue.master.core.state import FarmState
from drqueue.proto.intervals import IntervalSet

#: So many rows are folded at once, or these few when nothing of their layer is left to do.
FOLD_ROWS: Final = 4096
FOLD_FEW: Final = 16
#: In one step; in one that reads the clock, of which there are few.
AT_ONCE: Final = 1024
AT_ONCE_IDLE: Final = 16_384
#: Stretches of done frames, and frames with a history, in a layer that is folded.
_SCATTERED: Final = 2000


def got_rows(layer: Layer, rows: int) -> None:
    """So many more frames of the layer have rows that say nothing but DONE; or it may have ended."""
    layer.unfolded += rows
    few = FOLD_ROWS if layer.waiting or layer.unfinished else FOLD_FEW
    if layer.unfolded >= few:
        layer.job.state.foldable[layer] = None


def fold(state: FarmState, room: int) -> None:
    """Drop up to `room` rows of the layers that are due."""
    for layer in list(state.foldable):
        if room <= 0:
            return
        if state.jobs.get(layer.job.id) is not layer.job or layer not in layer.job.layers:
            del state.foldable[layer]
            continue
        folded = _fold(layer, room)
        if folded < room:
            # All of it, or too scattered: it is looked at again once it got as many rows more.
            layer.unfolded = 0
            del state.foldable[layer]
        room -= folded


def _fold(layer: Layer, room: int) -> int:
    base = dict(layer.bases())["DONE"]
    if layer.done.stretches > _SCATTERED or len(layer.history) > _SCATTERED:
        return 0
    rows = layer.done.copy()
    rows.difference_update(base)
    rows.difference_update(IntervalSet((index, index + 1) for index in layer.history))
    folded = 0
    for start, end in rows.intervals():
        last = min(end, start + room - folded)
        base.add_range(start, last)
        layer.job.state.save.append(FramesForget(layer.job.id, layer.index, start, last))
        folded += last - start
        if folded == room:
            break
    if folded:
        layer.job.state.save.append(layer.record())
    return folded
