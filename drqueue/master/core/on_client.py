"""What clients ask: one handler per request. A user's mistake is an answer, never an exception."""

from contextlib import suppress

from msgspec import UNSET, UnsetType, structs

from drqueue.master.core import cancelling, cycles, depends, holdback, jobs, on_slave, queries
from drqueue.master.core.ahead import ask_back
from drqueue.master.core.events import ClientAsked
from drqueue.master.core.impossible import impossible
from drqueue.master.core.layer import ROWS_MOST, Layer
from drqueue.master.core.named import job_named, layer_named, short, slave_named
from drqueue.master.core.on_account import account_verb, add_line, with_role
from drqueue.master.core.on_look import READS, look
from drqueue.master.core.on_sharing import Change, change_sharing
from drqueue.master.core.rerange import rerange
from drqueue.master.core.rights import NOT_ALLOWED, Refused, current, refusal
from drqueue.master.core.state import Job
from drqueue.master.core.trouble import heal
from drqueue.master.core.turn import Turn
from drqueue.master.core.wording import described
from drqueue.proto.checks import check_limits, check_spec
from drqueue.proto.messages import (
    AccountVerb,
    AddLine,
    ChangeJob,
    Done,
    FrameVerb,
    JobVerb,
    Request,
    ResumeFarm,
    SetLimits,
    SlaveVerb,
    Submit,
    Submitted,
)
from drqueue.proto.model import JobSpec, LayerSpec
from drqueue.proto.ranges import FrameRange, RangeError
from drqueue.proto.roles import Who
from drqueue.proto.rules import merged

#: Frame numbers that one verb may name where they must be looked up one by one, and the stretches of frames
#: beside each other that these may come to: more would hold everybody else up for seconds.
_NAMED_MOST = 1_000_000
_STRETCHES_MOST = 20_000


def on_asked(turn: Turn, event: ClientAsked) -> None:
    """Answer a request, where whoever asks may do that, and tell the audit."""
    request, who = event.request, current(turn, event.who) or event.who
    try:
        refused = refusal(turn, who, request)
        if refused is not None:
            raise Refused(*refused)
        if isinstance(request, AddLine):
            request = with_role(turn, request)
        done = _asked(turn, event.client, request, who, event.fresh)
    except Refused as error:
        turn.refuse(event.client, request, error.code, str(error))
        if error.code == NOT_ALLOWED or not isinstance(request, READS):
            # What is wrong with a job may quote it.
            text = str(error) if error.code == NOT_ALLOWED else ""
            turn.noticed(who, described(request, turn.state), error.code, text)
    else:
        if done is not None:
            turn.did(who, done)


def _asked(turn: Turn, client: int, request: Request, who: Who, fresh: str) -> str | None:
    """Answer; what was done, in words for the audit, where anything was."""
    if isinstance(request, READS):
        look(turn, client, request, who)
        return None
    # Before it is done: what is gone has no name.
    what = described(request, turn.state)
    match request:
        case Submit():
            return _submit(turn, client, request, who)
        case JobVerb():
            _job_verb(turn, client, request)
        case FrameVerb():
            _frame_verb(turn, client, request)
        case ChangeJob():
            _change(turn, client, request)
        case SlaveVerb():
            _slave_verb(turn, client, request)
        case SetLimits():
            _wish(turn, client, request)
        case ResumeFarm():
            turn.done(client, request, *holdback.vouch(turn))
        case _ if isinstance(request, Change):
            turn.answer(client, change_sharing(turn, request))
        case AddLine():
            turn.answer(client, add_line(turn, request, who, fresh))
        case AccountVerb():
            answer = account_verb(turn, request, who, fresh)
            turn.answer(client, answer)
            if isinstance(answer, Done) and answer.note:
                return f"{what} ({answer.note})"
        case _:
            look(turn, client, request, who)
            return None
    return what


# -- jobs -------------------------------------------------------------------------------------------------


