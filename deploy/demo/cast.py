"""Who plays in the story, and what they come to hold on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from connector.adapters.clock import SystemClock
from deploy.demo.auditor import Auditor
from deploy.demo.space import Organisation
from deploy.demo.tell import Teller

CLOCK = SystemClock()
USES = 20  # that the offer allows
GROUP = 10  # aircraft that each group must have


@dataclass(slots=True)
class Cast:
    """The participants; from step 3 on also the ids of the dataset and of three agreements:
    ``agreement`` as offered, ``short`` after a counter-offer (it ends soon, at ``short_until``),
    ``third`` as offered (its provider ends it)."""

    tell: Teller
    work: Path
    csv: Path
    auditor: Auditor
    space: Organisation = field(init=False)
    airport: Organisation = field(init=False)
    tourism: Organisation = field(init=False)
    stranger: Organisation = field(init=False)
    dataset: str = ""
    agreement: str = ""
    short: str = ""
    third: str = ""
    short_until: datetime = field(default_factory=CLOCK.now)

    def __post_init__(self) -> None:
        self.space = self._organisation("space", "Qilu Data Space", directory=True)
        self.airport = self._organisation("airport", "New York Airport Operator")
        self.tourism = self._organisation("tourism", "Tourism Bureau")
        self.stranger = self._organisation("stranger", "Somebody Else")

    @property
    def everybody(self) -> tuple[Organisation, ...]:
        """In the order in which they are stopped: the directory last."""
        return self.stranger, self.tourism, self.airport, self.space

    def _organisation(self, nick: str, name: str, *, directory: bool = False) -> Organisation:
        did = f"did:web:{nick}.example"
        return Organisation(self.tell, nick, name, did, self.work / nick, directory)


def query(agreement: str, sql: str, purpose: str = "tourism-planning") -> list[str]:
    return ["query", agreement, "--purpose", purpose, "--sql", sql]
