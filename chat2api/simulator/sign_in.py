"""The sign-in server: OAuth refresh with its ways of rotating, and the web's cookie exchange."""

from urllib.parse import parse_qsl

from chat2api.simulator.accounts import IOS_CLIENT, AccountBook, Grant
from chat2api.simulator.refusals import named_answer, refuse, refuse_text
from chat2api.simulator.routes import Call, Route, route
from chat2api.simulator.wire import Answer, Headers, Object, Request, json_answer

_COOKIE = "__Secure-next-auth.session-token"
_COOKIE_RULES = "Path=/; Secure; HttpOnly; SameSite=Lax; Expires=Fri, 20 Nov 2099 00:00:00 GMT"


class SignIn:
    """Exchanges refresh tokens and cookies for access tokens."""

    def __init__(self, book: AccountBook) -> None:
        """Serve the accounts of the book."""
        self._book = book

    def routes(self) -> list[Route]:
        """Give the operations."""
        return [
            route("oauth_token", "POST", "/oauth/token", self.refresh, "open"),
            route("session", "GET", "/api/auth/session", self.session, "open"),
        ]

    def refresh(self, call: Call) -> Answer:
        """Exchange a refresh token, sent as JSON or as a form."""
        fields = _read_fields(call.request)
        if fields.get("grant_type") != "refresh_token":
            return named_answer("unsupported_grant_type")
        known = self._book.refresh_tokens.get(fields.get("refresh_token", ""))
        if known is None:
            return named_answer("invalid_grant")
        grant = known.grant
        if fields.get("client_id") != grant.client_id:
            return named_answer("access_denied")
        if grant.revoked:
            return named_answer("refresh_token_invalidated")
        mode = call.options.rotation
        if known.replaced_at is not None and mode != "none":
            if mode == "strict" or call.now > known.replaced_at + call.options.rotation_overlap:
                # Someone holds an old token: the whole sign-in ends, whoever it was.
                grant.revoked = True
                return named_answer("refresh_token_reused")
        elif mode != "none":
            self._book.replace_refresh_token(grant, call.now)
        return json_answer(self._token_answer(grant, call), headers=(("cache-control", "no-store"),))

    def _token_answer(self, grant: Grant, call: Call) -> Object:
        lifetime = call.options.access_token_lifetime
        token = self._book.make_access_token(grant, call.now, lifetime=lifetime)
        answer: Object = {
            "access_token": token,
            "id_token": token,
            "expires_in": int(lifetime),
            "scope": "openid profile email offline_access",
            "token_type": "Bearer",
        }
        if call.options.rotation != "none":
            answer["refresh_token"] = grant.refresh_token
        elif grant.client_id != IOS_CLIENT:
            answer["refresh_token"] = grant.refresh_token  # the old phone sign-in left it out instead
        return answer

    def session(self, call: Call) -> Answer:
        """Exchange the login cookie, whole or in parts; the answer brings the next cookie and ends this one."""
        grant = self._book.session_cookies.pop(_read_cookie(call.request), None)
        if grant is None or grant.revoked:
            return json_answer({"WARNING_BANNER": "Do not share this page's content."} if grant is None else {})
        account = grant.account
        cookie = self._book.make_session_cookie(grant)
        answer: Object = {
            "user": {
                "id": account.user_id,
                "name": account.name,
                "email": account.email,
                "image": None,
                "picture": None,
                "idp": "auth0",
                "iat": int(call.now),
                "mfa": False,
                "groups": [],
            },
            "expires": "2099-11-20T00:00:00.000Z",
            "account": {"id": account.workspaces[0].account_id, "planType": account.plan},
            "accessToken": self._book.make_access_token(grant, call.now, lifetime=call.options.access_token_lifetime),
            "authProvider": "openai",
            "sessionToken": cookie,
        }
        return json_answer(answer, headers=_set_cookie(cookie, call.options.session_cookie_limit))


def _read_fields(request: Request) -> dict[str, str]:
    kind = (request.header("content-type") or "").partition(";")[0].strip()
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_qsl(request.body.decode(errors="replace"), keep_blank_values=True))
    if kind != "application/json":
        raise refuse_text(415, "Unsupported media type")
    try:
        parsed = request.json()
    except ValueError as error:
        raise refuse("bad_request") from error
    if not isinstance(parsed, dict):
        raise refuse("bad_request")
    return {name: value for name, value in parsed.items() if isinstance(value, str)}


def _read_cookie(request: Request) -> str:
    cookies = request.cookies
    if _COOKIE in cookies:
        return cookies[_COOKIE]
    parts: list[str] = []
    while (part := cookies.get(f"{_COOKIE}.{len(parts)}")) is not None:
        parts.append(part)
    return "".join(parts)


def _set_cookie(value: str, limit: int) -> Headers:
    if len(value) <= limit:
        return (("set-cookie", f"{_COOKIE}={value}; {_COOKIE_RULES}"),)
    parts = [value[start : start + limit] for start in range(0, len(value), limit)]
    return tuple(("set-cookie", f"{_COOKIE}.{number}={part}; {_COOKIE_RULES}") for number, part in enumerate(parts))
