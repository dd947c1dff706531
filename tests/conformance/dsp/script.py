"""Who plays what in the DSP TCK 1.0.1: its tests, and what the connector under test does in each.

The suite drives one side of every negotiation and transfer. What the other side, ours, does and
when is agreed on beforehand by the dataset or the agreement that a test uses; this is that list,
after the suite's own diagrams and the EDC's fixture for it. Where a state is not named the
connector waits. Data, without any I/O; ``harness`` plays it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Act(Enum):
    """What can be asked of a node; the values are the methods of ``harness.Node``."""

    OFFER = "offer"
    AGREE = "agree"
    ACCEPT = "accept"
    COUNTER = "counter"
    VERIFY = "verify"
    FINALIZE = "finalize"
    TERMINATE = "terminate"
    START_TRANSFER = "start_transfer"
    SUSPEND_TRANSFER = "suspend_transfer"
    COMPLETE_TRANSFER = "complete_transfer"
    TERMINATE_TRANSFER = "terminate_transfer"


@dataclass(frozen=True, slots=True)
class Step:
    """When a process has come to ``state`` for the ``nth`` time, do ``act``."""

    state: str
    act: Act
    nth: int = 1


@dataclass(frozen=True, slots=True)
class Case:
    """A test of the suite; ``subject`` is its dataset or agreement, empty if it has none."""

    id: str
    subject: str


OFFER = Step("REQUESTED", Act.OFFER)
AGREE = Step("REQUESTED", Act.AGREE)
AGREE_ACCEPTED = Step("ACCEPTED", Act.AGREE)
FINALIZE = Step("VERIFIED", Act.FINALIZE)
ACCEPT = Step("OFFERED", Act.ACCEPT)
VERIFY = Step("AGREED", Act.VERIFY)
START = Step("REQUESTED", Act.START_TRANSFER)
SUSPEND = Step("STARTED", Act.SUSPEND_TRANSFER)
RESUME = Step("SUSPENDED", Act.START_TRANSFER)
COMPLETE_AGAIN = Step("STARTED", Act.COMPLETE_TRANSFER, nth=2)


def terminate(state: str, nth: int = 1) -> Step:
    return Step(state, Act.TERMINATE, nth)


def end_transfer(state: str) -> Step:
    return Step(state, Act.TERMINATE_TRANSFER)


NEGOTIATIONS: Mapping[str, tuple[Step, ...]] = {
    # The connector is the provider.
    "ACN0101": (OFFER,),
    "ACN0102": (OFFER, terminate("REQUESTED", nth=2)),  # after a counter-offer
    "ACN0103": (OFFER, AGREE_ACCEPTED, FINALIZE),
    "ACN0104": (AGREE, FINALIZE),
    "ACN0201": (terminate("REQUESTED"),),
    "ACN0202": (),
    "ACN0203": (AGREE,),
    "ACN0204": (OFFER,),
    "ACN0205": (OFFER, terminate("OFFERED")),
    "ACN0206": (OFFER, terminate("ACCEPTED")),
    "ACN0207": (AGREE, terminate("VERIFIED")),
    "ACN0301": (AGREE, FINALIZE),
    "ACN0302": (OFFER,),
    "ACN0303": (OFFER,),
    "ACN0304": (OFFER,),
    # The connector is the consumer.
    "ACNC0101": (ACCEPT, VERIFY),
    "ACNC0102": (Step("OFFERED", Act.COUNTER),),
    "ACNC0103": (terminate("OFFERED"),),
    "ACNC0104": (VERIFY,),
    "ACNC0201": (),
    "ACNC0202": (terminate("REQUESTED"),),
    "ACNC0203": (terminate("AGREED"),),
    "ACNC0204": (),
    "ACNC0205": (ACCEPT,),
    "ACNC0206": (VERIFY,),
    "ACNC0301": (),
    "ACNC0302": (),
    "ACNC0303": (),
    "ACNC0304": (ACCEPT,),
    "ACNC0305": (ACCEPT,),
    "ACNC0306": (ACCEPT,),
}

TRANSFERS: Mapping[str, tuple[Step, ...]] = {
    # The connector is the provider.
    "ATP0101": (START, end_transfer("STARTED")),
    "ATP0102": (START, Step("STARTED", Act.COMPLETE_TRANSFER)),
    "ATP0103": (START, SUSPEND, end_transfer("SUSPENDED")),
    "ATP0104": (START, SUSPEND, RESUME, COMPLETE_AGAIN),
    "ATP0105": (end_transfer("REQUESTED"),),
    "ATP0201": (START,),
    "ATP0202": (START,),
    "ATP0203": (START,),
    "ATP0204": (START,),
    "ATP0205": (),
    "ATP0301": (),
    "ATP0302": (),
    "ATP0303": (START,),
    "ATP0304": (START,),
    "ATP0305": (START,),
    "ATP0306": (START,),
    # The connector is the consumer.
    "ATPC0101": (),
    "ATPC0102": (),
    "ATPC0103": (),
    "ATPC0104": (),
    "ATPC0201": (end_transfer("STARTED"),),
    "ATPC0202": (Step("STARTED", Act.COMPLETE_TRANSFER),),
    "ATPC0203": (SUSPEND, end_transfer("SUSPENDED")),
    "ATPC0204": (SUSPEND, RESUME, COMPLETE_AGAIN),
    "ATPC0205": (end_transfer("REQUESTED"),),
    "ATPC0301": (),
    "ATPC0302": (),
    "ATPC0303": (),
    "ATPC0304": (),
    "ATPC0305": (),
    "ATPC0306": (),
}

SCRIPT: Mapping[str, tuple[Step, ...]] = {**NEGOTIATIONS, **TRANSFERS}

# What the connector has when the suite starts. CAT0103 must not be there.
DATASETS = (*(s for s in NEGOTIATIONS if not s.startswith("ACNC")), "CAT0101", "CAT0102")
PROVIDER_AGREEMENTS = tuple(s for s in TRANSFERS if not s.startswith("ATPC"))
CONSUMER_AGREEMENTS = tuple(s for s in TRANSFERS if s.startswith("ATPC"))


def _case(prefix: str, subject: str) -> Case:
    number = subject[-4:]
    return Case(f"{prefix}:{number[:2]}-{number[2:]}", subject)


CASES: tuple[Case, ...] = (
    Case("MET:01-01", ""),
    *(_case("CAT", subject) for subject in ("CAT0101", "CAT0102", "CAT0103")),
    *(_case("CN_C" if s.startswith("ACNC") else "CN", s) for s in NEGOTIATIONS),
    *(_case("TP_C" if s.startswith("ATPC") else "TP", s) for s in TRANSFERS),
    Case("TP_C:01-05", "ATPC0104"),  # the one agreement that serves two tests
)
DISABLED = ("TP:02-04", "TP_C:02-04")  # in this release of the suite