def _submit(turn: Turn, client: int, request: Submit, who: Who) -> str | None:
    known = turn.state.gone_tokens.job(request.token)
    if (number := turn.state.tokens.get(request.token)) is not None:
        known = number, turn.state.jobs[number].submitter
    if known is not None:
        number, submitter = known
        if submitter != who.name:
            raise Refused(NOT_ALLOWED, "this token was used by somebody else: submit with a new one")
        turn.answer(client, Submitted(rq=request.rq, job=number, again=True))
        return None
    spec = request.spec
    problem = check_spec(spec)
    if problem is not None:
        raise Refused("bad-job", problem)
    in_vain = cycles.dangling(turn.state, spec)
    if in_vain is not None:
        raise Refused(*in_vain)
    if len(turn.state.unfinished) >= jobs.JOBS_MOST:
        raise Refused(
            "too-many",
            f"{len(turn.state.unfinished):,} jobs are not finished, and no farm takes more: wait until some "
            "are, or delete some",
        )
    note = ""
    if spec.on_unreachable == "requeue-fast":
        note = (
            "on_unreachable is requeue-fast: a frame whose slave is silent for "
            f"{turn.policy.requeue_fast_s:.0f} s starts again elsewhere, even if the first still runs"
        )
    # Supervisors and admins submit for others, too: pipelines do.
    trusted = who.role in ("supervisor", "admin")
    user = spec.owner if trusted and spec.owner else who.name
    job = jobs.submit(turn, request.token, spec, who.name, user)
    warnings = tuple(impossible(turn.state, job))
    turn.answer(client, Submitted(rq=request.rq, job=job.id, note=note, warnings=warnings))
    frames = sum(len(layer.range) for layer in job.layers)
    return f"submit job {job.id} {spec.name!r}, {frames} frame{'s' if frames != 1 else ''}"


def _job_verb(turn: Turn, client: int, request: JobVerb) -> None:
    job = job_named(turn, request.job)
    count = 0
    note = ""
    match request.verb:
        case "stop":
            count = jobs.stop(turn, job, hard=False)
        case "hard-stop":
            count = jobs.stop(turn, job, hard=True)
        case "continue":
            jobs.proceed(turn, job)
        case "rerun":
            count = jobs.rerun(turn, job)
        case "delete":
            cancelled = [child.id for child in cancelling.waiting_for(turn.state, job)]
            count = jobs.delete(turn, job)
            if cancelled:
                names = ", ".join(str(number) for number in cancelled[:20])
                more = f" and {len(cancelled) - 20} more" if len(cancelled) > 20 else ""
                note = f"cancelled, because they waited for it: job {names}{more}"
    turn.done(client, request, count, note)


def _frame_verb(turn: Turn, client: int, request: FrameVerb) -> None:
    job = job_named(turn, request.job)
    layer = layer_named(job, request.layer)
    indexes, missing = _positions(job, layer, request.frames)
    count = 0
    match request.verb:
        case "kill":
            count = jobs.kill_frames(turn, layer, indexes)
        case "requeue":
            count = jobs.requeue_frames(turn, layer, indexes, now=request.now)
        case "finish":
            count = jobs.finish_frames(turn, layer, indexes, running=request.running)
        case "next":
            count = _go_next(turn, layer, indexes, request.frames)
        case "reset-requeued":
            size = sum(end - start for start, end in indexes)
            if size > ROWS_MOST:
                raise Refused("bad-range", f"these are {size:,} frames, {ROWS_MOST:,} may be reset at once")
            count = jobs.reset_requeued(turn, layer, indexes)
    note = f"{missing} of the numbers are not in the job's range" if missing else ""
    turn.done(client, request, count, note)


