"""What the operator notes of an account, what the backend tells of it, and how it fared last."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; known accounts begin with none of it."""
    op.add_column("accounts", sa.Column("note", sa.String(500), nullable=False, server_default=""))
    for name in ("groups_json", "models_json", "capabilities_json"):
        op.add_column("accounts", sa.Column(name, sa.Text, nullable=False, server_default="[]"))
    op.add_column("accounts", sa.Column("facts_at", sa.Double))
    op.add_column("accounts", sa.Column("last_used_at", sa.Double))
    op.add_column("accounts", sa.Column("last_error", sa.String(64)))
    op.add_column("accounts", sa.Column("last_error_at", sa.Double))
