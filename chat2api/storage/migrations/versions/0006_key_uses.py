"""When each key was used last; of the uses so far only the day is known."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table, with the beginning of the last day of which there is usage."""
    uses = op.create_table(
        "key_uses",
        sa.Column("key", sa.String(40), primary_key=True),
        sa.Column("last_at", sa.Double, nullable=False),
    )
    days = op.get_bind().execute(sa.text("SELECT key, max(day) FROM usage WHERE length(day) = 10 GROUP BY key"))
    for key, day in days.all():
        begun_at = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
        op.execute(uses.insert().values(key=key, last_at=begun_at))
