"""The tier that an issued key belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; the keys that exist belong to none."""
    op.add_column("issued_keys", sa.Column("tier", sa.String(32)))
