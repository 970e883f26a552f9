"""The binding while masters and slaves come and go."""

import time
from pathlib import Path

import pytest
import trio

import drqueue as d
from drqueue.client.binding import session
from drqueue.client.farm import LocalFarm
from tests.client.binding.farmwork import C, known, sent
from tests.e2e.helpers import a_farm, wait_until

pytestmark = pytest.mark.slow


async def test_a_master_that_restarts_between_two_calls_is_not_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slaves can be asked meanwhile; a slave that left can be struck off the list."""
    async with a_farm(tmp_path, slaves=1) as (farm, _):
        monkeypatch.setenv("DRQUEUE_MASTER", farm.address)
        monkeypatch.setenv("DRQUEUE_STATE_DIR", farm.state_dir)
        monkeypatch.setattr(session, "PATIENCE_S", 20.0)
        session.close()

        def first() -> int:
            return sent("sleep 600").id

        number = await trio.to_thread.run_sync(first)
        await farm.master.end()

        def meanwhile() -> None:
            address = f"unix:{farm.slaves[0].state_dir}/control.sock"
            assert d.request_slave_limits_enabled_set(address, 0, C) == 1
            assert d.request_slave_job_available(address, C) == 1

        await trio.to_thread.run_sync(meanwhile)
        await farm.master.start()
        assert await trio.to_thread.run_sync(d.request_job_stop, number, C) == 1

        def patient() -> None:
            """While none is there, a call waits for the next one."""
            job = d.job()
            before = time.monotonic()
            assert d.request_job_xfer(number, job, C) == 1
            assert job.status == d.JOBSTATUS_STOPPED
            assert time.monotonic() - before < 20

        await farm.master.end()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, patient)
            await farm.master.start()
        await strike_off(farm)


async def strike_off(farm: LocalFarm) -> None:
    """A slave that has left can be forgotten, and is no computer of the farm's any more."""

    def idle() -> None:
        assert d.request_job_delete(d.request_job_list(C)[0].id, C) == 1
        (slave,) = d.request_computer_list(C)
        known("nothing runs", slave, lambda: not slave.status.ntasks)

    def gone() -> bool:
        return d.request_slavexit(0, C) == 1

    await trio.to_thread.run_sync(idle)
    await farm.slaves[0].end()
    await trio.to_thread.run_sync(lambda: wait_until("the slave is forgotten", gone))
    assert await trio.to_thread.run_sync(d.request_computer_list, C) == []
    session.close()
