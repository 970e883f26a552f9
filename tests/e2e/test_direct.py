"""Slaves are asked directly, as DrQueue always did: also while there is no master."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.helpers import a_farm

pytestmark = pytest.mark.slow


def drqueue(state_dir: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "drqueue", *words],
        env={**os.environ, "DRQUEUE_STATE_DIR": state_dir},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


async def test_a_slave_obeys_while_the_master_is_down(tmp_path: Path) -> None:
    async with a_farm(tmp_path, slaves=1) as (farm, client):
        await farm.master.end(signal.SIGKILL)
        done = drqueue(farm.state_dir, "slave", "disable", "s1")
        assert (done.returncode, done.stderr) == (0, "")
        shown = json.loads(drqueue(farm.state_dir, "slave", "s1", "--json").stdout)
        assert shown["limits"]["enabled"] is False
        unknown = drqueue(farm.state_dir, "slave", "disable", "nobody")
        assert unknown.returncode == 69
        assert unknown.stderr.count("\n") == 1
        await farm.master.start()
        async with client.watch(slaves=True, patience_s=30) as changes:
            while (view := await client.slave("s1")).limits.enabled or not view.linked:
                await anext(changes)
