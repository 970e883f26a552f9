#!/usr/bin/env python3
"""Stops every active job and continues every stopped one. CHANGES ALL JOBS of the farm."""

import sys

import drqueue


def main() -> None:
    """Toggle each job, and say by the value returned whether that was done."""
    for job in drqueue.request_job_list(drqueue.CLIENT):
        if job.status == drqueue.JOBSTATUS_ACTIVE:
            print(f"Stopping job {job.id} ({job.name}):", end=" ")
            if job.request_stop(drqueue.CLIENT):
                print("Stopped")
            else:
                print("Failed")
        elif job.status == drqueue.JOBSTATUS_STOPPED:
            print(f"Continuing job {job.id} ({job.name}):", end=" ")
            if job.request_continue(drqueue.CLIENT):
                print("Continued")
            else:
                print("Failed")
        else:
            print(f"Job {job.id} ({job.name}) is {drqueue.job_status_string(job.status)}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"example3: {error}")
