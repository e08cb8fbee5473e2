"""The names of processes that share the records, and whether such a process may still run."""

import os
import socket
import uuid


def replica_name() -> str:
    """Give a name for this process: host, process id, and something that no other process had."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:12]}"


def replica_may_live(replica: str) -> bool:
    """Tell whether the process of that name may still run; True when it cannot be known (another host)."""
    host, _, rest = replica.partition("/")
    number, _, _ = rest.partition("/")
    if host != socket.gethostname() or not number.isdigit():
        return True
    if int(number) == os.getpid():
        return False  # our own id with another name: a process before us
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
