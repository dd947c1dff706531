"""Call tokens: who calls whom, once, now, over which certificate."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import RateLimited, Unauthenticated
from connector.identity import statements
from connector.identity.statements import public_bytes, sign_statement
from connector.identity.tokens import KIND, LIFETIME_S, TokenVerifier, issue_token
from connector.model.participant import key_id

NOW = datetime(2026, 11, 23, 12, 0, 0, 250_000, UTC)
AIRPORT, BUREAU, MALLORY = (f"did:web:{name}.example" for name in ("airport", "bureau", "mallory"))
KEY, MALLORYS = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEYS = (public_bytes(KEY),)
THUMBPRINT, ANOTHER = "t" * 43, "u" * 43


def token(key=KEY, *, now=NOW, jti="j" * 16, did=BUREAU, audience=AIRPORT, thumbprint=THUMBPRINT):
    return issue_token(key, did=did, audience=audience, thumbprint=thumbprint, now=now, jti=jti)


def claims(**changes):
    issued = NOW.timestamp()
    good = {
        "iss": BUREAU,
        "sub": BUREAU,
        "aud": AIRPORT,
        "iat": issued,
        "exp": issued + LIFETIME_S,
        "jti": "j" * 16,
        "cnf": {"x5t#S256": THUMBPRINT},
    }
    found = good | changes
    return sign_statement(KEY, KIND, {k: v for k, v in found.items() if v is not None})


@pytest.fixture
def verifier():
    return TokenVerifier(AIRPORT, started=NOW - timedelta(hours=1))


def verify(verifier, text, *, now=NOW, issuer=BUREAU, keys=KEYS, over=THUMBPRINT):
    verifier.verify(text, issuer=issuer, keys=keys, thumbprint=over, now=now)


def test_a_token_is_good_once(verifier):
    text = token()
    verify(verifier, text)
    with pytest.raises(Unauthenticated, match="used before"):
        verify(verifier, text)


def test_it_is_replayed_at_no_moment_of_its_life(verifier):
    text = token()
    verify(verifier, text)
    for later in (1, 59, 60, 64, 65, 66, 600):
        with pytest.raises(Unauthenticated):
            verify(verifier, text, now=NOW + timedelta(seconds=later))


def test_a_clock_set_back_revives_no_token(verifier):
    text = token()
    verify(verifier, text)
    later = NOW + timedelta(minutes=10)
    verify(verifier, token(now=later, jti="k" * 16), now=later)  # drops the first from memory
    with pytest.raises(Unauthenticated, match="used before"):
        verify(verifier, text, now=NOW + timedelta(seconds=1))


def reencode(text, header):
    """The same payload under another header, with the old signature."""
    _, payload, signature = text.split(".")
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return f"{head}.{payload}.{signature}"


HEADER = {"alg": "EdDSA", "typ": f"tds-{KIND}+jws", "kid": key_id(public_bytes(KEY))}


def hmac_with_the_public_key():
    payload = json.loads(base64.urlsafe_b64decode(claims().split(".")[1] + "=="))
    return jwt.encode(
        payload, public_bytes(KEY), algorithm="HS256", headers=HEADER | {"alg": "HS256"}
    )


HOSTILE = {
    "nothing": lambda: "",
    "not a token": lambda: "a.b.c",
    "not even text": lambda: "\ud800",
    "huge": lambda: token() + "A" * 5000,
    "another audience": lambda: token(audience=MALLORY),
    "a list of audiences": lambda: claims(aud=[AIRPORT, MALLORY]),
    "no audience": lambda: claims(aud=None),
    "issued by another": lambda: claims(iss=MALLORY),
    "about another": lambda: claims(sub=MALLORY),
    "no subject": lambda: claims(sub=None),
    "no issuer": lambda: claims(iss=None),
    "signed by another with its own kid": lambda: token(MALLORYS),
    "another certificate": lambda: token(thumbprint=ANOTHER),
    "no certificate": lambda: claims(cnf=None),
    "an empty thumbprint": lambda: claims(cnf={"x5t#S256": ""}),
    "a thumbprint that is no text": lambda: claims(cnf={"x5t#S256": ["t"]}),
    "lives too long": lambda: claims(exp=NOW.timestamp() + LIFETIME_S + 1),
    "ends before it begins": lambda: claims(exp=NOW.timestamp() - 1),
    "never ends": lambda: claims(exp=None),
    "times as text": lambda: claims(iat="1795435200", exp="1795435260"),
    "times as booleans": lambda: claims(iat=True, exp=True),
    "infinite times": lambda: claims(iat=1e300, exp=1e301),
    "no identifier": lambda: claims(jti=None),
    "a short identifier": lambda: claims(jti="j"),
    "a long identifier": lambda: claims(jti="j" * 65),
    "a claim that we do not know": lambda: claims(admin=True),
    "no algorithm": lambda: reencode(token(), HEADER | {"alg": "none"}),
    "the public key as a secret": hmac_with_the_public_key,
    "an unknown kid": lambda: reencode(token(), HEADER | {"kid": "x" * 43}),
    "no kid": lambda: reencode(token(), {k: v for k, v in HEADER.items() if k != "kid"}),
    "another kind": lambda: sign_statement(KEY, "act", {"iss": BUREAU}),
    "the header changed": lambda: reencode(token(), HEADER | {"x": 1}),
    "a critical extension": lambda: reencode(token(), HEADER | {"crit": ["b64"], "b64": False}),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_tokens_are_refused_and_use_nothing_up(verifier, hostile):
    with pytest.raises(Unauthenticated) as refusal:
        verify(verifier, hostile())
    assert MALLORY not in refusal.value.message and BUREAU not in refusal.value.message
    verify(verifier, token())


def test_times_have_a_leeway_and_no_more(verifier):
    for number, seconds in enumerate((-64.9, 0, 4.9)):
        verify(verifier, token(now=NOW + timedelta(seconds=seconds), jti=f"{number:016}"))
    for seconds, why in ((-65.1, "expired"), (5.1, "future")):
        with pytest.raises(Unauthenticated, match=why):
            verify(verifier, token(now=NOW + timedelta(seconds=seconds), jti="x" * 16))


def test_a_token_older_than_the_process_is_refused():
    verifier = TokenVerifier(AIRPORT, started=NOW)
    with pytest.raises(Unauthenticated, match="older than this process"):
        verify(verifier, token(now=NOW - timedelta(milliseconds=1)))
    verify(verifier, token())


def test_another_members_token_over_ones_own_certificate(verifier):
    """The certificate names Mallory; the token is a stolen one of the bureau's."""
    with pytest.raises(Unauthenticated):
        verify(verifier, token(), issuer=MALLORY, keys=[public_bytes(MALLORYS)], over=ANOTHER)
    with pytest.raises(Unauthenticated, match="another participant"):
        # even if both had the same key
        verify(verifier, token(thumbprint=ANOTHER), issuer=MALLORY, over=ANOTHER)


def test_a_replaced_key_is_refused_and_a_second_key_is_not(verifier):
    new = Ed25519PrivateKey.generate()
    with pytest.raises(Unauthenticated):
        verify(verifier, token(), keys=[public_bytes(new)])
    verify(verifier, token(), keys=[public_bytes(new), public_bytes(KEY)])


def test_one_callers_flood_locks_out_that_caller_alone():
    verifier = TokenVerifier(AIRPORT, started=NOW, remembered=3)
    for number in range(3):
        verify(verifier, token(jti=f"{number:016}"))
    with pytest.raises(RateLimited):
        verify(verifier, token(jti="x" * 16))
    mallory = {"issuer": MALLORY, "keys": [public_bytes(MALLORYS)]}
    verify(verifier, token(MALLORYS, did=MALLORY), **mallory)
    later = NOW + timedelta(seconds=66)
    verify(verifier, token(now=later, jti="y" * 16), now=later)


def test_a_token_is_a_statement_of_its_own_kind():
    assert statements.statement_kind(token()) == KIND
