"""A farm's line as people paste it: by stdin or at a terminal, in one row or broken over several.

Rules: at a terminal nothing of it is shown. Rows are read until the line is whole, an empty one, or the end.
"""

import sys

from drqueue.proto.lines import BEGINNING, is_whole

#: More characters, and rows, than any line has.
_MOST, _ROWS = 4096, 40


def read_line(prompt: str = "the line (it is not shown): ") -> str:
    """What was pasted, its rows joined; "" for nothing. At a terminal, EOFError where that ends at once."""
    asks = sys.stdin.isatty()
    text = ""
    for _ in range(_ROWS):
        row = _asked(prompt if not text else "go on: ") if asks else sys.stdin.readline(_MOST)
        text += row.strip()
        # What does not begin as a line, a master's HOST, is whole with its row.
        begins = text.startswith(BEGINNING) or BEGINNING.startswith(text)
        if not row.strip() or not begins or is_whole(text):
            break
    return text


def _asked(prompt: str) -> str:
    import getpass  # most lines come otherwise

    return getpass.getpass(prompt)
