"""docs/binding.md: its example works, its names exist, and it lists each absent name with its reason."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.binding.table import (
    ABSENT,
    CLASSES,
    EXTRA_CONSTANTS,
    EXTRA_FIELDS,
    FIELDS,
    FUNCTIONS,
    METHODS,
    OFFERED,
    OTHER_NAMES,
    POINTERS,
)
from tests.e2e.helpers import farm_up

PAGE = Path(__file__).parents[2] / "docs" / "binding.md"
TEXT = PAGE.read_text(encoding="utf-8")
ABOUT, NOT_THERE = TEXT.split("\n## Names that are not there\n")
#: Words in backticks that are no names of the binding.
OTHER_WORDS = {
    "None", "str", "ptr", "drqueue", "libdrqueue", "base", "client", "sg", "sendmail", "frame", "get_",
    "_list", "_ACTIVE", "_STOPPED", "_FINISHED", "DRE_", "R_R_", "RS_R_", "RERR_", "NAME", "PATH", "unix",
    "any", "n", "USER", "LOGNAME", "null",
}  # fmt: skip


def test_each_absent_name_stands_there_with_its_reason() -> None:
    for row in ABSENT:
        (line,) = [line for line in NOT_THERE.splitlines() if line.startswith(f"| {row.what} |")]
        assert line.endswith(f"| {row.reason} |")
        assert re.findall(r"`(\w+)`", line.split("|")[2]) == list(row.names)


def test_every_name_on_the_page_exists() -> None:
    known = {*OFFERED, *POINTERS, *OTHER_WORDS}
    known |= {field.name for field in FIELDS} | {name for names in EXTRA_FIELDS.values() for name in names}
    known |= {name.partition(".")[2] for name in METHODS}
    known |= {each.name for call in (FUNCTIONS | METHODS).values() for each in call.arguments}
    prose = re.sub(r"^```.*?^```$", "", ABOUT, flags=re.DOTALL | re.MULTILINE)
    words = {word for part in re.findall(r"`([^`]+)`", prose) for word in re.findall(r"[A-Za-z_]\w*", part)}
    words -= {word for word in words if word.startswith("DRQUEUE_") or word.endswith("Error")}
    words -= {"names", "toml", "tests", "import", "binding", "request_", "request_slave_"}
    assert sorted(words - known) == []


def test_all_that_is_new_is_named() -> None:
    new = OTHER_NAMES | {name for name in FUNCTIONS if f"`{name}`" in ABOUT and name in OFFERED}
    for name in new:
        assert f"`{name}" in ABOUT, name
    for prefix in {re.match(r"[A-Z]+_(R_)?", name)[0] for name in EXTRA_CONSTANTS}:  # type: ignore[index]
        assert f"`{prefix}*`" in ABOUT, prefix
    for owner, names in EXTRA_FIELDS.items():
        assert owner in CLASSES
        for name in names:
            assert f"`{owner}.{name}`" in ABOUT, name


@pytest.mark.slow
def test_the_example_works(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    with farm_up(tmp_path, slaves=2) as up:
        ended = subprocess.run(
            [sys.executable, "-c", block],
            env={**up.cli.environ(), "DRQUEUE_MASTER": f"unix:{up.state_dir}/master.sock"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        said = ended.stdout.splitlines()
        assert re.fullmatch(r"0 shot_010 (Waiting|Active|Finished) \d+ done, \d+ left", said[0])
        assert [line.split()[0] for line in said[1:11]] == [str(number) for number in range(1, 11)]
        assert sorted(said[11:]) == ["s1 1 1", "s2 1 1"]
        assert up.cli.wait(0).counts.done == 10
