"""How much of each fault is injected: DRQUEUE_FAULTS=LEVEL[:SEED], and the dice that it is done with.

`ci` (the default) is what every run of the tests affords, with the same dice each time; `nightly` and
`release` take minutes to hours, and draw a seed where none is given. What a test draws is printed, so that
pytest shows it where the test fails.
"""

import os
import random
import secrets

VARIABLE = "DRQUEUE_FAULTS"
LEVELS = ("ci", "nightly", "release")


def level() -> str:
    """The level of this run; ValueError for an unknown one."""
    name = os.environ.get(VARIABLE, "").partition(":")[0] or LEVELS[0]
    if name not in LEVELS:
        raise ValueError(f"{VARIABLE} is {name!r}: it may be {', '.join(LEVELS)}")
    return name


def count(name: str, *, ci: int, nightly: int, release: int) -> int:
    """How often fault `name` is injected at this run's level."""
    number = {"ci": ci, "nightly": nightly, "release": release}[level()]
    print(f"{name}: {number} times")
    return number


def timeout_s() -> float:
    """Seconds that one test may take; 0: as long as it likes."""
    return 300.0 if level() == LEVELS[0] else 0.0


def rng(name: str) -> random.Random:
    """Dice for fault `name`: others for each fault, the same for the same seed."""
    given = os.environ.get(VARIABLE, "").partition(":")[2]
    seed = given or ("1" if level() == LEVELS[0] else secrets.token_hex(4))
    print(f"{name}: again with {VARIABLE}={level()}:{seed}")
    return random.Random(f"{seed}/{name}")
