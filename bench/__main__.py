"""`python -m bench [NAME]`: what this machine and the farm on it can do; each NAME has a --help.

farm      the machine's limit and the farm's figures, side by side; this one without a NAME (bench/rate.py)
core      the scheduler itself, without disks, sockets and processes (bench/core.py)
links     many slaves, simulated, on real links (bench/links.py)
memory    what finished frames cost (bench/memory.py)
tls       what closed links cost (bench/tls.py)
soak      a farm at work for an hour: what grows (bench/soak.py)
"""

import sys
from importlib import import_module

NAMES = ("farm", "core", "links", "memory", "tls", "soak")


def main() -> None:
    """Run the bench that is named, or the farm's."""
    name, arguments = "farm", sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    if name not in NAMES:
        sys.exit(f"bench: there is no {name!r}, but {', '.join(NAMES)}")
    import_module(f"bench.{'rate' if name == 'farm' else name}").main(arguments)


if __name__ == "__main__":
    main()
