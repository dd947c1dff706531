"""Statements and detached signatures: one kind is never taken for another, one key for another."""

import base64
import json
from typing import Any

import pytest

from connector.errors import ConnectorError, InvalidInput, VerificationFailed
from connector.identity.statements import (
    peek_statement,
    public_bytes,
    read_statement,
    sign_document,
    sign_statement,
    verify_document,
)
from tests.vectors.scenario import CONSUMER, PROVIDER

KEY, OTHER = PROVIDER.key, CONSUMER.key
KEYS = [public_bytes(KEY)]
PAYLOAD = {"type": "agreement.ended", "reason": "季节结束"}
STATEMENT = sign_statement(KEY, "act", PAYLOAD)
DOCUMENT = b'{"exact":  "bytes"}'
DETACHED = sign_document(KEY, "agreement", DOCUMENT)


def encoded(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


HEADER, BODY, SIGNATURE = STATEMENT.split(".")
FIELDS = json.loads(base64.urlsafe_b64decode(HEADER + "=="))


def test_a_statement_is_read_with_its_signer_s_keys() -> None:
    assert read_statement(STATEMENT, "act", [public_bytes(OTHER), *KEYS]) == PAYLOAD
    assert peek_statement(STATEMENT, "act") == PAYLOAD


def test_a_document_is_verified_with_its_signer_s_keys() -> None:
    verify_document(DETACHED, "agreement", DOCUMENT, [public_bytes(OTHER), *KEYS])
    assert DETACHED.split(".")[1] == ""


BAD = {
    "empty": "",
    "two parts": f"{HEADER}.{BODY}",
    "four parts": f"{STATEMENT}.x",
    "another kind": sign_statement(KEY, "membership", PAYLOAD),
    "another payload": f"{HEADER}.{encoded({})}.{SIGNATURE}",
    "another signature": f"{HEADER}.{BODY}.{encoded(bytes(64))}",
    "a short signature": f"{HEADER}.{BODY}.{encoded(bytes(63))}",
    "no signature": f"{HEADER}.{BODY}.",
    "no algorithm": f"{encoded(FIELDS | {'alg': 'none'})}.{BODY}.",
    "a shared secret": f"{encoded(FIELDS | {'alg': 'HS256'})}.{BODY}.{SIGNATURE}",
    "no key id": f"{encoded({'alg': 'EdDSA', 'typ': 'tds-act+jws'})}.{BODY}.{SIGNATURE}",
    "a key id that is a number": f"{encoded(FIELDS | {'kid': 1})}.{BODY}.{SIGNATURE}",
    "a header that is a list": f"{encoded([])}.{BODY}.{SIGNATURE}",
    "a header that is no JSON": f"{encoded(b'x')}.{BODY}.{SIGNATURE}",
    "a deep header": f"{encoded(b'[' * 100_000)}.{BODY}.{SIGNATURE}",
    "detached": DETACHED.replace(".", f".{BODY}", 1),
    "a payload that is a list": sign_statement(KEY, "act", [1]),  # type: ignore[arg-type]
    "huge": f"{HEADER}.{'A' * 300_000}.{SIGNATURE}",
    "not ASCII": f"{HEADER}.机场.{SIGNATURE}",
    "half a surrogate pair": f"{HEADER}.\ud800.{SIGNATURE}",
}


@pytest.mark.parametrize("statement", BAD.values(), ids=BAD.keys())
def test_a_bad_statement_is_refused(statement: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        read_statement(statement, "act", KEYS)
    assert isinstance(caught.value, InvalidInput | VerificationFailed)


def test_somebody_else_s_statement_is_refused() -> None:
    for keys in ([], [public_bytes(OTHER)]):
        with pytest.raises(VerificationFailed):
            read_statement(STATEMENT, "act", keys)


def test_a_key_id_alone_proves_nothing() -> None:
    """Signed by one key, naming another."""
    forged = sign_statement(OTHER, "act", PAYLOAD).split(".")
    with pytest.raises(VerificationFailed):
        read_statement(f"{HEADER}.{forged[1]}.{forged[2]}", "act", KEYS)


def test_a_document_s_signature_is_over_its_exact_bytes() -> None:
    for document in (DOCUMENT + b"\n", DOCUMENT.replace(b"  ", b" "), b""):
        with pytest.raises(VerificationFailed):
            verify_document(DETACHED, "agreement", document, KEYS)


def test_a_signature_is_of_one_kind_and_one_form() -> None:
    with pytest.raises(InvalidInput):
        verify_document(DETACHED, "offer", DOCUMENT, KEYS)
    attached = sign_statement(KEY, "agreement", {"exact": "bytes"})
    with pytest.raises(InvalidInput):
        verify_document(attached, "agreement", DOCUMENT, KEYS)
    with pytest.raises(InvalidInput):
        read_statement(DETACHED, "agreement", KEYS)
