import pytest
from curl_cffi import CurlECode

from chat2api.errors import TransportError, UpstreamTimeoutError
from chat2api.upstream.failures import CurlCode, Progress, describe_failure, proxy_refused, timed_out

NOTHING = Progress(head=False, started=False, sent=False, tunnel=False, proxy=None)
STARTED = Progress(head=False, started=True, sent=False, tunnel=False, proxy=None)
SENT = Progress(head=False, started=True, sent=True, tunnel=False, proxy=None)
ANSWERED = Progress(head=True, started=True, sent=True, tunnel=False, proxy=None)
PROXY = "http://user:hunter2@proxy.test"
BY_PROXY = Progress(head=False, started=False, sent=False, tunnel=False, proxy=PROXY)
TO_TLS_PROXY = Progress(head=False, started=False, sent=False, tunnel=False, proxy="https://proxy.test")
THROUGH_TLS_PROXY = Progress(head=False, started=True, sent=False, tunnel=True, proxy="https://proxy.test")


def test_the_codes_are_those_of_the_library() -> None:
    assert {code.name: int(code) for code in CurlCode} == {code.name: int(CurlECode[code.name]) for code in CurlCode}


@pytest.mark.parametrize(
    ("code", "progress", "phase", "sent"),
    [
        (CurlCode.COULDNT_RESOLVE_HOST, NOTHING, "resolve", False),
        (CurlCode.COULDNT_RESOLVE_PROXY, BY_PROXY, "proxy", False),
        (CurlCode.COULDNT_CONNECT, NOTHING, "connect", False),
        (CurlCode.COULDNT_CONNECT, BY_PROXY, "proxy", False),
        (CurlCode.PROXY, BY_PROXY, "proxy", False),
        (CurlCode.SSL_CONNECT_ERROR, NOTHING, "tls", False),
        (CurlCode.PEER_FAILED_VERIFICATION, BY_PROXY, "tls", False),
        (CurlCode.PEER_FAILED_VERIFICATION, TO_TLS_PROXY, "proxy", False),
        (CurlCode.PEER_FAILED_VERIFICATION, THROUGH_TLS_PROXY, "tls", False),
        (CurlECode.RECV_ERROR, NOTHING, "connect", False),
        (CurlECode.SEND_ERROR, STARTED, "send", False),
        (CurlECode.GOT_NOTHING, SENT, "headers", True),
        (CurlECode.RECV_ERROR, ANSWERED, "body", True),
        (CurlECode.PARTIAL_FILE, ANSWERED, "body", True),
    ],
)
def test_a_failure_says_how_far_the_request_came(code: int, progress: Progress, phase: str, sent: bool) -> None:
    failure = describe_failure(code, "host.test", progress)
    assert isinstance(failure, TransportError)
    assert (failure.phase, failure.request_sent) == (phase, sent)
    assert f"(curl {int(code)})" in str(failure)
    assert ("host.test" in str(failure), "hunter2" in str(failure)) == (True, False)
    assert "host.test" not in failure.message, "a caller is not told where we go"


@pytest.mark.parametrize(
    ("progress", "phase"), [(NOTHING, "connect"), (BY_PROXY, "connect"), (SENT, "headers"), (ANSWERED, "body")]
)
def test_R1_a_timeout_of_curls_is_a_timeout_of_ours(progress: Progress, phase: str) -> None:
    failure = describe_failure(CurlCode.OPERATION_TIMEDOUT, "host.test", progress)
    assert isinstance(failure, UpstreamTimeoutError)
    assert failure.phase == phase


def test_T1_limits_and_refusals_name_the_host_in_logs_only() -> None:
    assert [timed_out(phase, "host.test").phase for phase in ("connect", "whole")] == ["connect", "whole"]
    for failure in (timed_out("whole", "host.test"), proxy_refused("host.test")):
        assert "host.test" in str(failure)
        assert "host.test" not in failure.message
    assert proxy_refused("host.test").phase == "proxy"
