#!/usr/bin/env python3
"""Disables every enabled computer and enables every disabled one. CHANGES ALL COMPUTERS of the farm."""

import sys

import drqueue


def main() -> None:
    """Toggle each computer; these requests return nothing, and raise OSError where they fail."""
    for computer in drqueue.request_computer_list(drqueue.CLIENT):
        if computer.limits.enabled:
            print(f"Disabling computer {computer.hwinfo.id} ({computer.hwinfo.name}):", end=" ")
            request = computer.request_disable
        else:
            print(f"Enabling computer {computer.hwinfo.id} ({computer.hwinfo.name}):", end=" ")
            request = computer.request_enable
        try:
            # This goes straight to the slave; the master hears of it from there.
            request(drqueue.CLIENT)
        except OSError as error:
            print(f"Failed: {error}")
        else:
            print("Done")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"example4: {error}")
