"""What Alembic runs: the migrations, on the connection that is handed over, in the transaction that it is in."""

from alembic import context

from chat2api.storage.schema import metadata

connection = context.config.attributes["connection"]
# SQLite can roll back a change of tables; Alembic does not count on that unless told.
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
