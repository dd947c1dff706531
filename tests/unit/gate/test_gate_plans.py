"""What policy is told of a query, and what a plan refuses even if policy does not."""

import pytest

from connector.errors import Refused
from connector.gate.describe import describe
from connector.model.use import ColumnUse, Obligations
from tests.trips import DATASET, GROUPS, ROWS

UNITS_BY_CITY = "SELECT city, count(DISTINCT vehicle) AS n FROM trips GROUP BY city"

# query -> output, and for each column: (places, aggregates)
DESCRIBED: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    UNITS_BY_CITY: (
        "aggregate",
        {"city": ("group select", ""), "vehicle": ("aggregate", "count_distinct")},
    ),
    "SELECT count(*) FROM trips": ("aggregate", {}),
    "select AVG(t.DELAY) from TRIPS as t where T.Month between 6 and 8": (
        "aggregate",
        {"delay": ("aggregate", "avg"), "month": ("filter", "")},
    ),
    'SELECT "Month", sum(delay) - sum(bonus) FROM "Trips" GROUP BY 1 HAVING avg(cost) > 2': (
        "aggregate",
        {
            "month": ("group select", ""),
            "delay": ("aggregate", "sum"),
            "bonus": ("aggregate", "sum"),
            "cost": ("aggregate", "avg"),
        },
    ),
    "SELECT month % 3 AS q, count(*) AS n FROM trips GROUP BY q HAVING q > 1 ORDER BY q, n": (
        "aggregate",
        {"month": ("filter group order select", "")},
    ),
    "SELECT mean(delay), stddev(delay), count(delay) FROM trips": (
        "aggregate",
        {"delay": ("aggregate", "avg count stddev_samp")},
    ),
    "SELECT delay, secret FROM trips ORDER BY cost": (
        "rows",
        {"delay": ("select", ""), "secret": ("select", ""), "cost": ("order", "")},
    ),
    "SELECT vehicle, count(*) FROM trips WHERE vehicle = 'V01' GROUP BY ALL": (
        "aggregate",
        {"vehicle": ("filter group select", "")},
    ),
    "SELECT 1 FROM trips GROUP BY delay": ("aggregate", {"delay": ("group", "")}),
    "SELECT avg(delay) AS delay FROM trips GROUP BY city ORDER BY delay": (
        "aggregate",
        {"delay": ("aggregate", "avg"), "city": ("group", "")},
    ),
}


@pytest.mark.parametrize("query", DESCRIBED)
def test_described(query: str) -> None:
    output, columns = DESCRIBED[query]
    found = describe(query, DATASET).description
    roles = {column.name: column.role.value for column in DATASET.columns}
    assert found.output == output
    assert found.tables == ("trips",)
    assert found.columns == tuple(
        ColumnUse(name, roles[name], tuple(places.split()), tuple(aggregates.split()))
        for name, (places, aggregates) in sorted(columns.items())
    )


def test_star_is_what_is_shown() -> None:
    found = describe("SELECT * FROM trips", DATASET).description
    assert {column.name for column in found.columns} == {
        column.name for column in DATASET.columns if column.role != "hidden"
    }


def test_functions_and_aggregates_are_named() -> None:
    query = "SELECT round(avg(delay), 1), count(DISTINCT vehicle) FROM trips GROUP BY lower(city)"
    found = describe(query, DATASET).description
    assert found.aggregates == ("avg", "count_distinct")
    assert found.functions == ("lower", "round")


# Described, and refused by the plan under a group minimum: query -> terms.
BEYOND_GROUPS: dict[str, set[str]] = {
    "SELECT city FROM trips": {"tds:minimumGroup"},
    "SELECT * FROM trips LIMIT 1": {"tds:minimumGroup", "tds:privacyUnit", "tds:columnRole"},
    "SELECT 1 FROM trips": {"tds:minimumGroup"},
    "SELECT secret FROM trips": {"tds:minimumGroup", "tds:hiddenColumns"},
    "SELECT count(secret) FROM trips": {"tds:hiddenColumns"},
    "SELECT count(*) FROM trips WHERE secret = 'x'": {"tds:hiddenColumns"},
    "SELECT count(*) FROM trips GROUP BY secret": {"tds:hiddenColumns"},
    "SELECT count(*) FROM trips ORDER BY count(SECRET)": {"tds:hiddenColumns"},
    "SELECT vehicle, avg(delay) FROM trips GROUP BY vehicle": {"tds:privacyUnit"},
    "SELECT avg(delay) FROM trips GROUP BY lower(vehicle)": {"tds:privacyUnit"},
    "SELECT avg(delay) FROM trips WHERE vehicle = 'V01'": {"tds:privacyUnit"},
    "SELECT avg(delay) FROM trips WHERE vehicle IN ('V01', 'V02')": {"tds:privacyUnit"},
    "SELECT avg(delay) FROM trips WHERE vehicle IS NULL": {"tds:privacyUnit"},
    "SELECT avg(cost) FROM trips WHERE delay > 900000": {"tds:columnRole"},
    "SELECT avg(cost) FROM trips GROUP BY delay": {"tds:columnRole"},
    "SELECT avg(cost) FROM trips GROUP BY delay > 900000": {"tds:columnRole"},
    "SELECT avg(cost) FROM trips GROUP BY CASE WHEN delay > 9 THEN 1 END": {"tds:columnRole"},
}


@pytest.mark.parametrize("query", BEYOND_GROUPS)
def test_plan_refuses_without_policy(query: str) -> None:
    with pytest.raises(Refused) as refused:
        describe(query, DATASET).program(GROUPS)
    assert {reason.term for reason in refused.value.reasons} == BEYOND_GROUPS[query]


NOT_TO_BE_KEPT: dict[str, Obligations] = {
    "no unit": Obligations(minimum_group=5),
    "another unit": Obligations(minimum_group=5, privacy_unit="city"),
    "a hidden group key": Obligations(hidden_columns=("CITY",)),
    "a hidden unit": Obligations(hidden_columns=("vehicle",)),
}


@pytest.mark.parametrize("name", NOT_TO_BE_KEPT)
def test_obligations_that_cannot_be_kept(name: str) -> None:
    with pytest.raises(Refused):
        describe(UNITS_BY_CITY, DATASET).program(NOT_TO_BE_KEPT[name])


def test_hidden_columns_stay_hidden_in_rows() -> None:
    with pytest.raises(Refused):
        describe("SELECT secret FROM trips", DATASET).program(ROWS)


def test_callers_text_does_not_run() -> None:
    query = (
        "SELECT count(*) AS \"a\"\"; DROP--\" FROM trips WHERE city = 'it''s' -- secret\n/* x */"
    )
    program = describe(query, DATASET).program(GROUPS)
    assert "secret" not in program.core + program.exact + program.final
    assert "--" not in program.core
    assert "'it''s'" in program.core
    assert '"a""; DROP--"' in program.final


def test_large_minimums_are_counted() -> None:
    """Sixty-four bits of a hash cannot prove a thousand units."""
    program = describe(UNITS_BY_CITY, DATASET).program(Obligations(1000, "vehicle"))
    assert program.exact == ""
    assert "bit_" not in program.core
    assert "count(DISTINCT" in program.core
