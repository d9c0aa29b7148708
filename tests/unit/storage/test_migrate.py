from __future__ import annotations

from pathlib import Path

import pytest

from storage.migrate import FOLDER, Applied, Migration, SchemaError, check, compare, read


def migration(number: int, *, oldest_code: int = 1) -> Migration:
    return Migration(number, f"m{number}", oldest_code, f"sum{number}", "SELECT 1")


def record(of: Migration) -> Applied:
    return Applied(of.name, of.checksum, of.oldest_code)


def test_the_migrations_of_this_version_are_well_formed() -> None:
    migrations = read(FOLDER)

    assert [one.number for one in migrations] == list(range(1, len(migrations) + 1))
    assert all(one.oldest_code <= one.number for one in migrations)


def test_what_is_not_recorded_is_pending() -> None:
    known = [migration(1), migration(2), migration(3)]

    assert compare(known, {1: record(known[0])}) == known[1:]
    assert list(compare(known, {one.number: record(one) for one in known})) == []


def test_a_newer_schema_that_allows_this_code_is_fine() -> None:
    known = [migration(1)]
    applied = {1: record(known[0]), 2: record(migration(2, oldest_code=1))}

    assert list(compare(known, applied)) == []


def test_code_too_old_for_the_schema_is_refused() -> None:
    known = [migration(1)]
    applied = {1: record(known[0]), 2: record(migration(2, oldest_code=2))}

    with pytest.raises(SchemaError, match="knows migrations up to 1, the schema needs 2"):
        compare(known, applied)


def test_a_migration_changed_after_it_was_applied_is_refused() -> None:
    with pytest.raises(SchemaError, match="0001_m1 was changed"):
        compare([migration(1)], {1: Applied("m1", "another sum", 1)})


def test_a_gap_in_the_record_is_refused() -> None:
    known = [migration(1), migration(2)]

    with pytest.raises(SchemaError, match="gap"):
        compare(known, {2: record(known[1])})


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["0001_a.sql", "0003_c.sql"], "0002 is missing"),
        (["0001_a.sql", "0001_b.sql"], "there twice"),
        (["0000_a.sql"], "0001 is missing"),
        (["1_a.sql"], "1_a.sql: want"),
        (["0001_A.sql"], "0001_A.sql: want"),
    ],
)
def test_a_gap_a_duplicate_or_a_bad_name_is_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        (tmp_path / name).write_text("-- oldest-code: 1\nSELECT 1;")

    with pytest.raises(SchemaError, match=complaint):
        read(tmp_path)


def test_a_migration_must_say_which_code_may_run_on_it(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1;")

    with pytest.raises(SchemaError, match="oldest-code"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [("PGPORT", "abc", ".*'abc'"), ("PGSSLMODE", "on", ".*sslmode.*")],
)
async def test_a_variable_that_asyncpg_cannot_read_is_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SchemaError, match=f"^The database's URL, or PGPORT or its like, cannot be used: {reason}"):
        await check("postgresql://orderwire@127.0.0.1/orderwire")
