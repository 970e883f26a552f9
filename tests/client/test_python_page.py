"""docs/python.md: its examples, one after the other, as one program against a real farm."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from drqueue.client import AsyncClient, Client
from tests.e2e.helpers import farm_up

PAGE = Path(__file__).parent.parent.parent / "docs" / "python.md"


def test_calls_in_its_table_exist() -> None:
    table = re.search(r"^\| call \|.*\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    assert table is not None
    calls = [found for row in table[1].splitlines() for found in re.findall(r"`(\w+)\(([^)]*)\)`", row)]
    assert len(calls) > 9
    for name, given in calls:
        words = {word.split("=")[0] for word in given.split(", ") if "=" in word}
        for client in (Client, AsyncClient):
            assert words <= set(inspect.signature(getattr(client, name)).parameters), name


@pytest.mark.slow
def test_the_examples_of_the_python_page_work(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 6
    work = tmp_path / "page"
    work.mkdir()
    (work / "page.py").write_text("\n".join(blocks))
    with farm_up(tmp_path, slaves=2, cores=2) as up:
        ended = subprocess.run(
            [sys.executable, "page.py"],
            cwd=work,
            env={**up.cli.environ(), "PWD": str(work)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "picture 3\n" in ended.stdout
    assert "there is no job 999999 no-such-job" in ended.stdout
    assert (work / "film.txt").read_text() == "picture 1\npicture 2\npicture 3\npicture 4\n"
