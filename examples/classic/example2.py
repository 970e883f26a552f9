#!/usr/bin/env python3
"""Lists the computers of a farm, its jobs, and every job's frames. Changes nothing."""

import os
import sys

import drqueue


def main() -> None:
    """Print what example1 prints, and each frame's number, status and computer."""
    print("DRQUEUE_MASTER:", os.environ.get("DRQUEUE_MASTER", "(not set)"))

    computer_list = drqueue.request_computer_list(drqueue.CLIENT)
    print("Computers:")
    for computer in computer_list:
        enabled = "yes" if computer.limits.enabled else "no"
        print(f"  ID: {computer.hwinfo.id} Name: {computer.hwinfo.name} Enabled: {enabled}")

    print("Jobs:")
    for job in drqueue.request_job_list(drqueue.CLIENT):
        print(f"  ID: {job.id} Name: {job.name}")
        # A frame does not know its number: its place in the list tells.
        for index, frame in enumerate(job.request_frame_list(drqueue.CLIENT)):
            number = job.job_frame_index_to_number(index)
            status = drqueue.job_frame_status_string(frame.status)
            print(f"    Frame: {number} Status: {status} Computer: {name_of(computer_list, frame)}")


def name_of(computer_list: list, frame: drqueue.frame_info) -> str:
    """The computer that a frame runs on, or ran on last; "None" before its first run."""
    if frame.start_time == 0:
        return "None"
    try:
        # Ids are counted up from 0, so they are places in the list as long as no computer was forgotten.
        return computer_list[frame.icomp].hwinfo.name
    except IndexError:
        return "None"


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"example2: {error}")
