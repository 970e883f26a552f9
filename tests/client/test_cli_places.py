"""Which master commands go to, and what is said where it is none, not one's own, or not the one expected."""

import grp
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from drqueue.access import write_access
from drqueue.client import entrance, farm
from tests.client.conftest import Command
from tests.client.secured_peer import way_in


def test_up_is_no_advice_for_whoever_has_a_login(
    drqueue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRQUEUE_ACCESS", str(tmp_path / "access.json"))
    assert "drqueue up" in drqueue("--state-dir", str(tmp_path), "jobs").err
    write_access(str(tmp_path / "access.json"), [way_in(1)])
    said = drqueue("--state-dir", str(tmp_path), "jobs")
    assert said == (69, "", f"drqueue: no master answers at unix:{tmp_path}/master.sock\n")


def test_a_socket_for_others_is_no_missing_master(
    drqueue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(entrance, "dial", denied)
    group = grp.getgrgid(os.stat(tmp_path).st_gid).gr_name
    said = drqueue("--master", f"unix:{tmp_path}/m.sock", "jobs")
    assert (said.status, said.out) == (3, "")
    assert said.err == (
        f"drqueue: {tmp_path}/m.sock may be used by members of its group only ({group}):"
        " ask an admin, or log in with a line (drqueue login LINE)\n"
    )


@pytest.mark.parametrize("login", [True, False])
def test_up_says_that_it_goes_before_a_login(
    drqueue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: bool
) -> None:
    class Up:
        address = "unix:x"

        async def ready(self, _: Any) -> tuple[()]:
            return ()

    @asynccontextmanager
    async def local_farm(*_: Any, **__: Any) -> AsyncIterator[tuple[Up, None]]:
        yield Up(), None

    async def over() -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(farm, "local_farm", local_farm)
    monkeypatch.setattr(trio, "sleep_forever", over)
    monkeypatch.setenv("DRQUEUE_ACCESS", str(tmp_path / "access.json"))
    monkeypatch.setenv("DRQUEUE_STATE_DIR", str(tmp_path / "farm"))
    monkeypatch.delenv("DRQUEUE_MASTER", raising=False)
    if login:
        write_access(str(tmp_path / "access.json"), [way_in(1234, host="10.0.0.1")])
    said = drqueue("up")
    assert (said.status, said.out) == (0, "farm is up\n")
    line = (
        "commands here go to this farm while it runs; the farm at 10.0.0.1:1234 is --master 10.0.0.1:1234\n"
    )
    assert (line in said.err) is login
