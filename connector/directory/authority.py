"""The space's certificate authority: its certificate, its key, and how long what it signs lives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from connector.identity import certificates


@dataclass(frozen=True, slots=True)
class Authority:
    """``days``: of life of a member's certificate."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    days: int

    @property
    def pem(self) -> bytes:
        return certificates.chain_pem(self.certificate)

    def certify(self, request: bytes, *, did: str, name: str, now: datetime) -> bytes:
        """A chain in PEM for a certificate request in DER. Raises ``InvalidInput``."""
        return certificates.issue_member_certificate(
            self.certificate, self.key, request, did=did, name=name, now=now, days=self.days
        )
