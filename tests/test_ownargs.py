"""Arguments that others shall not read."""

import subprocess
import sys

from drqueue import ownargs

SHOW = (
    "import sys; from drqueue import ownargs; print(ownargs.hide(sys.argv[1]), sys.argv[1]);"
    "print(open('/proc/self/cmdline', errors='surrogateescape').read().split(chr(0))[-3:])"
)


def shown(*words: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", SHOW, *words], stdout=subprocess.PIPE, check=True, text=True
    ).stdout


def test_an_argument_is_hidden_from_others_and_kept_for_its_own_process() -> None:
    assert shown("s3cret", "last") == "True s3cret\n['xxxxxx', 'last', '']\n"


def test_only_the_whole_argument_is_taken_for_it() -> None:
    assert shown("cret", "s3cret") == "True cret\n['xxxx', 's3cret', '']\n"


def test_what_is_no_argument_is_not_found() -> None:
    assert not ownargs.hide("no argument of this process")
