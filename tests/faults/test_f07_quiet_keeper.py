"""F7: a keeper that has said all there is to say is not one that hangs."""

import pytest
import trio
import trio.testing

from drqueue.slave import keeper_health


@pytest.mark.parametrize("greeted_before", [True, False])
async def test_f7_a_keeper_with_nothing_to_say_lives(
    greeted_before: bool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It greets, perhaps before anybody watches it; its frames run for hours without a word."""
    ended: list[str] = []
    monkeypatch.setattr(keeper_health, "end_keeper", lambda folder, _child=0: ended.append(folder))
    health = keeper_health.Health("folder", 0)
    if greeted_before:
        health.hear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(health.watch, lambda: False, nursery.cancel_scope)
        await trio.sleep(1)
        if not greeted_before:
            health.hear()
        await trio.sleep(3600)
        assert not health.hung
        nursery.cancel_scope.cancel()
    assert ended == []


async def test_f7_a_keeper_that_never_greets_is_ended(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(keeper_health, "end_keeper", lambda folder, _child=0: ended.append(folder))
    health = keeper_health.Health("folder", 0)
    async with trio.open_nursery() as nursery:
        await health.watch(lambda: False, nursery.cancel_scope)
    assert ended == ["folder"]
    assert nursery.cancel_scope.cancelled_caught or nursery.cancel_scope.cancel_called
