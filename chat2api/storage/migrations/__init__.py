"""The steps that build and change the database, one revision a file, run by Alembic when the records are opened."""
