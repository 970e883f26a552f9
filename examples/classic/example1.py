#!/usr/bin/env python3
"""Lists the computers and the jobs of a farm. Changes nothing."""

import os
import sys

import drqueue


def main() -> None:
    """Print DRQUEUE_MASTER, then every computer, then every job."""
    print("DRQUEUE_MASTER:", os.environ.get("DRQUEUE_MASTER", "(not set)"))

    print("Computers:")
    for computer in drqueue.request_computer_list(drqueue.CLIENT):
        enabled = "yes" if computer.limits.enabled else "no"
        print(f"  ID: {computer.hwinfo.id} Name: {computer.hwinfo.name} Enabled: {enabled}")

    print("Jobs:")
    for job in drqueue.request_job_list(drqueue.CLIENT):
        print(f"  ID: {job.id} Name: {job.name}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"example1: {error}")
