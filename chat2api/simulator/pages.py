"""What the web app asks for around a chat: the home page, models, the user, the accounts, limits; and speech."""

import io
import wave

from chat2api.simulator.accounts import AccountBook, Workspace
from chat2api.simulator.history import History
from chat2api.simulator.refusals import refuse_text
from chat2api.simulator.routes import API, BASE, Call, Route, route
from chat2api.simulator.wire import JSON, Answer, Object, html_answer, json_answer

BUILD = "prod-5b1f0c3a9d7e42618cf04b7a6de1930258ac47ef"
_SCRIPTS = ("manifest-1a2b3c4d.js", "root-5e6f7a8b.js", "conversation-9c0d1e2f.js")
_MODELS = {
    "free": ("auto", "gpt-5-5-instant", "gpt-4o-mini"),
    "paid": ("auto", "gpt-5-6", "gpt-5-6-thinking", "gpt-5-5-instant", "gpt-4o", "gpt-4o-mini", "o3", "o4-mini"),
}


class Pages:
    """Answers about things that turns do not change."""

    def __init__(self, book: AccountBook, history: History) -> None:
        """Answer from these parts."""
        self._book = book
        self._history = history

    def routes(self) -> list[Route]:
        """Give the operations."""
        return [
            route("home", "GET", "/", self.home, "open"),
            route("models", "GET", BASE + "/models", self.models, "anybody"),
            route("me", "GET", API + "/me", self.me),
            route("accounts_check", "GET", API + "/accounts/check/v4-2023-04-27", self.accounts_check),
            route("conversation_init", "POST", BASE + "/conversation/init", self.conversation_init, "anybody"),
            route("synthesize", "GET", API + "/synthesize", self.synthesize),
            route("transcribe", "POST", API + "/transcribe", self.transcribe),
        ]

    def home(self, call: Call) -> Answer:
        """Answer the page with the scripts and the build."""
        origin = call.request.origin
        scripts = "".join(f'<script type="module" src="{origin}/assets/{name}"></script>' for name in _SCRIPTS)
        page = (
            f'<!DOCTYPE html><html data-build="{BUILD}" data-seq="7823760" lang="en-US"><head>'
            f"<title>ChatGPT</title>{scripts}</head><body></body></html>"
        )
        device = f"oai-did={self._book.random_uuid('device')}; Path=/; Secure"
        return html_answer(page, headers=(("set-cookie", device),))

    def models(self, call: Call) -> Answer:
        """Answer the models of the caller's plan."""
        workspace = call.caller.workspace
        paid = workspace is not None and workspace.paid
        slugs = _MODELS["paid" if paid else "free"]
        models: list[JSON] = [_model(slug) for slug in slugs]
        level = workspace.plan if workspace is not None else "free"
        category: Object = {
            "category": "default",
            "human_category_name": "Auto",
            "subscription_level": level,
            "default_model": "auto",
        }
        return json_answer({"models": models, "categories": [category]})

    def me(self, call: Call) -> Answer:
        """Answer who is signed in."""
        account = call.caller.account
        assert account is not None  # the route is for accounts only
        organisation: Object = {
            "object": "organization",
            "id": "org-1",
            "title": "Personal",
            "personal": True,
            "is_default": True,
            "role": "owner",
        }
        return json_answer(
            {
                "object": "user",
                "id": account.user_id,
                "email": account.email,
                "name": account.name,
                "picture": None,
                "created": int(account.created_at),
                "phone_number": None,
                "mfa_flag_enabled": False,
                "amr": [],
                "groups": [],
                "orgs": {"object": "list", "data": [organisation]},
            }
        )

    def accounts_check(self, call: Call) -> Answer:
        """Answer all workspaces of the user."""
        account = call.caller.account
        assert account is not None  # the route is for accounts only
        entries: Object = {w.account_id: _entry(account.user_id, w) for w in account.workspaces}
        ordering: list[JSON] = list(entries)
        entries["default"] = entries[account.workspaces[0].account_id]
        return json_answer({"accounts": entries, "account_ordering": ordering})

    def conversation_init(self, call: Call) -> Answer:
        """Answer defaults and what is left of the limits."""
        workspace = call.caller.workspace
        left = 2 if workspace is None or not workspace.paid else 180
        progress: list[JSON] = [
            {"feature_name": "image_gen", "remaining": left, "reset_after": "2099-08-22T10:00:00+00:00"},
            {"feature_name": "deep_research", "remaining": 5, "reset_after": "2099-09-01T00:00:00+00:00"},
        ]
        return json_answer(
            {
                "type": "conversation_detail_metadata",
                "banner_info": None,
                "blocked_features": [],
                "model_limits": [],
                "limits_progress": progress,
                "default_model_slug": "auto",
                "atlas_mode_enabled": None,
            }
        )

    def synthesize(self, call: Call) -> Answer:
        """Answer sound: half a second of silence for each message that exists."""
        query = call.request.query
        conversation = self._history.find(call, query.get("conversation_id", ""), stored=True)
        if query.get("message_id") not in conversation.nodes:
            raise refuse_text(404, "Message not found")
        kinds = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac"}
        kind = kinds.get(query.get("format", "aac"))
        if kind is None:
            raise refuse_text(400, "Unsupported format")
        return Answer(200, _silence(), (("content-type", kind),))

    def transcribe(self, call: Call) -> Answer:
        """Answer a fixed text for any sound that was sent."""
        if not (call.request.header("content-type") or "").startswith("multipart/form-data"):
            raise refuse_text(422, "Field required: file")
        if b'name="file"' not in call.request.body:
            raise refuse_text(422, "Field required: file")
        return json_answer({"text": "This is what was said."})


def _silence() -> bytes:
    """Half a second of silence. Always a WAV inside: nobody here decodes it."""
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(bytes(8_000))
    return target.getvalue()


def _model(slug: str) -> Object:
    attachments: Object = {
        "type": "retrieval",
        "accepted_mime_types": ["application/pdf", "text/plain"],
        "image_mime_types": ["image/png", "image/jpeg", "image/webp", "image/gif"],
        "can_accept_all_mime_types": True,
    }
    return {
        "slug": slug,
        "max_tokens": 8192,
        "title": slug.upper(),
        "description": "A simulated model",
        "tags": [slug.replace("-", "")],
        "capabilities": {},
        "product_features": {"attachments": attachments},
        "enabled_tools": ["tools", "tools2"],
    }


def _entry(user_id: str, workspace: Workspace) -> Object:
    paid = workspace.paid
    entitlement: Object = {
        "subscription_id": "sub-1" if paid else None,
        "has_active_subscription": paid,
        "subscription_plan": f"chatgpt{workspace.plan}plan" if paid else "chatgptfreeplan",
        "expires_at": "2099-12-01T00:00:00+00:00" if paid else None,
    }
    return {
        "account": {
            "account_id": workspace.account_id,
            "account_user_id": f"{user_id}__{workspace.account_id}",
            "account_user_role": "account-owner",
            "plan_type": workspace.plan,
            "structure": workspace.structure,
            "name": workspace.name,
            "is_deactivated": workspace.deactivated,
        },
        "features": ["image_gen"],
        "entitlement": entitlement,
        "last_active_subscription": {"purchase_origin_platform": "chatgpt_web", "will_renew": paid},
    }
