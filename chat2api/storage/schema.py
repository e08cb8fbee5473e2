"""The tables as the code of this release sees them; the migrations build them step by step.

Only types and constraints that PostgreSQL has too. Instants are Unix seconds.
"""

import sqlalchemy as sa

HEAD = "0011"
"""The migration that makes these tables; a test compares it with the newest one in `migrations/versions`."""

metadata = sa.MetaData()

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False, unique=True),
    sa.Column("label", sa.String(16), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(200)),
    sa.Column("state_at", sa.Double, nullable=False),
    sa.Column("plan", sa.String(64)),
    sa.Column("user_id", sa.String(200)),
    sa.Column("workspace_id", sa.String(200)),
    sa.Column("home_workspace_id", sa.String(200)),
    sa.Column("email", sa.String(200)),
    sa.Column("device_id", sa.String(40), nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("added_at", sa.Double, nullable=False),
    sa.Column("owner", sa.String(64)),
    sa.Column("rotates", sa.Boolean),
    sa.Column("deleted_at", sa.Double),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("note", sa.String(500), nullable=False, server_default=""),
    sa.Column("groups_json", sa.Text, nullable=False, server_default="[]"),
    sa.Column("models_json", sa.Text, nullable=False, server_default="[]"),
    sa.Column("capabilities_json", sa.Text, nullable=False, server_default="[]"),
    sa.Column("facts_at", sa.Double),
    sa.Column("last_used_at", sa.Double),
    sa.Column("last_error", sa.String(64)),
    sa.Column("last_error_at", sa.Double),
    # User and workspace of a living account; NULL on tombstones and where the user is unknown, so it may repeat there.
    sa.Column("merge_key", sa.String(500), unique=True),
    sa.Index("accounts_by_revision", "revision"),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("account_id", sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(16), primary_key=True),  # access, renewable or previous
    sa.Column("key_version", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("stored_at", sa.Double, nullable=False),
    sa.Index("tokens_by_key_version", "key_version"),
)

token_digests = sa.Table(
    "token_digests",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Index("token_digests_by_account", "account_id"),
)

refresh_intents = sa.Table(
    "refresh_intents",
    metadata,
    sa.Column("account_id", sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("token_digest", sa.String(64), nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("replica", sa.String(200), nullable=False),
    sa.Column("retried_at", sa.Double),
)

cooldowns = sa.Table(
    "cooldowns",
    metadata,
    sa.Column("account_id", sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("until_at", sa.Double, nullable=False),
    sa.Column("stated", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String(200), nullable=False),
    sa.Column("strikes", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Index("cooldowns_by_revision", "revision"),
)

conversations = sa.Table(
    "conversations",
    metadata,
    sa.Column("conversation_id", sa.String(200), primary_key=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("last_message_id", sa.String(200)),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Index("conversations_by_owner", "owner", "updated_at"),
    sa.Index("conversations_by_account", "account_id"),
)

conversation_files = sa.Table(
    "conversation_files",
    metadata,
    sa.Column("file", sa.String(200), primary_key=True),
    sa.Column(
        "conversation_id",
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Index("conversation_files_by_conversation", "conversation_id"),
)

keyring = sa.Table(
    "keyring",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

issued_keys = sa.Table(
    "issued_keys",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False, unique=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("note", sa.String(1000), nullable=False),
    sa.Column("shown", sa.String(24), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("previous_digest", sa.String(64), unique=True),
    sa.Column("previous_until_at", sa.Double),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("rotated_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("revoked_at", sa.Double),
    sa.Column("models", sa.Text),  # JSON lists; NULL for all
    sa.Column("accounts", sa.Text),
    sa.Column("groups", sa.Text),
    sa.Column("requests_per_minute", sa.BigInteger),
    sa.Column("tokens_per_minute", sa.BigInteger),
    sa.Column("requests_at_once", sa.BigInteger),
    sa.Column("requests_per_day", sa.BigInteger),
    sa.Column("tokens_per_day", sa.BigInteger),
    sa.Column("requests_total", sa.BigInteger),
    sa.Column("tokens_total", sa.BigInteger),
    sa.Column("tier", sa.String(32)),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Index("issued_keys_by_revision", "revision"),
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("key", sa.String(40), primary_key=True),
    sa.Column("account", sa.String(16), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("images", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("errors", sa.BigInteger, nullable=False),
    sa.Index("usage_by_key", "key", "day"),
)

key_uses = sa.Table(
    "key_uses",
    metadata,
    sa.Column("key", sa.String(40), primary_key=True),  # as in the usage
    sa.Column("last_at", sa.Double, nullable=False),
)

sign_ins = sa.Table(
    "sign_ins",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("proof", sa.String(64), nullable=False),
    sa.Column("key_id", sa.String(40)),
    sa.Column("began_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double, nullable=False),
)

api_objects = sa.Table(
    "api_objects",
    metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("key", sa.String(32), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index("api_objects_by_owner", "owner", "kind", "created_at"),
)

api_key_rests = sa.Table(
    "api_key_rests",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("until_at", sa.Double),
    sa.Column("stated", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("strikes", sa.Integer, nullable=False),
)

actions = sa.Table(
    "actions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("what", sa.String(200), nullable=False),
    sa.Column("target", sa.String(200), nullable=False),
    sa.Index("actions_by_time", "at"),
)

local_users = sa.Table(
    "local_users",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),  # folded: one user is not spelt in two ways
    sa.Column("shown_name", sa.String(64), nullable=False),
    sa.Column("password", sa.String(200), nullable=False),  # a slow digest with its terms
    sa.Column("key_id", sa.String(40), nullable=False, unique=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("changed_at", sa.Double, nullable=False),
)

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("tier", sa.String(32), nullable=False),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("key_seconds", sa.Double),
    sa.Column("used_at", sa.Double),
    sa.Column("revoked_at", sa.Double),
    sa.Column("key_id", sa.String(40)),
)