def _go_next(turn: Turn, layer: Layer, indexes: list[tuple[int, int]], frames: str) -> int:
    """These go before all others of their layer, those that went first so far behind them. How many wait."""
    problem: str | None = ""
    # A number counts where it came first. Where they are too many together, the former ones had their time.
    for text in (f"{frames},{layer.spec.next}" if layer.spec.next else frames, frames):
        with suppress(RangeError):
            going = structs.replace(layer.spec, next=FrameRange.parse(text).text)
            spec = _with_layer(layer.job.spec, layer.index, going)
            problem = check_spec(spec)
            if problem is None:
                break
    else:
        raise Refused("bad-range", problem or "these are too many frames to go next")
    depends.take_spec(turn.state, layer.job, spec)
    turn.state.changed_jobs.add(layer.job.id)
    wait = jobs.common(sorted([*layer.all_waiting(), *((i, i + 1) for i in layer.delayed)]), indexes)
    return sum(end - start for start, end in wait)


def _positions(job: Job, layer: Layer, text: str) -> tuple[list[tuple[int, int]], int]:
    """Positions (start, end) of the frames that hold these numbers, and how many numbers fit nowhere."""
    try:
        wanted = FrameRange.parse(text)
    except RangeError as error:
        raise Refused("bad-range", str(error)) from None
    if wanted.text == layer.range.text:
        return [(0, layer.size)], 0
    chunk_of = layer.chunks.chunk_of
    stretch = _stretch(wanted, layer)
    if stretch is not None:
        pieces, missing = stretch
        if not pieces:
            raise _none_of_them(job, layer, text)
        return pieces, missing
    if len(wanted) > _NAMED_MOST:
        raise Refused(
            "bad-range",
            f"{len(wanted):,} frames are named one by one, {_NAMED_MOST:,} are allowed: "
            "name them as one range, or in parts",
        )
    found: set[int] = set()
    missing = 0
    for number in wanted:
        index = chunk_of(number)
        if index is None:
            missing += 1
        else:
            found.add(index)
    if not found:
        raise _none_of_them(job, layer, text)
    pieces = []
    for index in sorted(found):
        if pieces and pieces[-1][1] == index:
            pieces[-1] = (pieces[-1][0], index + 1)
        else:
            pieces.append((index, index + 1))
    if len(pieces) > _STRETCHES_MOST:
        raise Refused(
            "bad-range",
            f"these are {len(pieces):,} separate stretches of frames, {_STRETCHES_MOST:,} are allowed: "
            "name them in parts",
        )
    return pieces, missing


def _none_of_them(job: Job, layer: Layer, text: str) -> Refused:
    return Refused(
        "no-such-frame",
        f"job {job.id} has nothing of {short(text)} in its range {short(layer.range.text)}",
    )


