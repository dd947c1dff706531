"""The one exception tree.

A caller can tell, by class alone, our fault from the peer's fault from a refused policy:

=================  =======================================================================
class              whose fault, and what helps
=================  =======================================================================
InvalidInput       whoever wrote the bytes: a parser refused them
Unauthenticated    the caller is not who it says it is
Refused            nobody's: a policy or a contract says no, with reasons
NotFound           the thing does not exist, or is not the caller's to see
Conflict           the thing is not in a state that allows this
RateLimited        the caller asks too often
PeerFault          the peer broke the protocol, or what it sent does not verify
Unavailable        something we depend on is not there now; the same call may succeed later
InternalError      ours
=================  =======================================================================

Messages are for people and may cross the wire: they never carry a value from the data, a
path, or another participant's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ConnectorError(Exception):
    """Base of every error this program raises on purpose.

    ``code`` is stable and machine-readable; ``hint`` says what to do next and may be empty.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(ConnectorError):
    """Bytes, JSON, SQL or configuration that a strict parser refused."""

    code = "invalid_input"


class ConfigError(InvalidInput):
    """The operator's configuration is wrong; the node does not start."""

    code = "config"


class Unauthenticated(ConnectorError):
    """Certificate, token and directory record do not name one active participant."""

    code = "unauthenticated"


class NotFound(ConnectorError):
    """Unknown, or not the caller's: the two are not told apart."""

    code = "not_found"


class Gone(NotFound):
    """It was there, and was dropped when its retention ended."""

    code = "gone"


class Conflict(ConnectorError):
    """The state does not allow it, or somebody else changed it first."""

    code = "conflict"


class RateLimited(ConnectorError):
    """Too many requests from this caller."""

    code = "rate_limited"


class PeerFault(ConnectorError):
    """The peer broke the protocol."""

    code = "peer_fault"


class VerificationFailed(PeerFault):
    """A signature, proof or digest that the peer sent does not verify."""

    code = "verification_failed"


class Unavailable(ConnectorError):
    """A dependency is not there now. Safe to try again."""

    code = "unavailable"


class InternalError(ConnectorError):
    """Our own fault: an invariant does not hold."""

    code = "internal"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was refused: the failing term, what was seen, what would be allowed.

    ``observed`` comes from the request, the contract or the counters, never from the data.
    """

    term: str
    observed: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.term}: observed {self.observed}; allowed {self.allowed}"


class Refused(ConnectorError):
    """A policy said no. ``reasons`` is never empty."""

    code = "refused"

    def __init__(self, reasons: Sequence[Reason], *, hint: str = "") -> None:
        if not reasons:
            raise ValueError("a refusal states its reasons")
        super().__init__("; ".join(str(reason) for reason in reasons), hint=hint)
        self.reasons = tuple(reasons)
