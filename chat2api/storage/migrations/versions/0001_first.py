"""The first tables: accounts with their tokens, intents and cooldowns, conversations, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables. Written out, so that later changes of the schema module do not change this step."""
    op.create_table(
        "accounts",
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
        sa.Column("merge_key", sa.String(500), unique=True),
    )
    op.create_index("accounts_by_revision", "accounts", ["revision"])
    op.create_table(
        "tokens",
        sa.Column("account_id", sa.String(40), sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("key_version", sa.Integer, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("stored_at", sa.Double, nullable=False),
    )
    op.create_index("tokens_by_key_version", "tokens", ["key_version"])
    op.create_table(
        "token_digests",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.String(40), sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    op.create_index("token_digests_by_account", "token_digests", ["account_id"])
    op.create_table(
        "refresh_intents",
        sa.Column("account_id", sa.String(40), sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("token_digest", sa.String(64), nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("replica", sa.String(200), nullable=False),
        sa.Column("retried_at", sa.Double),
    )
    op.create_table(
        "cooldowns",
        sa.Column("account_id", sa.String(40), sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("until_at", sa.Double, nullable=False),
        sa.Column("stated", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("strikes", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("cooldowns_by_revision", "cooldowns", ["revision"])
    op.create_table(
        "conversations",
        sa.Column("conversation_id", sa.String(200), primary_key=True),
        sa.Column("account_id", sa.String(40), sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("last_message_id", sa.String(200)),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_index("conversations_by_owner", "conversations", ["owner", "updated_at"])
    op.create_index("conversations_by_account", "conversations", ["account_id"])
    op.create_table(
        "keyring",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "meta",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
