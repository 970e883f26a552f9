"""What is said at once of a job whose frames will not run as the farm stands: it is taken, never silently."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Final

from drqueue.master.core.amounts import THOUSAND, plain
from drqueue.master.core.depends import Wait, progress
from drqueue.master.core.layer import Layer
from drqueue.master.core.limits import Claim
from drqueue.master.core.shortage import nowhere
from drqueue.master.core.state import FarmState, Job
from drqueue.proto.expressions import ATTRIBUTES, parse

#: Sentences about one job, and different demands that no slave meets that are looked at closely.
_MOST: Final = 20
_DEMANDS_MOST: Final = 4


def impossible(state: FarmState, job: Job) -> list[str]:
    """Sentences on what no slave that is known could ever meet, and on limits that let nothing pass."""
    told: dict[str, None] = dict.fromkeys(_of_waits("it", job.waits))
    unmet: set[object] = set()
    for layer in job.layers:
        told.update(dict.fromkeys(_of_waits(f"layer {layer.spec.name}", layer.waits)))
        told.update(dict.fromkeys(_of_limit_or_attribute(state, layer)))
        if layer.demand.key not in unmet and len(unmet) < _DEMANDS_MOST and (text := nowhere(state, layer)):
            unmet.add(layer.demand.key)
            told[text] = None
        if len(told) >= _MOST:
            break
    return list(told)[:_MOST]


def _of_waits(who: str, waits: Iterable[Wait]) -> Iterator[str]:
    """What waits for frames of which too many have failed already."""
    for one in progress(waits):
        if one.never:
            what = "of which too much failed or was cancelled: requeue or finish it"
            yield f"{who} waits for {one.name}, {what}"


def _of_limit_or_attribute(state: FarmState, layer: Layer) -> Iterator[str]:
    strange = [] if not layer.spec.needs.where else sorted(parse(layer.spec.needs.where).names - ATTRIBUTES)
    for name in strange:
        if not any(name in slave.attributes for slave in state.slaves.values()):
            known = {other for slave in state.slaves.values() for other in slave.attributes}
            hint = _near(name, known)
            yield f"no slave has an attribute {name}{hint}, which layer {layer.spec.name} asks for"
    for claim in state.limits.of(layer):
        counter = claim.counter
        if counter.amount is None and not counter.open_ended:
            hint = _near(counter.name, (other for other in state.limits.set_to if ":" not in other))
            who = f"frames of layer {layer.spec.name}"
            yield f"limit {counter.name} was never set{hint}: {who} wait until it is"
        yield from _of_limit(layer, claim)


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _of_limit(layer: Layer, claim: Claim) -> Iterator[str]:
    counter, name = claim.counter, layer.spec.name
    if counter.amount is None:
        return
    asks = layer.demand.asks
    least = THOUSAND
    if counter.scope != "slaves":
        least = min(counter.units(ask, claim.each) for ask in asks)
    if least <= counter.amount:
        return
    what = {"cores": " cores", "slaves": " machines"}.get(counter.scope, "")
    if counter.name.startswith("burst:"):
        project, _, pool = counter.name.removeprefix("burst:").rpartition("@")
        who = f"project {project}" if project else "jobs without a project"
        whose = f"{who} may have {plain(counter.amount)} cores of pool {pool} at most"
    else:
        whose = f"limit {counter.name} is {plain(counter.amount)}{what}"
    yield f"{whose}, and one attempt of layer {name} takes {plain(least)}"
