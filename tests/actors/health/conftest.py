"""The database of the chores' tests: they run business functions without an actor."""

from tests.db.conftest import database as database
