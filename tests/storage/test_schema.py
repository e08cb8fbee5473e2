"""`chat2api/storage/schema.py` and the migrations that lead to it."""

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

import chat2api.storage
from chat2api.storage.schema import HEAD, metadata
from chat2api.storage.sqlite import Database, migrate

MIGRATIONS = Path(chat2api.storage.__file__).parent / "migrations"


async def test_the_migrations_build_what_the_code_expects(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "x.db")

    differences = await database.read(lambda db: compare_metadata(MigrationContext.configure(db), metadata))

    assert differences == []
    await database.aclose()


def test_the_newest_migration_is_the_one_that_the_code_expects() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_the_last_use_of_keys_begins_with_the_days_of_their_usage(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        for day in ("2026-09", "2026-11-20", "2026-11-21"):
            values = (day, "key_1", "", "m", 1, 1, 1, 0, 1.0, 0)
            connection.exec_driver_sql("INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    migrate(engine)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT key, last_at FROM key_uses").all()
    engine.dispose()
    assert [tuple(row) for row in found] == [("key_1", datetime(2026, 11, 21, tzinfo=UTC).timestamp())]


def test_the_tables_can_be_made_on_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped

    statements = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables]

    assert len(statements) == 18
    assert not [text for text in statements if "AUTOINCREMENT" in text or "BLOB" in text]
