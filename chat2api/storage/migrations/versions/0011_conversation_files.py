"""Which files of the backend the conversations of callers hold."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "conversation_files",
        sa.Column("file", sa.String(200), primary_key=True),
        sa.Column(
            "conversation_id",
            sa.String(200),
            sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
            primary_key=True,
        ),
    )
    op.create_index("conversation_files_by_conversation", "conversation_files", ["conversation_id"])
