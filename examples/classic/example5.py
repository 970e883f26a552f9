#!/usr/bin/env python3
"""Sends a job to the farm that has a name and nothing else, to show how a job is refused."""

import sys

import drqueue


def main() -> None:
    """Make a job and send it; one without a command is not complete."""
    job = drqueue.job()
    job.name = "example5"
    # What is missing: job.cmd = "sleep 10"
    job.send_to_queue()
    print(f"Job sent, its id is {job.id}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"example5: {error}")
