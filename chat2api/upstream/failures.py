"""curl's result codes as errors of ours. Messages name no host; `where` does, for logs, but no proxy, path or query."""

from dataclasses import dataclass
from enum import IntEnum

from chat2api.errors import TransportError, UpstreamError, UpstreamTimeoutError


class CurlCode(IntEnum):
    """The result codes that are told apart, with the numbers of libcurl's interface (libcurl-errors(3))."""

    COULDNT_RESOLVE_PROXY = 5
    COULDNT_RESOLVE_HOST = 6
    COULDNT_CONNECT = 7
    OPERATION_TIMEDOUT = 28
    SSL_CONNECT_ERROR = 35
    SSL_CERTPROBLEM = 58
    SSL_CIPHER = 59
    PEER_FAILED_VERIFICATION = 60
    SSL_CACERT_BADFILE = 77
    SSL_ISSUER_ERROR = 83
    SSL_PINNEDPUBKEYNOTMATCH = 90
    SSL_INVALIDCERTSTATUS = 91
    PROXY = 97


_CONNECT_CODES = frozenset({CurlCode.COULDNT_RESOLVE_PROXY, CurlCode.COULDNT_CONNECT, CurlCode.PROXY})
_TLS_CODES = frozenset(code for code in CurlCode if "SSL" in code.name) | {CurlCode.PEER_FAILED_VERIFICATION}
_TIMEOUT_TEXTS = {
    "connect": "The connection to the backend was not made in time.",
    "headers": "The backend took the request but did not begin to answer in time.",
    "body": "The backend fell silent in the middle of its answer.",
    "whole": "The backend's answer was not complete in time.",
}
_FAILURE_TEXTS = {
    "resolve": "The backend's name could not be resolved",
    "connect": "The connection to the backend failed",
    "tls": "No trusted TLS connection to the backend could be made",
    "proxy": "The account's proxy did not connect to the backend",
    "send": "The connection to the backend broke before the request was sent",
    "headers": "The connection to the backend broke before its answer began",
    "body": "The backend's answer broke off",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer had come when it failed.

    `head` is whether the answer's head was complete; `started` whether any byte of the request left, `sent` whether
    its last one did, as far as our side can know; `tunnel` whether a proxy had opened the way to the host.
    """

    head: bool
    started: bool
    sent: bool
    tunnel: bool
    proxy: str | None


def describe_failure(code: int, host: str, progress: Progress) -> UpstreamError:
    """Give the error for curl's result code. curl's own text is left out: it may name the proxy or the whole URL."""
    phase = _phase(code, progress)
    if code == CurlCode.OPERATION_TIMEDOUT:
        return timed_out(phase if phase in ("headers", "body") else "connect", host)
    sent = phase in ("headers", "body") and progress.sent
    error = TransportError(f"{_FAILURE_TEXTS[phase]} (curl {code}).", phase=phase, request_sent=sent)
    error.where = host
    return error


def timed_out(phase: str, host: str) -> UpstreamTimeoutError:
    """Give the error for a limit that ran out; `phase` is connect, headers, body or whole."""
    error = UpstreamTimeoutError(_TIMEOUT_TEXTS[phase], phase=phase)
    error.where = host
    return error


def proxy_refused(host: str) -> TransportError:
    """Give the error for a proxy's own answer in place of the host's."""
    error = TransportError(f"{_FAILURE_TEXTS['proxy']}.", phase="proxy")
    error.where = host
    return error


def _phase(code: int, progress: Progress) -> str:
    """Name how far the request came. The failed connection's own codes go first, the rest by what was sent."""
    if progress.head:
        return "body"
    proxy = progress.proxy
    if code in _TLS_CODES:
        return "tls" if proxy is None or not proxy.startswith("https:") or progress.tunnel else "proxy"
    if code == CurlCode.COULDNT_RESOLVE_HOST:
        return "resolve"
    if code in _CONNECT_CODES or not progress.started:
        return "connect" if proxy is None else "proxy"
    return "headers" if progress.sent else "send"
