"""Migrations run inside the caller's transaction, or on the ledger of the environment."""

from alembic import context
from scoring.ledger.database import Database
from scoring.ledger.tables import metadata
from scoring.settings import Settings


def migrate(connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with Database(Settings().database_url).transaction() as own:
        migrate(own)
