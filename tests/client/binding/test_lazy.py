"""`import drqueue` offers all of the binding, and nobody who does not use it pays for it."""

import pkgutil
import re
import subprocess
import sys

import pytest

import drqueue
from drqueue.client import binding

HEAVY = ("click", "rich", "starlette", "hypercorn", "trio", "psutil", "drqueue.client")


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )


@pytest.mark.parametrize("module", ["drqueue.proto", "drqueue", "drqueue.proto.messages", "drqueue.settings"])
def test_parts_of_the_farm_load_neither_binding_nor_client(module: str) -> None:
    timings = run(f"import {module}", "-X", "importtime").stderr
    loaded = set(re.findall(r"\|\s*([\w.]+)$", timings, re.MULTILINE))
    assert module in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_sub_packages_are_imported_as_ever_without_the_binding() -> None:
    """`from drqueue import x` asks for an attribute first."""
    code = """
import sys
from drqueue import client, log, proto, settings
import drqueue.client
assert drqueue.client is client and drqueue.log is log
try:
    from drqueue import nowhere
except ImportError:
    pass
else:
    raise SystemExit("nowhere was imported")
assert not hasattr(drqueue, "_nothing")
print("before")
"""
    assert run(code).stdout == "before\n"
    light = "import sys; from drqueue import client, log; print('drqueue.client.binding' in sys.modules)"
    assert run(light).stdout == "False\n"


def test_every_name_is_offered_everywhere() -> None:
    import drqueue.base.libdrqueue as lib

    assert len(binding.NAMES) > 300
    for name in binding.NAMES:
        value = getattr(binding, name)
        assert getattr(drqueue, name) is value, name
        assert getattr(lib, name) is value, name
    assert set(binding.NAMES) <= set(dir(drqueue))
    assert set(vars(lib)["__all__"]) == set(binding.NAMES)


def test_the_most_used_names_are_what_they_should_be() -> None:
    assert drqueue.CLIENT == 20
    assert isinstance(drqueue.job(), drqueue.job)
    assert isinstance(drqueue.koji().maya, drqueue.koji_maya)
    assert drqueue.time_str(61) == "1 minutes 1 seconds"
    assert drqueue.last_error() == drqueue.base.libdrqueue.last_error()
    assert drqueue.error_text(drqueue.DRE_NOTCOMPLETE) == "Information not complete."


def test_a_name_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that looks at a million frames says `drqueue.FS_FINISHED` a million times."""
    assert (drqueue.FS_FINISHED, drqueue.sg.__name__) == (3, "drqueue.sg")

    def again(name: str) -> object:
        raise AssertionError(f"{name} is looked for again")

    monkeypatch.setattr(drqueue, "__getattr__", again)
    assert (drqueue.FS_FINISHED, drqueue.sg.__name__) == (3, "drqueue.sg")


def test_no_name_is_hidden_by_a_part_of_the_package() -> None:
    parts = {module.name for module in pkgutil.iter_modules(drqueue.__path__)}
    assert parts & set(binding.NAMES) == set()


def test_no_name_is_a_leftover_of_an_import() -> None:
    for name in binding.NAMES:
        home = getattr(getattr(binding, name), "__module__", "drqueue.client.binding")
        assert home.startswith("drqueue.client.binding"), name
        assert not name.startswith("_")


@pytest.mark.parametrize(
    "start",
    [
        "from drqueue import *",
        "from drqueue.base.libdrqueue import *",
        "import drqueue.base.libdrqueue as drqueue; globals().update(vars(drqueue))",
        "import drqueue as d; job, CLIENT, request_job_list = d.job, d.CLIENT, d.request_job_list",
    ],
)
def test_ways_to_begin_a_program(start: str) -> None:
    code = f"{start}\nmade = job()\nmade.name = 'a'\nprint(made.name, CLIENT, callable(request_job_list))"
    assert run(code).stdout == "a 20 True\n"


def test_the_script_generators_are_there_when_asked_for() -> None:
    code = (
        "import sys, drqueue; print('drqueue.sg' in sys.modules, drqueue.sg.__name__, 'sg' in dir(drqueue))"
    )
    assert run(code).stdout == "False drqueue.sg True\n"


def test_a_name_that_nobody_offers() -> None:
    with pytest.raises(AttributeError, match="module 'drqueue' has no attribute 'nonsense'"):
        _ = drqueue.nonsense
    assert not hasattr(drqueue, "Final")
    assert drqueue.__version__
