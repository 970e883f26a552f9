"""The slave's state from what the spool kept. PURE.

Rules: what a record says about an attempt that is not held is old news; so is an order that is. In another
boot nothing of what the spool names runs: whatever had not ended is lost, and that is told as an exit like
any other.
"""

from collections.abc import Iterable

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import Exit, SlaveLimits
from drqueue.slave.core.records import (
    Accepted,
    Boot,
    Ended,
    MasterHeard,
    Noted,
    Prepared,
    Running,
    SpoolRecord,
    StopAsked,
)
from drqueue.slave.core.state import USING, Attempt, Phase, State


def restore(
    records: Iterable[SpoolRecord],
    *,
    boot_id: str,
    now: float,
    limits: SlaveLimits,
    farm: str = "",
    epoch: int = 0,
    life: str = "",
) -> State:
    """The state to go on with; `snapshot` of it belongs into the spool before anything else happens.

    An attempt without a process on record may have been started by a daemon that was then killed: it is
    LAUNCHING, and the supervisor finds out what became of it (see `known`); it is never started again.
    """
    state = State(limits, farm, epoch, life)
    boot = boot_id
    heard: MasterHeard | None = None
    for record in records:
        match record:
            case Boot(boot):
                pass
            case MasterHeard():
                heard = record
            case Accepted(order):
                state.held.setdefault(order.key, Attempt.of(order))
            case Noted(key):
                state.held.pop(key, None)
                state.ended.pop(key, None)
            case Prepared(key) | Running(key) | StopAsked(key) | Ended(key):
                attempt = state.held.get(key)
                if attempt is not None and attempt.phase is not Phase.ENDED:
                    _replay(state, attempt, record)
    same_boot = boot == boot_id
    for attempt in state.held.values():
        if attempt.phase is Phase.ENDED:
            continue
        if not same_boot:
            _end(state, attempt, Exit(reason="lost", text="the machine was started anew meanwhile"))
        elif attempt.phase is Phase.QUEUED:
            attempt.move(Phase.PREPARING if attempt.order.outputs else Phase.LAUNCHING)
        if attempt.phase in USING:
            state.take(attempt)
    # Without a word on record, the master is taken to have been there until just now.
    state.heard_at = min(now, heard.at) if heard is not None and same_boot else now
    if heard is not None and same_boot:
        state.grant_s, state.hello_at = heard.grant_s, heard.hello_at
    state.heard_kept_at = state.heard_at
    return state


def snapshot(state: State, boot_id: str) -> list[SpoolRecord]:
    """The fewest records from which `restore` makes this state."""
    records: list[SpoolRecord] = [
        Boot(boot_id),
        MasterHeard(state.heard_at, state.grant_s, state.hello_at),
    ]
    for attempt in state.held.values():
        records.append(Accepted(attempt.order))
        if attempt.phase is Phase.ENDED:
            continue
        if attempt.before:
            records.append(Prepared(attempt.key, attempt.before))
        if attempt.recorded:
            records.append(Running(attempt.key, attempt.pid, attempt.birth, attempt.started_at))
        if attempt.stop_reason:
            records.append(StopAsked(attempt.key, attempt.stop_reason, attempt.stop_text, attempt.grace_s))
    # In the order of exit, in which they are told.
    records += [Ended(key, attempt.exit) for key, attempt in state.ended.items() if attempt.exit is not None]
    return records


def known(state: State) -> dict[AttemptKey, tuple[int, int] | None]:
    """The attempts that may have a process: its id and birth, or None where not even that was kept."""
    return {attempt.key: (attempt.pid, attempt.birth) if attempt.pid else None for attempt in state.alive()}


def _replay(state: State, attempt: Attempt, record: Prepared | Running | StopAsked | Ended) -> None:
    match record:
        case Prepared(_, before):
            attempt.before = before
            if attempt.phase is Phase.QUEUED:
                attempt.move(Phase.LAUNCHING)
        case Running(_, pid, birth, at):
            attempt.pid, attempt.birth, attempt.started_at, attempt.recorded = pid, birth, at, True
            if attempt.phase is Phase.QUEUED:
                attempt.move(Phase.LAUNCHING)
            if attempt.phase is Phase.LAUNCHING:
                attempt.move(Phase.RUNNING)
        case StopAsked(_, reason, text, grace_s):
            attempt.stop_reason, attempt.stop_text, attempt.grace_s = reason, text, grace_s
            if attempt.phase is Phase.QUEUED:
                attempt.move(Phase.LAUNCHING)
        case Ended(_, exit_):
            _end(state, attempt, exit_)


def _end(state: State, attempt: Attempt, exit_: Exit) -> None:
    attempt.move(Phase.ENDED)
    attempt.exit = exit_
    state.ended[attempt.key] = attempt
