"""Faults: chained events, deaths of attempts, replays, callers, versions known from before.

Revision: 0004, after 0003. Events that are there already are chained in their order.
"""

import hashlib
import json

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"

GENESIS = "0" * 64


def upgrade() -> None:
    op.add_column("runs", sa.Column("replay_of", sa.String(length=160), nullable=True))
    op.add_column("runs", sa.Column("resolution", sa.String(length=20), nullable=True))
    op.create_index("ix_runs_replay_of", "runs", ["replay_of"])
    with op.batch_alter_table("chunks") as chunks:
        chunks.add_column(sa.Column("deaths", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("chunks") as chunks:
        chunks.alter_column("deaths", server_default=None)
    op.create_table(
        "callers",
        sa.Column("caller", sa.String(length=200), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("filled_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("caller", name=op.f("pk_callers")),
    )
    op.create_table(
        "event_chain",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_chain")),
    )
    op.add_column("events", sa.Column("position", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("hash", sa.String(length=64), nullable=True))
    _chain_events()
    with op.batch_alter_table("events") as events:
        events.alter_column("position", existing_type=sa.BigInteger(), nullable=False)
        events.alter_column("hash", existing_type=sa.String(length=64), nullable=False)
    op.create_index("uq_events_position", "events", ["position"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_events_position", table_name="events")
    for column in ("hash", "position"):
        op.drop_column("events", column)
    op.drop_table("event_chain")
    op.drop_table("callers")
    op.drop_column("chunks", "deaths")
    op.drop_index("ix_runs_replay_of", table_name="runs")
    for column in ("resolution", "replay_of"):
        op.drop_column("runs", column)


def _chain_events() -> None:
    connection = op.get_bind()
    told = sa.text("SELECT id, run_id, at, event, detail FROM events ORDER BY id")
    chained = sa.text("UPDATE events SET position = :position, hash = :hash WHERE id = :id")
    length, last = 0, GENESIS
    for row in connection.execute(told).all():
        length += 1
        text = json.dumps(
            [length, row.run_id, row.at, row.event, row.detail], separators=(",", ":")
        )
        last = hashlib.sha256(f"{last}\n{text}".encode()).hexdigest()
        connection.execute(chained, {"position": length, "hash": last, "id": row.id})
    end = sa.text("INSERT INTO event_chain (id, length, hash) VALUES (1, :length, :hash)")
    connection.execute(end, {"length": length, "hash": last})
