"""What an owner may publish, and what is said of what cannot be read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from connector.adapters.duckdb import sources
from connector.adapters.duckdb.sources import BadSource


def inspect(source: Path, csv_null: str = "") -> dict[str, Any]:
    return sources.inspect(source, csv_null, memory_mb=256, threads=1)


def prepare(
    source: Path, columns: list[str], csv_null: str = "", unit: str = ""
) -> list[dict[str, Any]]:
    target = source.parent / "prepared.duckdb"
    rows = sources.prepare(source, columns, "t", target, csv_null, unit, memory_mb=256, threads=1)
    with duckdb.connect(str(target), read_only=True) as connection:
        found = connection.table("t").to_arrow_table().to_pylist()
    assert rows == len(found)
    target.unlink()
    return found


def parquet(path: Path, select: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path


CSV = "city,delay,day\nA,1,2013-01-01\nB,NA,2013-01-02\n,,\n"


def test_csv(tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    source.write_text(CSV)
    columns = [["city", "VARCHAR"], ["delay", "BIGINT"], ["day", "DATE"]]
    assert inspect(source, "NA") == {"columns": columns, "rows": 3}
    assert [row["delay"] for row in prepare(source, ["delay"], "NA")] == [1, None, None]


def test_csv_null_is_a_text_without_being_named(tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    source.write_text(CSV)
    assert inspect(source)["columns"][1] == ["delay", "VARCHAR"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_dialects(tmp_path: Path, separator: str) -> None:
    source = tmp_path / "x.csv"
    lines = [["a", "b"], ['"it, ""is"""', "1"], ["# not a comment", "2"]]
    source.write_text("\n".join(separator.join(line) for line in lines))
    found = prepare(source, ["a", "b"])
    assert found == [{"a": 'it, "is"', "b": 1}, {"a": "# not a comment", "b": 2}]


def test_types_are_those_of_the_whole_file(tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    source.write_text("a\n" + "1\n" * 100_000 + "x\n")
    assert inspect(source)["columns"] == [["a", "VARCHAR"]]
    assert len(prepare(source, ["a"])) == 100_001


def test_gzip(tmp_path: Path) -> None:
    source = tmp_path / "x.csv.gz"
    source.write_bytes(gzip.compress(CSV.encode()))
    assert inspect(source, "NA")["rows"] == 3


def test_folders(tmp_path: Path) -> None:
    parquet(tmp_path / "p" / "1.parquet", "SELECT 1 AS a, 'x' AS b")
    parquet(tmp_path / "p" / "more" / "2.parquet", "SELECT 2 AS a, 'y' AS b")
    (tmp_path / "p" / "_SUCCESS").write_text("")
    (tmp_path / "p" / ".hidden.parquet").write_text("")
    assert inspect(tmp_path / "p")["rows"] == 2
    assert [row["a"] for row in prepare(tmp_path / "p", ["a"])] == [1, 2]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "c" / "2.csv").write_text("a,b\nx,3\n")
    assert inspect(tmp_path / "c")["columns"] == [["a", "VARCHAR"], ["b", "BIGINT"]]


def test_partitioned_folders(tmp_path: Path) -> None:
    for year in (2013, 2014):
        parquet(tmp_path / "p" / f"year={year}" / "1.parquet", f"SELECT {year} - 2000 AS a")
    assert inspect(tmp_path / "p")["columns"] == [["a", "INTEGER"], ["year", "BIGINT"]]
    found = prepare(tmp_path / "p", ["a", "year"])
    assert found == [{"a": 13, "year": 2013}, {"a": 14, "year": 2014}]


# DuckDB's expression -> the type it is stored as, and as what.
STORED = {
    "1 :: TINYINT": ("TINYINT", 1),
    "1.5 :: FLOAT": ("FLOAT", 1.5),
    "'x' :: ENUM('x', 'y')": ("VARCHAR", "x"),
    "'6ba7b810-9dad-11d1-80b4-00c04fd430c8' :: UUID": (
        "VARCHAR",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    ),
    "TIME '05:00:00'": ("VARCHAR", "05:00:00"),
    "'2013-01-01 05:00:00+08' :: TIMESTAMPTZ": ("TIMESTAMP", "2012-12-31 21:00:00"),
    "'2013-01-01 05:00:00' :: TIMESTAMP_NS": ("TIMESTAMP", "2013-01-01 05:00:00"),
}


@pytest.mark.parametrize("written", STORED)
def test_types(tmp_path: Path, written: str) -> None:
    kind, value = STORED[written]
    source = parquet(tmp_path / "x.parquet", f"SELECT {written} AS a")
    assert inspect(source)["columns"] == [["a", kind]]
    (row,) = prepare(source, ["a"])
    assert str(row["a"]) == str(value)


