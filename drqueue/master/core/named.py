"""What requests name, found: or Refused, with a sentence."""

from drqueue.master.core import queries
from drqueue.master.core.layer import Layer
from drqueue.master.core.rights import Refused
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import Job
from drqueue.master.core.turn import Turn


def job_named(turn: Turn, number: int) -> Job:
    """The job with that number."""
    job = queries.find_job(turn.state, number)
    if job is None:
        raise Refused("no-such-job", f"there is no job {number}")
    return job


def layer_named(job: Job, name: str) -> Layer:
    """A job's layer; the first one for ""."""
    layer = job.layer_named(name)
    if layer is None:
        names = ", ".join(layer.spec.name for layer in job.layers)
        raise Refused("no-such-layer", f"job {job.id} has no layer {name!r} (it has {names})")
    return layer


def frame_named(job: Job, name: str, number: int) -> tuple[Layer, int]:
    """The layer and the position of the frame that holds this number."""
    layer = layer_named(job, name)
    index = layer.chunks.chunk_of(number)
    if index is None:
        raise Refused(
            "no-such-frame", f"job {job.id} has no frame {number} in its range {short(layer.range.text)}"
        )
    return layer, index


def short(text: str) -> str:
    """A range, not too long for a sentence."""
    return text if len(text) <= 60 else text[:57] + "..."


def slave_named(turn: Turn, who: str) -> Slave:
    """The one slave that is meant."""
    found = queries.find_slaves(turn.state, who)
    if not found:
        raise Refused("no-such-slave", f"there is no slave {who!r}")
    if len(found) > 1:
        names = ", ".join(slave.name for slave in found)
        raise Refused("ambiguous-slave", f"{who!r} may be any of {names}: say which")
    return found[0]
