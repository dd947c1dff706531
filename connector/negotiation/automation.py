"""Which steps the program makes by itself; each other one waits for a person."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Automation:
    """All on by default. Turning one off never skips a check, it only adds a person."""

    decide: bool = True  # provider: agree at once to a request that the policy approves
    agree: bool = True  # provider: make the agreement when our offer was accepted
    finalize: bool = True  # provider: finalize when the consumer's signature verifies
    verify: bool = True  # consumer: sign an agreement that says what was negotiated
    start: bool = True  # provider: start a transfer that the policy allows
