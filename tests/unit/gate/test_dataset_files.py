"""Files of whole datasets: the owner's bytes or an export, under a name that says what they are."""

import hashlib
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from connector.adapters.dataset_files import LocalDatasetFiles
from connector.adapters.duckdb import sources
from connector.errors import InvalidInput
from connector.ports.datasets import PublishedDataset
from tests.pulls import DATASET

DATABASE = f"{7:032x}.duckdb"
PUBLISHED = PublishedDataset(DATASET, "", DATABASE, 3, False, False)


async def no_export(database, table, columns, target) -> None:
    raise AssertionError("there is a file")


@pytest.fixture
def files(tmp_path: Path) -> LocalDatasetFiles:
    return LocalDatasetFiles(tmp_path / "files", tmp_path / "gate", no_export)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("rows.csv", "text/csv"),
        ("ROWS.CSV", "text/csv"),
        ("rows.2026.tsv", "text/tab-separated-values"),
        ("rows.csv.gz", "application/gzip"),
        ("rows.parquet", "application/vnd.apache.parquet"),
        ("rows.pq", "application/vnd.apache.parquet"),
    ],
)
async def test_the_owners_file(files, tmp_path: Path, name: str, media_type: str) -> None:
    source = tmp_path / name
    content = b"\0\xff" * 1_000_000
    source.write_bytes(content)
    kept = await files.keep(source, DATABASE, await files.stamp(source))
    found = await files.of(PUBLISHED)
    assert found.path == kept
    assert found.path.read_bytes() == content
    assert found.path.stat().st_mode & 0o777 == 0o600
    assert found.etag == f'"{hashlib.sha256(content).hexdigest()}"'
    assert (found.size, found.media_type) == (len(content), media_type)
    assert found.name.startswith("trips.")
    source.write_bytes(b"changed")
    again = LocalDatasetFiles(tmp_path / "files", tmp_path / "gate", no_export)
    assert await again.of(PUBLISHED) == found
    await again.drop(DATABASE)
    await again.drop(DATABASE)
    assert list((tmp_path / "files").iterdir()) == []


async def test_what_is_not_one_file_is_not_kept(files, tmp_path: Path) -> None:
    folder = tmp_path / "many.csv"
    folder.mkdir()
    assert await files.keep(folder, DATABASE, await files.stamp(folder)) is None
    other = tmp_path / "rows.txt"
    other.write_text("x")
    assert await files.keep(other, DATABASE, await files.stamp(other)) is None


async def test_a_file_that_changes_meanwhile_is_not_what_was_looked_at(files, tmp_path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("a\n1\n")
    stamp = await files.stamp(source)
    source.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInput, match="changed"):
        await files.keep(source, DATABASE, stamp)
    assert list((tmp_path / "files").iterdir()) == []


def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / ".half.unfinished").mkdir(parents=True)
    (folder / ".half.unfinished" / "rows.parquet").write_text("x")
    (folder / ".half.csv").write_text("x")
    LocalDatasetFiles(folder, tmp_path / "gate", no_export)
    assert list(folder.iterdir()) == []


def test_an_export_has_the_columns_it_was_asked_for(tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "rows.duckdb") as made:
        made.execute(
            """CREATE TABLE trips AS SELECT 'Wu"hai' AS "ci""ty", 7 AS n, 1 AS __unit_bit"""
        )
    sources.export(
        tmp_path / "rows.duckdb",
        "trips",
        ['ci"ty', "n"],
        tmp_path / "rows'.parquet",
        memory_mb=256,
        threads=1,
    )
    table = pq.read_table(tmp_path / "rows'.parquet")
    assert table.to_pydict() == {'ci"ty': ['Wu"hai'], "n": [7]}
