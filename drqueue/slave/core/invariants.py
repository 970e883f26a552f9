"""What must hold for a slave's state after every step. PURE; tests call it, the daemon does not."""

from math import inf

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
    used = sum(attempt.order.cores for attempt in state.held.values() if attempt.phase in USING)
    assert used == state.cores_used, f"cores: {state.cores_used} counted, {used} in use"
    assert state.linked or not state.registered, "registered without a link"
    if state.leaving:
        assert not state.queued, "frames wait to start on a slave that leaves"
