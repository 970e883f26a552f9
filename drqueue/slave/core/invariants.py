"""What must hold for a slave's state after every step. PURE; tests call it, the daemon does not."""

from collections import Counter
from math import inf

from drqueue.slave.core.amounts import milli
from drqueue.slave.core.state import ALIVE, USING, Phase, State


def check(state: State) -> None:
    """Raise AssertionError, naming what is wrong."""
    for key, attempt in state.held.items():
        assert key == attempt.key == attempt.order.key, f"{key} is held under a wrong key"
        ended = attempt.phase is Phase.ENDED
        assert ended == (key in state.ended), f"{key}: {attempt.phase} and `ended` disagree"
        over = ended or attempt.phase is Phase.VERIFYING
        assert over == (attempt.exit is not None), f"{key}: {attempt.phase} with exit {attempt.exit}"
        queued = attempt.phase is Phase.QUEUED
        assert queued == (key in state.queued), f"{key}: {attempt.phase} and `queued` disagree"
        if attempt.phase is Phase.RUNNING:
            assert attempt.pid > 0, f"{key} runs without a pid"
            assert attempt.recorded != (key in state.fresh), f"{key}: its start is told twice, or never"
        if attempt.stop_reason:
            assert ended or attempt.phase in ALIVE, f"{key} was stopped and is {attempt.phase}"
        if attempt.phase in ALIVE:
            armed = attempt.kill_at < inf
            assert armed == bool(attempt.stop_reason), f"{key}: stop without a deadline, or the reverse"
    assert state.ended.keys() <= state.held.keys()
    assert all(state.held[key].phase is Phase.RUNNING for key in state.fresh), "a start of what is over"
    assert state.queued.keys() <= state.held.keys()
    using = [attempt for attempt in state.held.values() if attempt.phase in USING]
    used = sum(milli(attempt.order.cores) for attempt in using)
    assert used == state.milli_used, f"cores: {state.milli_used} thousandths counted, {used} in use"
    gpus = Counter(gpu for attempt in using for gpu in attempt.order.gpus)
    assert gpus == state.gpus_used, f"GPUs: {state.gpus_used} counted, {gpus} in use"
    running = Counter(
        gpu for attempt in using if attempt.phase is Phase.RUNNING for gpu in attempt.order.gpus
    )
    shared = sorted(gpu for gpu, attempts in running.items() if attempts > 1)
    assert not shared, f"GPUs {shared} are used by several attempts at a time"
    assert state.linked or not state.registered, "registered without a link"
    if state.leaving:
        assert not state.queued, "frames wait to start on a slave that leaves"