NOT_QUERIED = {
    "[1, 2]": "LIST",
    "{'a': 1}": "STRUCT",
    "MAP {'a': 1}": "MAP",
    "'x' :: BLOB": "BLOB",
    "INTERVAL 1 DAY": "INTERVAL",
}


@pytest.mark.parametrize("written", NOT_QUERIED)
def test_types_that_are_not_queried(tmp_path: Path, written: str) -> None:
    """They are seen, may be hidden, and are refused where they are chosen."""
    source = parquet(tmp_path / "x.parquet", f"SELECT 1 AS a, {written} AS b")
    assert inspect(source)["columns"][1] == ["b", NOT_QUERIED[written]]
    assert prepare(source, ["a"]) == [{"a": 1}]
    with pytest.raises(BadSource, match=r"column b: .* cannot be queried"):
        prepare(source, ["a", "b"])


def test_the_units_bit(tmp_path: Path) -> None:
    """The same for the same unit, one of 64, and none where there is no unit."""
    select = "SELECT CASE WHEN range % 10 > 0 THEN range % 7 END AS u FROM range(100)"
    found = prepare(parquet(tmp_path / "x.parquet", select), ["u"], unit="u")
    bits = {(row["u"], row["__unit_bit"]) for row in found}
    assert len(bits) == 8
    assert (None, None) in bits
    assert all(bit.bit_count() == 1 for _, bit in bits if bit is not None)


def _nothing(folder: Path) -> Path:
    return folder / "gone.csv"


def _empty_folder(folder: Path) -> Path:
    (folder / "notes.txt").write_text("x")
    return folder


def _other(folder: Path) -> Path:
    (folder / "x.xlsx").write_text("x")
    return folder / "x.xlsx"


def _mixed(folder: Path) -> Path:
    (folder / "x.csv").write_text("a\n1\n")
    parquet(folder / "x.parquet", "SELECT 1 AS a")
    return folder


def _two_schemas(folder: Path) -> Path:
    parquet(folder / "1.parquet", "SELECT 1 AS a")
    parquet(folder / "2.parquet", "SELECT 'x' AS a")
    return folder


def _two_headers(folder: Path) -> Path:
    (folder / "1.csv").write_text("a,b\n1,2\n")
    (folder / "2.csv").write_text("a,c\n1,2\n")
    return folder


def _no_parquet(folder: Path) -> Path:
    (folder / "x.parquet").write_bytes(b"PAR1 secret value 12345 PAR1")
    return folder / "x.parquet"


def _empty(folder: Path) -> Path:
    (folder / "x.parquet").write_bytes(b"")
    return folder / "x.parquet"


def _ragged(folder: Path) -> Path:
    (folder / "x.csv").write_text("a,b\n" + "1,2\n" * 30_000 + "secret,value,12345\n")
    return folder / "x.csv"


def _glob(folder: Path) -> Path:
    (folder / "x*.csv").write_text("a\n1\n")
    return folder / "x*.csv"


def _reserved(folder: Path) -> Path:
    (folder / "x.csv").write_text("a,__Unit_Bit\n1,2\n")
    return folder / "x.csv"


def _not_utf8(folder: Path) -> Path:
    (folder / "x.csv").write_bytes(b"a,b\nsecret \xff\xfe,12345\n")
    return folder / "x.csv"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (_nothing, "there is no such file or folder"),
    "empty folder": (_empty_folder, "the folder holds no .parquet or .csv file"),
    "another format": (_other, "not a .parquet or .csv file"),
    "mixed formats": (_mixed, "CSV and Parquet are mixed"),
    "mixed schemas": (_two_schemas, "the files of the folder have different columns"),
    "mixed headers": (_two_headers, "the files of the folder have different columns"),
    "not Parquet": (_no_parquet, "cannot be read"),
    "empty file": (_empty, "cannot be read"),
    "ragged": (_ragged, "cannot be read"),
    "glob": (_glob, "name has one of"),
    "reserved": (_reserved, "may not be called"),
    "not UTF-8": (_not_utf8, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_sources(tmp_path: Path, name: str) -> None:
    make, text = BAD[name]
    with pytest.raises(BadSource, match=text) as bad:
        inspect(make(tmp_path))
    assert str(tmp_path) not in str(bad.value)
    assert "secret" not in str(bad.value)
    assert "12345" not in str(bad.value)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    source = parquet(tmp_path / "x.parquet", "SELECT 1 AS a")
    with pytest.raises(BadSource, match="not in the source"):
        prepare(source, ["b"])
    with pytest.raises(BadSource, match="privacy unit"):
        prepare(source, ["a"], unit="b")
