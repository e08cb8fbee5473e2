"""`chat2api/storage/schema.py` and the migrations that lead to it."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

import chat2api.storage
from chat2api.storage.schema import HEAD, metadata
from chat2api.storage.sqlite import Database

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


def test_the_tables_can_be_made_on_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped

    statements = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables]

    assert len(statements) == 12
    assert not [text for text in statements if "AUTOINCREMENT" in text or "BLOB" in text]
