"""The frames of the exchange between two connectors, whatever carries them.

They are those of ``protos/dataspace/negotiation/v1``; ``connector.negotiation.session`` says what
they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from connector.model.content import Content


@dataclass(frozen=True, slots=True)
class Hello:
    """First on every stream, from both sides. ``received``: the last sequence that this side has
    had from the other, 0 for none."""

    received: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message with its place, from 1, in the sender's order on this channel."""

    sequence: int
    content: Content
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The effect of every envelope up to ``received`` is durable at the receiver."""

    received: int


Frame: TypeAlias = Hello | Envelope | Acknowledgement
