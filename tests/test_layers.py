"""The architecture itself: imports point down, pure parts stay pure, and no file grows past reading."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINES_MAX = 500


def test_imports_keep_the_contracts() -> None:
    """The contracts stand in pyproject.toml under [tool.importlinter]."""
    lint_imports = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_file_is_too_long() -> None:
    files = [*(ROOT / "drqueue").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_bytes().splitlines()) for path in files}
    assert len(lengths) > 10
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MAX} == {}