def _stretch(wanted: FrameRange, layer: Layer) -> tuple[list[tuple[int, int]], int] | None:
    """As `_positions`, by arithmetic, where all of the layer's numbers between two bounds are wanted."""
    one, two = wanted.single, layer.range.single
    if one is None or two is None:
        return None
    (start, _, step), (first, _, stride) = one, two
    if stride % step or (first - start) % step:
        return None
    stride, step = abs(stride), abs(step)
    low = max(wanted.min, layer.range.min)
    low += (first - low) % stride
    high = min(wanted.max, layer.range.max)
    high -= (high - first) % stride
    if low > high:
        return [], len(wanted)
    ends = sorted((_chunk_of(layer, low), _chunk_of(layer, high)))
    return [(ends[0], ends[1] + 1)], len(wanted) - ((high - low) // stride + 1)


def _chunk_of(layer: Layer, number: int) -> int:
    index = layer.chunks.chunk_of(number)
    assert index is not None, f"{number} is in {layer.range.text}"
    return index


def _change(turn: Turn, client: int, request: ChangeJob) -> None:
    job, change = job_named(turn, request.job), request.change
    layer = layer_named(job, "" if isinstance(change.layer, UnsetType) else change.layer)
    spec = job.spec
    simple = {
        name: value
        for name in (
            "name", "priority", "pool", "max_running", "max_per_slave", "not_before", "on_unreachable",
            "depends", "project", "max_failures",
        )
        if (value := getattr(change, name)) is not UNSET
    }  # fmt: skip
    # In the order in which they were added: the binding counts places in this list.
    hosts = dict.fromkeys((*spec.blocked, *change.block))
    simple["blocked"] = tuple(host for host in hosts if host not in change.unblock)
    layer_spec = layer.spec
    for name in ("retries", "needs", "after", "layer_depends", "order", "next", "limits"):
        value = getattr(change, name)
        if value is not UNSET:
            layer_spec = structs.replace(layer_spec, **{name.removeprefix("layer_"): value})
    if not isinstance(change.machine_memory_mb, UnsetType):
        needs = structs.replace(layer_spec.needs, machine_memory_mb=change.machine_memory_mb)
        layer_spec = structs.replace(layer_spec, needs=needs)
    frames = layer_spec.frames if isinstance(change.frames, UnsetType) else change.frames
    chunk = layer_spec.chunk if isinstance(change.chunk, UnsetType) else change.chunk
    changed = _with_layer(structs.replace(spec, **simple), layer.index, layer_spec)
    problem = check_spec(
        _with_layer(changed, layer.index, structs.replace(layer_spec, frames=frames, chunk=chunk))
    )
    if problem is not None:
        raise Refused("bad-range" if isinstance(change.frames, str) else "bad-job", problem)
    _check_depends(turn, job, changed)
    known = impossible(turn.state, job)
    depends.take_spec(turn.state, job, changed)
    if (frames, chunk) != (layer_spec.frames, layer_spec.chunk):
        rerange(turn, layer, frames, chunk)
    depends.recheck(turn, job)
    ask_back(turn, job=job)
    turn.state.changed_jobs.add(job.id)
    strangers = [host for host in change.block if not queries.find_hosts(turn.state, host)]
    notes = [f"no slave is called {' or '.join(strangers)} so far"] if strangers else []
    notes += [text for text in impossible(turn.state, job) if text not in known]
    turn.done(client, request, 1, "; ".join(notes))


def _with_layer(spec: JobSpec, index: int, layer: LayerSpec) -> JobSpec:
    layers = (*spec.layers[:index], layer, *spec.layers[index + 1 :])
    return structs.replace(spec, layers=layers)


def _check_depends(turn: Turn, job: Job, spec: JobSpec) -> None:
    if depends.asked(spec) == depends.asked(job.spec):
        return
    in_vain = cycles.dangling(turn.state, spec)
    if in_vain is not None:
        raise Refused(*in_vain)
    ring = cycles.cycle(turn.state, job.id, spec)
    if ring is not None:
        raise Refused("bad-job", ring)


# -- logs and slaves ----------------------------------------------------------------------------------------


def _slave_verb(turn: Turn, client: int, request: SlaveVerb) -> None:
    slave = slave_named(turn, request.slave)
    if request.verb == "heal":
        healed = heal(turn, slave)
        turn.done(client, request, int(healed), "" if healed else f"slave {slave.name} was not sick")
        return
    if slave.link is not None:
        raise Refused(
            "bad-state", f"slave {slave.name} is linked: {request.verb} is for slaves that are gone"
        )
    if request.verb == "declare-dead":
        turn.done(client, request, on_slave.declare_dead(turn, slave))
        return
    if slave.live:
        raise Refused(
            "bad-state",
            f"slave {slave.name} may still run {len(slave.live)} frames: declare it dead first",
        )
    on_slave.forget(turn, slave)
    turn.done(client, request, 1)


def _wish(turn: Turn, client: int, request: SetLimits) -> None:
    """Limits of a slave that cannot be reached: said to it when it links again."""
    slave = slave_named(turn, request.slave)
    if slave.wish is not None or slave.link is None:
        wish = merged(slave.wish, request.change)
        problem = check_limits(wish)
        if problem is not None:
            raise Refused("bad-limits", problem)
        slave.wish = wish
        turn.state.save.append(slave.record())
    if slave.link is not None:
        turn.tell(slave.link, SetLimits(rq=0, change=request.change))
        turn.done(client, request, 1)
        return
    turn.state.changed_slaves.add(slave.id)
    turn.done(client, request, 1, f"slave {slave.name} is not linked: it is told when it comes back")
