"""This process's own arguments, which everybody on the machine may read (`ps`).

Rules: standard library only. Whoever wants a secret read by nobody hands it over by stdin; this shortens the
time in which one that was typed can be read, from a daemon's life to a moment.
"""

#: Of the fields in /proc/self/stat that follow the name: where the arguments begin and end in memory.
_BEGIN, _END = 45, 46


def hide(secret: str) -> bool:
    """Put as many x in the place of an argument; whether it was found, and could be overwritten."""
    wanted = secret.encode(errors="surrogateescape")
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        begin, end = int(fields[_BEGIN]), int(fields[_END])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            at = (memory.read(end - begin) or b"").find(b"\0" + wanted + b"\0")
            if at < 0:
                return False
            memory.seek(begin + at + 1)
            memory.write(b"x" * len(wanted))
    except OSError:
        return False
    return True
