"""What a slave holds in memory, which is the frames' wherever it is not needed."""

import gc
import linecache
import subprocess
import sys

import pytest

from drqueue.slave import cli, memory


def test_a_slave_loads_only_what_it_needs() -> None:
    """Its memory is the frames': what few slaves, or few moments, need is loaded then."""
    code = "import sys; import drqueue.slave.cli, drqueue.slave.daemon; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seldom = {
        *("argparse", "dataclasses", "difflib", "fractions", "tomllib"),
        *("drqueue.png", "drqueue.tls", "drqueue.mail", "drqueue.checkup", "drqueue.dialling"),
        *("drqueue.proto.checks", "drqueue.proto.expressions", "drqueue.proto.ranges"),
        *("drqueue.slave.examine", "drqueue.slave.join_command", "drqueue.slave.log_copy"),
    }
    assert seldom & set(loaded.stdout.split()) == set()


def test_free_memory_is_given_back_where_the_system_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other C libraries than GNU's have no such call."""

    class Library:
        trimmed = 0

        def malloc_trim(self, keep: int) -> None:
            self.trimmed += 1

    library = Library()
    monkeypatch.setattr(memory, "_C", library)
    memory.give_back()
    assert library.trimmed == 1
    monkeypatch.setattr(memory, "_C", object())
    memory.give_back()


def test_the_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(True))
    monkeypatch.setitem(linecache.cache, "made up", (1, None, ["x"], "made up"))
    memory.settle()
    assert collected
    assert "made up" not in linecache.cache


def test_the_command_line_is_read_again_after_it_was_forgotten() -> None:
    cli._forget_parser()
    assert "argparse" not in sys.modules
    assert cli._parser().parse_args(["--gpus", "0"]).gpus == "0"
