"""Reading what an owner publishes: Parquet and CSV files, and folders of one of them.

``inspect`` says what is there; ``prepare`` copies the chosen columns into one DuckDB file, which
queries read ever after. Files are hostile as SQL is: this runs in a worker too, and what it says
of a failure is its own text, for DuckDB's repeats values.

Types that queries can use are kept; some are stored as their nearest kin (an ENUM or UUID as
VARCHAR, a time with a zone as its UTC TIMESTAMP); lists, structs, maps and blobs are not copied.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from connector.ports.query import UNIT_BIT

MAX_FILES = 10_000
_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_KEPT = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "VARCHAR"}
    | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "BOOLEAN", "DATE", "TIMESTAMP"}
)
_DECIMAL = re.compile(r"DECIMAL\(\d+,\d+\)", re.ASCII)
_STORED = {
    "ENUM": "VARCHAR",
    "UUID": "VARCHAR",
    "TIME": "VARCHAR",
    "UHUGEINT": "DOUBLE",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
}


class BadSource(Exception):
    """The source is not what it should be. The text is ours and holds no value and no path."""


def inspect(source: Path, csv_null: str, *, memory_mb: int, threads: int) -> dict[str, Any]:
    """``{"columns": [[name, type] ...], "rows": n}``. Raises ``BadSource``."""
    with _connect(":memory:", memory_mb, threads) as connection:
        reader = _reader(connection, source, csv_null)
        try:
            columns = _columns(connection, reader)
            rows = connection.execute(f"SELECT count(*) FROM {reader}").fetchall()[0][0]  # noqa: S608
        except duckdb.Error as error:
            raise _unreadable(error) from error
    return {"columns": [[name, _stored(kind)] for name, kind in columns], "rows": rows}


def prepare(
    source: Path,
    columns: Sequence[str],
    table: str,
    target: Path,
    csv_null: str,
    privacy_unit: str,
    *,
    memory_mb: int,
    threads: int,
) -> int:
    """Copy ``columns`` into ``table`` of the new file ``target``; rows. Raises ``BadSource``.

    On return the file is on stable storage; who called renames it to where it belongs.
    """
    os.umask(0o077)
    with _connect(str(target), memory_mb, threads) as connection:
        reader = _reader(connection, source, csv_null)
        try:
            kinds = dict(_columns(connection, reader))
            select = [_selected(name, kinds) for name in columns]
            if privacy_unit:
                select.append(_unit_bit(privacy_unit, columns, kinds))
            connection.execute(
                f"CREATE TABLE {_name(table)} AS SELECT {', '.join(select)} FROM {reader}"  # noqa: S608
            )
            rows = connection.table(_name(table)).count("*").fetchall()[0][0]
            connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise _unreadable(error) from error
    _sync(target)
    return int(rows)


def export(
    database: Path,
    table: str,
    columns: Sequence[str],
    target: Path,
    *,
    memory_mb: int,
    threads: int,
) -> None:
    """Write ``columns`` of a prepared ``table`` to the new Parquet file ``target``, which is on
    stable storage on return. Raises DuckDB's errors."""
    os.umask(0o077)
    listed = ", ".join(_name(column) for column in columns)
    with _connect(str(database), memory_mb, threads, read_only=True) as connection:
        connection.execute(
            f"COPY (SELECT {listed} FROM {_name(table)})"  # noqa: S608
            f" TO {_text(str(target))} (FORMAT parquet, COMPRESSION zstd)"
        )
    _sync(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(
    path: str, memory_mb: int, threads: int, *, read_only: bool = False
) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        path,
        read_only=read_only,
        config={
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "allow_community_extensions": "false",
            "temp_directory": "",
            "memory_limit": f"{memory_mb}MiB",
            "threads": threads,
        },
    )
    connection.execute("SET TimeZone='UTC'")
    connection.execute("SET python_enable_replacements=false")
    return connection


def _reader(connection: duckdb.DuckDBPyConnection, source: Path, csv_null: str) -> str:
    """The SQL that reads the source, after a look at each of its files."""
    files, is_csv = _files(source)
    partitions = f"hive_partitioning={'true' if _partitioned(source, files) else 'false'}"
    try:
        if is_csv:
            dialects = {_dialect(connection, file) for file in files}
            if len(dialects) > 1:
                raise BadSource("the CSV files of the folder are separated in different ways")
            options = f"{_csv_options(csv_null, *dialects.pop())}, {partitions}"
            readers = [f"read_csv([{_text(file)}], sample_size=1000, {options})" for file in files]
        else:
            readers = [f"read_parquet([{_text(file)}], {partitions})" for file in files]
        first, *others = (_columns(connection, reader) for reader in readers)
    except duckdb.Error as error:
        raise _unreadable(error) from error
    for columns in others:
        same = [n for n, _ in columns] == [n for n, _ in first] if is_csv else columns == first
        if not same:
            raise BadSource("the files of the folder have different columns")
    if UNIT_BIT in (name.lower() for name, _ in first):
        raise BadSource(f"a column may not be called {UNIT_BIT}")
    listed = ", ".join(_text(file) for file in files)
    # Types are what the whole files say, not their first rows.
    return (
        f"read_csv([{listed}], sample_size=-1, union_by_name=true, {options})"
        if is_csv
        else f"read_parquet([{listed}], {partitions})"
    )


