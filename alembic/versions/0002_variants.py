"""Variants: what a search found, and what a run pinned of it.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "searches",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=200), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("found_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_searches")),
    )
    op.create_index("ix_searches_model_digest", "searches", ["model_digest"])
    op.add_column("runs", sa.Column("batch_rows", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("search", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("precision", sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("precision", "search", "batch_rows"):
        op.drop_column("runs", column)
    op.drop_table("searches")
