"""The SQL of the story. ``flights`` has a row for each departure; ``tailnum`` is the aircraft."""

from __future__ import annotations

BY_CARRIER = (
    "SELECT carrier, count(*) AS flights, avg(dep_delay) AS mean_delay_minutes "
    "FROM flights GROUP BY carrier ORDER BY flights DESC"
)
TOURISM = (
    ("How busy is each airline, and how late?", BY_CARRIER),
    (
        "When do people fly to Orlando?",
        "SELECT month, origin, count(*) AS flights, avg(arr_delay) AS mean_delay_minutes "
        "FROM flights WHERE dest = 'MCO' GROUP BY month, origin ORDER BY month, origin",
    ),
    (
        "Where do people fly?",
        "SELECT dest, count(*) AS flights FROM flights GROUP BY dest ORDER BY flights DESC",
    ),
)
TINY = "SELECT count(*) AS flights FROM flights"

# What is asked, the SQL, the purpose, and the terms of which one must be named.
REFUSALS = (
    (
        "raw rows",
        "SELECT carrier, dest, dep_delay FROM flights",
        "tourism-planning",
        ("tds:output",),
    ),
    (
        "a hidden column",
        "SELECT flight, count(*) AS times FROM flights GROUP BY flight",
        "tourism-planning",
        ("tds:hiddenColumns",),
    ),
    (
        "an individual as group key",
        "SELECT tailnum, count(*) AS times FROM flights GROUP BY tailnum",
        "tourism-planning",
        ("tds:privacyUnit",),
    ),
    ("another purpose", TINY, "insurance-pricing", ("purpose",)),
)

# Allowed, and slow: long texts are made and compared again and again, for every row.
_LONG = "x" * 1000
_SLOW = " AND ".join(f"upper(dest || carrier || '{_LONG}') <> '{n}'" for n in range(25))
SLOW = f"SELECT month, count(*) AS flights FROM flights WHERE {_SLOW} GROUP BY month"  # noqa: S608
SLOW_SHOWN = "SELECT month, count(*) AS flights FROM flights WHERE upper(dest || carrier || ..."
