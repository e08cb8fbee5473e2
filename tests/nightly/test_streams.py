"""A thousand streams open at the same moment: all right, and how much memory and how many descriptors each takes."""

import time
from pathlib import Path

import pytest

from benchmarks.lab import Lab
from benchmarks.processes import ALL_CORES, loading
from tests.nightly.conftest import Note

pytestmark = pytest.mark.nightly

STREAMS = 1000
KEPT = STREAMS // 10
"""Descriptors of connections that are kept for the next requests."""

KIBIBYTE = 1024


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tls", [False, True], ids=["HTTP/1.1", "HTTP/2 over TLS"])
def test_F11_T7_a_thousand_live_streams_cost_what_they_may_and_give_it_back(
    tmp_path: Path, tls: bool, note: Note
) -> None:
    lab = Lab(tmp_path)
    with lab.backend(tls=tls, accounts=8, events=5) as backend, lab.server("chat2api", backend, ALL_CORES) as server:
        warm = lab.load(lab.plan(server, words=5, at_once=32, answers=64), server)
        assert not warm.result.failed
        memory, descriptors = server.resident_bytes(), server.descriptors()
        backend.choose(events=120, delay=1.0)
        plan = lab.plan(server, words=120, at_once=STREAMS, answers=STREAMS, starting=128, hold=True, limit=240.0)
        with loading(plan, ALL_CORES) as load:
            assert load.wait_open() == STREAMS
            each = (server.resident_bytes() - memory) / STREAMS / KIBIBYTE
            open_each = (server.descriptors() - descriptors) / STREAMS
            load.release()
            assert load.result().held == STREAMS
        backend.choose(events=5, delay=0.0)
        after = lab.load(lab.plan(server, words=5, at_once=32, answers=64), server)
        assert not after.result.failed, "and it serves on"
        give_up_at = time.monotonic() + 20.0
        while (left := server.descriptors() - descriptors) > KEPT and time.monotonic() < give_up_at:
            time.sleep(0.1)
    note(f"{each:.0f} KiB and {open_each:.2f} descriptors a stream; {left} descriptors more afterwards")
    assert each <= 256
    assert open_each <= 2.1
    assert left <= KEPT
