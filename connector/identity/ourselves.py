"""The participant that this node is: its name and the key it signs with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.identity.acts import Act, sign_act


@dataclass(frozen=True, slots=True)
class Ourselves:
    """``log_origin`` is the name of our log (C2SP tlog-checkpoint origin)."""

    did: str
    name: str
    log_origin: str
    signing_key: Ed25519PrivateKey

    def act(self, type: str, scope: str, time: datetime, **details: Any) -> str:
        """An administrative act of ours, signed (``identity.acts``)."""
        return sign_act(self.signing_key, Act(type, scope, self.did, time, details))


def log_origin(did: str) -> str:
    """The origin of a participant's log: its did:web authority and path, as a schema-less URL."""
    return did.removeprefix("did:web:").replace("%3A", ":").replace(":", "/") + "/log"
