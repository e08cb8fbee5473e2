"""Everything that can go wrong, as one tree.

Raise the class that says what happened and chain the cause with `from`. A class carries what the OpenAI
error object needs (`status`, `type`, `code`); an instance carries `message`, `param`, `retry_after` and
`final`. Where nobody names a time, the class's `usual_wait` says when another attempt makes sense.
`protocol/openai/errors.py` alone turns an instance into the object that a client sees.

    Chat2APIError
    ├── InvalidRequestError            400  the caller's body or headers are wrong
    │   ├── PayloadTooLargeError       413
    │   └── UnsupportedMediaTypeError  415
    ├── InvalidAPIKeyError             401
    │   └── MissingAPIKeyError         401
    ├── PermissionDeniedError          403
    ├── NotFoundError                  404
    ├── MethodNotAllowedError          405
    ├── MisdirectedRequestError        421
    ├── RateLimitedError               429
    ├── QuotaExceededError             429
    ├── NoAccountError                 503
    ├── AllAccountsCoolingError        429
    ├── LoopDetectedError              508
    ├── DrainingError                  503
    ├── StorageError                   503
    ├── ConfigError                    (the start stops with exit status 2)
    └── UpstreamError                  502
        ├── TransportError             502
        ├── UpstreamTimeoutError       504
        ├── UpstreamServerError        502
        ├── AccountRejectedError       502
        ├── KeyForbiddenError          403
        ├── CallerTokenRejectedError   401
        ├── AnonymousUnavailableError  401
        ├── AccountLimitedError        429
        ├── ChallengedError            403
        │   └── ExitLimitedError       429
        ├── WorkspaceRefusedError      403
        ├── ProofTooHardError          403
        ├── UpstreamRefusedRequestError 400
        │   └── UpstreamNotFoundError  404
        ├── UpstreamProtocolError      502
        ├── RefusedError               400
        └── StreamInterruptedError     502  (mostly inside a stream)
            └── AnswerElsewhereError   502
"""

from typing import ClassVar

QUOTES = " ChatGPT said: "
"""Stands in a message before the backend's own words, which come last."""


class Chat2APIError(Exception):
    """The root. `message` is written for the caller and says what to do next; it never holds a secret.

    As text (`str`, logs, tracebacks) an error is its message without the backend's own words: those may repeat a prompt,
    which is told to the one who wrote it and never logged.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = "internal_error"
    always_final: ClassVar[bool] = False
    usual_wait: ClassVar[float | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        final: bool = False,
    ) -> None:
        """Make an error.

        `param` names the field of the request at fault; `code` replaces the class's own code;
        `retry_after` is in seconds; `final` tells clients not to try again by themselves.
        """
        super().__init__(message.partition(QUOTES)[0])
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after = retry_after if retry_after is not None else self.usual_wait
        self.final = final or self.always_final


class InvalidRequestError(Chat2APIError):
    """The request itself is wrong; sending it again unchanged cannot help."""

    status = 400
    type = "invalid_request_error"
    default_code: ClassVar[str | None] = None
    always_final = True


class PayloadTooLargeError(InvalidRequestError):
    """The body is over the limit of its route."""

    status = 413
    default_code = "payload_too_large"


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body is not of the type that the route takes."""

    status = 415
    default_code = "unsupported_media_type"


class InvalidAPIKeyError(Chat2APIError):
    """No key, an unknown key, or a key of no known form."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"
    always_final = True


class MissingAPIKeyError(InvalidAPIKeyError):
    """No key at all; those who speak the website's language are told another status."""


class PermissionDeniedError(Chat2APIError):
    """The key is good but may not do this."""

    status = 403
    type = "invalid_request_error"
    default_code = "permission_denied"
    always_final = True


class NotFoundError(Chat2APIError):
    """No such route, model, conversation or object, or not the caller's."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"
    always_final = True


class MethodNotAllowedError(Chat2APIError):
    """The route exists but not with this method."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"
    always_final = True


class MisdirectedRequestError(Chat2APIError):
    """The Host header names a host that this server does not answer for."""

    status = 421
    type = "invalid_request_error"
    default_code = "misdirected_request"
    always_final = True


class RateLimitedError(Chat2APIError):
    """The caller's own limit, or a full queue; `retry_after` says when there is room again."""

    status = 429
    type = "requests"
    default_code = "rate_limit_exceeded"


class QuotaExceededError(Chat2APIError):
    """The caller's quota is used up; waiting a moment does not help."""

    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"
    always_final = True


class NoAccountError(Chat2APIError):
    """No account can serve this at all, now or later, until the operator acts."""

    status = 503
    default_code = "no_account"
    always_final = True


class AllAccountsCoolingError(Chat2APIError):
    """Every account that could serve this is waiting; `retry_after` is the soonest end."""

    status = 429
    type = "requests"
    default_code = "rate_limit_exceeded"


class LoopDetectedError(Chat2APIError):
    """The call has passed through this server before: the servers that forward it lead in a circle."""

    status = 508
    default_code = "loop_detected"
    always_final = True


class DrainingError(Chat2APIError):
    """The server is stopping and takes no new work."""

    status = 503
    default_code = "draining"
    usual_wait = 5.0


class StorageError(Chat2APIError):
    """The records or the shared state cannot be read or written."""

    status = 503
    default_code = "storage"
    usual_wait = 5.0


class ConfigError(Chat2APIError):
    """A setting is malformed. `message` names the setting, what was wrong and what is allowed."""

    default_code = "config"


