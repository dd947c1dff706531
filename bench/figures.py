"""What was measured, and ``bench/results/latest.json``: one list, a figure for each name.

A figure is an object with ``name``, ``value``, ``unit``, ``baseline_name``, ``baseline`` and
``ratio`` (value by baseline; null where nothing is a fair baseline), and how far it spread: ``n``,
``min``, ``median``, ``max``. The baseline is always of the same run on the same machine.

``python -m bench.figures FILE`` takes a pytest-benchmark report up into the list and prints it.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LATEST = Path(__file__).parent / "results" / "latest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    name: str
    value: float
    unit: str
    baseline_name: str = ""
    baseline: float | None = None
    ratio: float | None = None
    n: int = 1
    min: float | None = None
    median: float | None = None
    max: float | None = None


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; ``share`` from 0 to 1."""
    return sorted(samples)[max(math.ceil(share * len(samples)) - 1, 0)]


def figure(
    name: str,
    unit: str,
    samples: Sequence[float],
    *,
    value: float | None = None,
    baseline: tuple[str, float] | None = None,
) -> Figure:
    """A figure of its samples; ``value`` is their median unless it is given."""
    shown = statistics.median(samples) if value is None else value
    known, against = baseline or ("", None)
    return Figure(
        name=name,
        value=_short(shown),
        unit=unit,
        baseline_name=known,
        baseline=_short(against) if against is not None else None,
        ratio=_short(shown / against) if against else None,
        n=len(samples),
        min=_short(min(samples)),
        median=_short(statistics.median(samples)),
        max=_short(max(samples)),
    )


def save(found: Iterable[Figure], path: Path = LATEST) -> list[dict[str, Any]]:
    """Put the figures into the list, over earlier ones of the same names; the whole list."""
    kept = {each["name"]: each for each in json.loads(path.read_text())} if path.exists() else {}
    kept |= {each.name: asdict(each) for each in found}
    listed = sorted(kept.values(), key=lambda each: str(each["name"]))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(listed, indent=1) + "\n")
    return listed


def table(listed: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'figure':<44} {'value':>10} {'unit':<6} {'n':>6} {'ratio':>9}  baseline"]
    for each in listed:
        ratio = "" if each["ratio"] is None else f"{each['ratio']:.4g}"
        against = "" if each["baseline"] is None else f"{each['baseline']:.4g} "
        lines.append(
            f"{each['name']:<44} {each['value']:>10.4g} {each['unit']:<6} {each['n']:>6} "
            f"{ratio:>9}  {against}{each['baseline_name']}"
        )
    return "\n".join(lines)


def from_benchmarks(report: Path) -> list[Figure]:
    """Figures of a pytest-benchmark report: the median of its rounds.

    What a test puts into ``extra_info`` says more: ``size`` receipts in one round, which makes the
    figure a rate; ``baseline``, another test of the report; ``plain_ms``, what plain DuckDB took.
    """
    found = {each["name"]: each for each in json.loads(report.read_text())["benchmarks"]}
    return [_from_benchmark(each, found) for each in found.values()]


def _from_benchmark(each: dict[str, Any], found: dict[str, dict[str, Any]]) -> Figure:
    stats, more = each["stats"], each["extra_info"]
    size = more.get("size")

    def shown(seconds: float) -> float:
        return _short(size / seconds if size else seconds * 1000)

    name = more.get("baseline", "")
    against = shown(found[name]["stats"]["median"]) if name in found else None
    if "plain_ms" in more:
        name, against = "the same SQL in plain DuckDB", more["plain_ms"]
    value = shown(stats["median"])
    low, high = sorted((shown(stats["min"]), shown(stats["max"])))
    return Figure(
        name=each["name"].removeprefix("test_") + ("_per_s" if size else "_ms"),
        value=value,
        unit="1/s" if size else "ms",
        baseline_name=name.removeprefix("test_"),
        baseline=against,
        ratio=_short(value / against) if against else None,
        n=stats["rounds"],
        min=low,
        median=value,
        max=high,
    )


def _short(number: float) -> float:
    return float(f"{number:.4g}")


if __name__ == "__main__":
    print(table(save(from_benchmarks(Path(sys.argv[1])))))
