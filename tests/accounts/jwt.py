"""Access tokens with invented content."""

import base64
import json


def part(value: object) -> str:
    """One part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def jwt(claims: object, alg: str = "RS256") -> str:
    """A token with these claims and a signature of nobody."""
    return f"{part({'alg': alg, 'typ': 'JWT', 'kid': 'k'})}.{part(claims)}.{'s' * 43}"


def access_token(
    user: str = "user-1", *, issued_at: float = 1_789_000_000, expires_at: float = 1_791_000_000, serial: int = 0
) -> str:
    """An access token of today's form."""
    auth = {"chatgpt_account_id": "home", "chatgpt_plan_type": "plus", "chatgpt_user_id": user, "user_id": user}
    return jwt(
        {
            "iat": issued_at,
            "exp": expires_at,
            "jti": str(serial),
            "https://api.openai.com/auth": auth,
            "https://api.openai.com/profile": {"email": "someone@example.test"},
        }
    )


SESSION = f"{part({'alg': 'dir', 'enc': 'A256GCM'})}..{'i' * 16}.{'c' * 300}.{'t' * 22}"
"""An encrypted session cookie."""
