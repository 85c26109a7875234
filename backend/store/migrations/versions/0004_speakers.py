"""Who speaks in a project's recordings, and whether people see the model's guess."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for column in (
        sa.Column("speaker_key", sa.Text, nullable=False, server_default=""),
        sa.Column("speaker_pattern", sa.Text, nullable=False, server_default=""),
        sa.Column("show_guess", sa.Boolean, nullable=True),
    ):
        op.add_column("after_projects", column)


def downgrade() -> None:
    for name in ("speaker_key", "speaker_pattern", "show_guess"):
        op.drop_column("after_projects", name)