def _partitioned(source: Path, files: Sequence[str]) -> bool:
    """Whether folders named ``column=value`` within the source hold each file's last columns."""
    folders = [Path(file).relative_to(source).parent.parts for file in files]
    inside = all(parts and all("=" in part for part in parts) for parts in folders)
    return inside and not any("=" in part for part in source.parts)


def _dialect(connection: duckdb.DuckDBPyConnection, file: str) -> tuple[str, str, str]:
    """What separates a CSV file's values, quotes them and escapes a quote. Found once, from the
    file's beginning: to guess it again on the whole file takes longer than to read it."""
    found = connection.execute(
        "SELECT Delimiter, Quote, Escape FROM sniff_csv(?, header=true)", [file]
    ).fetchall()
    separator, quote, escape = (str(value) for value in found[0])
    quote = quote if len(quote) == 1 else '"'
    return separator, quote, escape if len(escape) == 1 else quote


def _csv_options(csv_null: str, separator: str, quote: str, escape: str) -> str:
    nulls = ", ".join(_text(null) for null in dict.fromkeys([csv_null, ""]))
    return (
        f"header=true, nullstr=[{nulls}], delim={_text(separator)}, quote={_text(quote)},"
        f" escape={_text(escape)}, comment=''"
    )


def _files(source: Path) -> tuple[list[str], bool]:
    """The source's files in their order, and whether they are CSV."""
    try:
        folder, file = source.is_dir(), source.is_file()
    except OSError as error:  # a name that no file can have
        raise BadSource("there can be no such file or folder") from error
    if folder:
        found = sorted(path for path in source.rglob("*") if _is_data(path))
        if not found:
            raise BadSource("the folder holds no .parquet or .csv file")
    elif file:
        found = [source]
    else:
        raise BadSource("there is no such file or folder")
    if len(found) > MAX_FILES:
        raise BadSource(f"the folder holds more than {MAX_FILES} files")
    names = [str(path) for path in found]
    csv = [name.lower().endswith(_CSV) for name in names]
    if not all(csv) and not all(name.lower().endswith(_PARQUET) for name in names):
        mixed = len(names) > 1
        raise BadSource("CSV and Parquet are mixed" if mixed else "not a .parquet or .csv file")
    if any(char in name for name in names for char in "*?[]{}"):
        raise BadSource("a file's or folder's name has one of * ? [ ] { } in it")
    return names, all(csv)


def _is_data(path: Path) -> bool:
    return (
        path.is_file()
        and not path.name.startswith((".", "_"))
        and path.name.lower().endswith(_CSV + _PARQUET)
    )


def _columns(connection: duckdb.DuckDBPyConnection, reader: str) -> list[tuple[str, str]]:
    described = connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()  # noqa: S608
    return [(row[0], row[1]) for row in described]


def _stored(kind: str) -> str:
    """The type that a column is stored as, or the family of one that is not copied."""
    if kind in _KEPT or _DECIMAL.fullmatch(kind):
        return kind
    if kind.endswith("]"):
        return "LIST"
    family = kind.partition("(")[0].strip()
    return _STORED.get(family, family[:64])


def _selected(name: str, kinds: dict[str, str]) -> str:
    if name not in kinds:
        raise BadSource("a column that was chosen is not in the source")
    stored = _stored(kinds[name])
    if stored not in _KEPT and not _DECIMAL.fullmatch(stored):
        raise BadSource(f"column {name}: {stored} cannot be queried; hide it")
    if stored == kinds[name]:
        return _name(name)
    return f"CAST({_name(name)} AS {stored}) AS {_name(name)}"


def _unit_bit(unit: str, columns: Sequence[str], kinds: dict[str, str]) -> str:
    if unit not in columns:
        raise BadSource("the privacy unit is not among the columns")
    value = f"CAST({_name(unit)} AS {_stored(kinds[unit])})"
    bit = f"CAST(1 AS UBIGINT) << CAST(hash({value}) % 64 AS UBIGINT)"
    return f"CASE WHEN {_name(unit)} IS NOT NULL THEN {bit} END AS {_name(UNIT_BIT)}"


def _unreadable(error: duckdb.Error) -> BadSource:
    """Our own words for DuckDB's, with no more of them than the number of a line."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return BadSource("the source needs more memory than a worker has")
    line = re.search(r"\bline:? (\d{1,18})\b", str(error), re.ASCII | re.IGNORECASE)
    where = f" (line {line[1]})" if line else ""
    return BadSource(f"the source cannot be read as what its name says{where}")


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
