"""What the verifier says: numbered steps, each passed or failed with everything it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One step of docs/evidence.md, section 5.

    ``failures`` say what is wrong, each naming its receipt; the step is ``ok`` without any.
    ``warnings`` are what a person should look at and what proves nothing.
    """

    number: int
    title: str
    ok: bool
    detail: str
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``assurance`` says what the file shows and what it cannot; ``totals`` are by party
    (``provider``, ``consumer``), as ``connector.verifier.totals`` counts them."""

    valid: bool
    steps: tuple[Step, ...]
    agreement: str
    provider: str
    consumer: str
    exporter: str
    assurance: tuple[str, ...]
    totals: Mapping[str, Mapping[str, int]]

    def as_json(self) -> dict[str, Any]:
        return {
            "valid": self.valid,
            "agreement": self.agreement,
            "provider": self.provider,
            "consumer": self.consumer,
            "exporter": self.exporter,
            "steps": [
                {
                    "number": step.number,
                    "title": step.title,
                    "ok": step.ok,
                    "detail": step.detail,
                    "failures": list(step.failures),
                    "warnings": list(step.warnings),
                }
                for step in self.steps
            ],
            "assurance": list(self.assurance),
            "totals": {party: dict(amounts) for party, amounts in self.totals.items()},
        }


@dataclass(slots=True)
class Check:
    """A step under way: collects what is found, then becomes a ``Step``."""

    number: int
    title: str
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def fail(self, message: str) -> None:
        self.failures.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def done(self, detail: str) -> Step:
        return Step(
            self.number,
            self.title,
            not self.failures,
            detail,
            tuple(self.failures),
            tuple(self.warnings),
        )
