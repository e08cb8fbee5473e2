"""`chat2api/accounts/replicas.py`."""

import os
import socket
import subprocess
import sys

from chat2api.accounts.replicas import replica_may_live, replica_name


def test_a_replicas_process_is_known_to_be_gone_only_on_this_host() -> None:
    own = replica_name()
    host = socket.gethostname()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(30)

    assert replica_name() != own
    assert not replica_may_live(own)
    assert not replica_may_live(f"{host}/{ended.pid}/x")
    assert replica_may_live(f"{host}/{os.getppid()}/x")
    assert replica_may_live("another-host/1/x")
    assert replica_may_live("nonsense")
