"""Counting the rows of a peer's result without unpacking it."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from connector.errors import PeerFault
from connector.operations.arrow import rows_of


def stream(table: pa.Table, *, batch: int = 1000, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table, max_chunksize=batch)
    return sink.getvalue().to_pybytes()


TABLE = pa.table(
    {
        "text": pa.array(["a", "b", None] * 700).dictionary_encode(),
        "number": list(range(2100)),
    }
)


@pytest.mark.parametrize("batch", [1, 700, 5000])
def test_rows_are_those_that_arrow_reads(batch: int) -> None:
    data = stream(TABLE, batch=batch)
    assert rows_of(data) == pa.ipc.open_stream(data).read_all().num_rows == 2100


def test_no_rows() -> None:
    assert rows_of(stream(TABLE.slice(0, 0))) == 0
    assert rows_of(b"") == 0


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_what_could_unpack_to_any_size_is_refused(codec: str) -> None:
    with pytest.raises(PeerFault):
        rows_of(stream(TABLE, compression=codec))


def test_damage_never_escapes() -> None:
    data = stream(TABLE)
    dice = random.Random(7)
    for _ in range(2000):
        damaged = bytearray(data[: dice.randrange(1, len(data))])
        for _ in range(dice.randrange(1, 6)):
            damaged[dice.randrange(min(len(damaged), 1200))] = dice.randrange(256)
        try:
            assert rows_of(bytes(damaged)) >= 0
        except PeerFault:
            continue
