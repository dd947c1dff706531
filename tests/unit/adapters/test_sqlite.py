"""Writes that share one transaction: each happens on its own, and none is told what is not so."""

import asyncio
import sqlite3
import threading
from contextlib import asynccontextmanager

import pytest

from connector.adapters.sqlite import Sqlite
from connector.errors import Conflict, InternalError, Unavailable


class Connection:
    """The database's connection, that counts commits, and fails as it is told to."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real
        self.commits = 0
        self.failure: Exception | None = None
        self.persists = False

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    def execute(self, statement: str, *parameters):
        if statement == "COMMIT":
            self.commits += 1
            if self.failure is not None:
                if self.persists:
                    self._real.execute(statement)
                raise self.failure
        return self._real.execute(statement, *parameters)


@pytest.fixture
def database(tmp_path):
    sqlite = Sqlite(tmp_path / "test.db", [lambda db: db.table("rows").create({"n": int}, pk="n")])
    sqlite.connection = sqlite._database.conn = Connection(sqlite._database.conn)
    yield sqlite
    sqlite.close()


def put(number: int):
    def change(db):
        db.execute("INSERT INTO rows VALUES (?)", [number])
        return number * 10

    return change


def refused(db):
    db.execute("INSERT INTO rows VALUES (99)")
    raise Conflict("somebody else was first")


def disk_full(db):
    """As SQLite does it: the whole transaction is gone."""
    db.conn.execute("ROLLBACK")
    raise sqlite3.OperationalError("database or disk is full")


async def numbers(database) -> list[int]:
    rows = await database.read(lambda db: list(db.query("SELECT n FROM rows ORDER BY n")))
    return [row["n"] for row in rows]


@asynccontextmanager
async def busy(database):
    """The thread has something to do; what is written meanwhile gathers."""
    begun, free = threading.Event(), threading.Event()

    def work(_):
        begun.set()
        free.wait(10)

    working = asyncio.create_task(database.read(work))
    await asyncio.to_thread(begun.wait, 10)
    try:
        yield
    finally:
        await asyncio.sleep(0)  # the writes are in line
        free.set()
        await working


async def together(database, *changes):
    async with busy(database):
        writing = [asyncio.create_task(database.write(change)) for change in changes]
        await asyncio.sleep(0)
    return await asyncio.gather(*writing, return_exceptions=True)


async def test_writes_that_wait_share_one_commit(database):
    assert await together(database, *(put(n) for n in range(20))) == [n * 10 for n in range(20)]
    assert database.connection.commits == 1
    assert await numbers(database) == list(range(20))
    assert await database.write(put(20)) == 200
    assert database.connection.commits == 2


async def test_one_that_fails_takes_no_other_with_it(database):
    await database.write(put(2))
    answers = await together(database, put(1), refused, put(2), put(3))
    assert (answers[0], answers[3]) == (10, 30)
    assert isinstance(answers[1], Conflict)
    assert isinstance(answers[2], sqlite3.IntegrityError)
    assert await numbers(database) == [1, 2, 3]


async def test_one_alone_that_fails_leaves_nothing(database):
    with pytest.raises(Conflict):
        await database.write(refused)
    assert await numbers(database) == []


@pytest.mark.parametrize("persists", [False, True])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_commit_that_fails_is_said_to_all(database, count, persists):
    """Also where it was persisted anyway: nobody can know, so nobody is told that it was."""
    database.connection.failure = sqlite3.OperationalError("disk I/O error")
    database.connection.persists = persists
    answers = await together(database, *(put(n) for n in range(count)))
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert await numbers(database) == (list(range(count)) if persists else [])
    database.connection.failure = None
    assert await database.write(put(7)) == 70


async def test_a_transaction_that_sqlite_gave_up_is_nobodys(database):
    answers = await together(database, put(1), disk_full, put(2))
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert await numbers(database) == []
    assert await database.write(put(3)) == 30


async def test_a_damaged_file_is_said_to_all(database):
    database.connection.failure = sqlite3.DatabaseError("database disk image is malformed")
    answers = await together(database, put(1), put(2))
    assert all(isinstance(answer, InternalError) for answer in answers)


async def test_one_whose_caller_left_before_its_turn_does_not_happen(database):
    async with busy(database):
        first, second = (asyncio.create_task(database.write(put(n))) for n in (1, 2))
        await asyncio.sleep(0)
        first.cancel()
    assert await second == 20
    assert await numbers(database) == [2]


async def test_a_read_sees_what_was_written_before(database):
    for number in range(50):
        await database.write(put(number))
        assert (await numbers(database))[-1] == number