class UpstreamError(Chat2APIError):
    """The backend failed or answered what we cannot use."""

    status = 502
    default_code = "upstream_error"
    where: str = ""
    """The host that failed, for the operator: it is part of the text that is logged and never of `message`."""

    def __str__(self) -> str:
        """Give the text for logs."""
        return f"{super().__str__()} [{self.where}]" if self.where else super().__str__()


class TransportError(UpstreamError):
    """The connection failed: name, connect, TLS, proxy, reset. `phase` says how far it came."""

    default_code = "upstream_transport"

    def __init__(self, message: str, *, phase: str = "connect", request_sent: bool = False) -> None:
        """Make an error; `request_sent` is True when the whole request had left before it failed."""
        super().__init__(message)
        self.phase = phase
        self.request_sent = request_sent


class UpstreamTimeoutError(UpstreamError):
    """The backend was too slow in one phase; `phase` names it."""

    status = 504
    default_code = "upstream_timeout"

    def __init__(self, message: str, *, phase: str) -> None:
        """Make an error; `phase` is connect, headers, first_content, between_events, whole_answer, …"""
        super().__init__(message)
        self.phase = phase


class UpstreamServerError(UpstreamError):
    """The backend answered 5xx. `upstream_status` is that status."""

    default_code = "upstream_server_error"

    def __init__(self, message: str, *, upstream_status: int, retry_after: float | None = None) -> None:
        """Make an error that keeps the backend's own status for the retry table."""
        super().__init__(message, retry_after=retry_after)
        self.upstream_status = upstream_status


class AccountRejectedError(UpstreamError):
    """The backend refused the account's token.

    `reason` is a word for the operator: token_expired (one refresh may help), or one that ends the sign-in:
    token_revoked, account_deactivated, invalid_grant, refresh_token_reused, no_refresh_token.
    """

    default_code = "upstream_account"

    def __init__(self, message: str, *, reason: str) -> None:
        """Make an error; `may_refresh` follows from the reason."""
        super().__init__(message)
        self.reason = reason

    @property
    def may_refresh(self) -> bool:
        """Whether a new access token may mend it."""
        return self.reason == "token_expired"


class KeyForbiddenError(UpstreamError):
    """The API key is good, but its project may not use this model or make this call; another key may."""

    status = 403
    type = "invalid_request_error"
    default_code = "permission_denied"
    always_final = True


class CallerTokenRejectedError(UpstreamError):
    """The backend refused the token that the caller sent as the bearer."""

    status = 401
    type = "invalid_request_error"
    default_code = "caller_token_rejected"
    always_final = True


class AnonymousUnavailableError(UpstreamError):
    """The backend gives no sign-in-free chat to this exit address."""

    status = 401
    type = "invalid_request_error"
    default_code = "anonymous_unavailable"
    always_final = True


class AccountLimitedError(UpstreamError):
    """The backend says that the account has reached a limit for this model.

    `retry_after` is the time that the backend stated, None when it stated none.
    """

    status = 429
    type = "requests"
    default_code = "rate_limit_exceeded"


class ChallengedError(UpstreamError):
    """The backend insists on something that only a person in a browser can do, or distrusts the exit.

    `scope` says what cools down: exit (a page of the network in front), account (a human check), or both.
    """

    status = 403
    default_code = "upstream_challenge"
    always_final = True

    def __init__(self, message: str, *, scope: str = "both") -> None:
        """Make an error; `scope` is exit, account or both."""
        super().__init__(message)
        self.scope = scope


class ExitLimitedError(ChallengedError):
    """The network in front of the backend finds too many requests from this exit; the accounts are not at fault.

    `retry_after` is the time that it stated, None when it stated none.
    """

    status = 429
    type = "requests"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Make an error whose scope is the exit."""
        super().__init__(message, scope="exit")
        self.retry_after = retry_after


class WorkspaceRefusedError(UpstreamError):
    """The backend does not let the account use the workspace that the call named.

    `private` says that the caller brought account and workspace, so that the pool's accounts are not concerned.
    """

    status = 403
    type = "invalid_request_error"
    default_code = "workspace_not_allowed"
    always_final = True

    def __init__(self, message: str, *, private: bool = False) -> None:
        """Make an error that names the header in which callers choose a workspace."""
        super().__init__(message, param="ChatGPT-Account-ID")
        self.private = private


class ProofTooHardError(UpstreamError):
    """The proof of work asked for is above POW_DIFFICULTY, or was not found in time."""

    status = 403
    default_code = "proof_of_work_too_hard"
    always_final = True


class UpstreamRefusedRequestError(UpstreamError):
    """The backend finds the request itself wrong (400, 404, 413, 422); another account would say the same."""

    status = 400
    type = "invalid_request_error"
    default_code = "upstream_invalid_request"
    always_final = True


class UpstreamNotFoundError(UpstreamRefusedRequestError):
    """The backend does not know the conversation, custom GPT or other object, or it is not this account's."""

    status = 404
    default_code = "not_found"


class UpstreamProtocolError(UpstreamError):
    """The backend answered in a shape that we do not understand."""

    default_code = "upstream_protocol"


class RefusedError(UpstreamError):
    """The backend's policy refused the content; trying again cannot help."""

    status = 400
    type = "invalid_request_error"
    default_code = "content_policy_violation"
    always_final = True


class StreamInterruptedError(UpstreamError):
    """The answer ended before its end."""

    default_code = "stream_interrupted"
    always_final = True


class AnswerElsewhereError(StreamInterruptedError):
    """The backend finishes its answer where it is not to be had; no connection and no account is at fault."""
