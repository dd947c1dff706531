"""Notes, checkpoints and cosignatures: who may have signed, and hostile notes."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import InvalidInput, VerificationFailed
from connector.tlog import checkpoint, cosignature, merkle, note

KEY = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01")
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x02")
PUBLIC = KEY.public_key().public_bytes_raw()
WITNESS_PUBLIC = WITNESS.public_key().public_bytes_raw()
ORIGIN = "airport.example/log"
NAME = "did:web:space.example"
ROOT = merkle.leaf_hash(b"root")
SIGNED = checkpoint.sign_checkpoint(ORIGIN, 42, ROOT, KEY)
LINE = cosignature.cosign(SIGNED, NAME, WITNESS, 1_800_000_000)
COSIGNED = cosignature.add_line(SIGNED, LINE)


BAD_KEYS = {
    "no parts": "example.com/foo",
    "empty": "",
    "name with a space": "a b+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    "another id": "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    "upper case id": "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    "short key": "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv",
    "unknown type": "example.com/foo+530d903a+" + base64.b64encode(b"\x02" + PUBLIC).decode(),
    "not base64": "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2!",
    "huge": "a" * 100_000,
}


@pytest.mark.parametrize("value", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_bad_verifier_key_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput):
        note.parse_verifier_key(value)


GOOD_LINE = note.parse(SIGNED).signatures[0].line()
BODY = checkpoint.parse_checkpoint(SIGNED).body().decode()
TAIL = f"\n{GOOD_LINE}\n"
ROOT64 = base64.b64encode(ROOT).decode()

BAD_NOTES = {
    "empty": "",
    "no blank line": f"text\n{GOOD_LINE}\n",
    "no signatures": "text\n\n",
    "last newline missing": BODY + TAIL[:-1],
    "line without a dash": BODY + "\n" + GOOD_LINE[2:] + "\n",
    "hyphen for a dash": BODY + "\n- " + GOOD_LINE[2:] + "\n",
    "no name": BODY + "\n— " + GOOD_LINE.rsplit(" ")[-1] + "\n",
    "name with a plus": BODY + TAIL.replace(ORIGIN, "a+b"),
    "name with a no-break space": BODY + TAIL.replace(ORIGIN, "a\u00a0b"),
    "two spaces": BODY + TAIL.replace(f"{ORIGIN} ", f"{ORIGIN}  "),
    "base64 without padding": BODY + TAIL.replace("=", ""),
    "base64 with a space": BODY + TAIL.replace("=\n", " =\n"),
    "base64 url alphabet": BODY
    + "\n— name "
    + base64.urlsafe_b64encode(b"\xff" * 68).decode()
    + "\n",
    "base64 with stray bits": BODY + "\n— name AAAAAAB=\n",
    "key id alone": BODY + "\n— name AAAAAA==\n",
    "tab": BODY.replace("example", "exa\tmple") + TAIL,
    "carriage returns": (BODY + TAIL).replace("\n", "\r\n"),
    "thousand signatures": BODY + "\n" + f"{GOOD_LINE}\n" * 1000,
    "huge": "a" * 200_000 + TAIL,
}


@pytest.mark.parametrize("text", BAD_NOTES.values(), ids=BAD_NOTES.keys())
def test_a_bad_note_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        note.parse(text.encode())


def test_a_note_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InvalidInput):
        note.parse(b"\xff" + SIGNED)


BAD_BODIES = {
    "negative size": f"{ORIGIN}\n-5\n{ROOT64}\n",
    "plus size": f"{ORIGIN}\n+5\n{ROOT64}\n",
    "underscored size": f"{ORIGIN}\n1_0\n{ROOT64}\n",
    "leading zero": f"{ORIGIN}\n042\n{ROOT64}\n",
    "other digits": f"{ORIGIN}\n٤٢\n{ROOT64}\n",
    "size with a space": f"{ORIGIN}\n 42\n{ROOT64}\n",
    "size too large": f"{ORIGIN}\n{2**63}\n{ROOT64}\n",
    "size of a million digits": f"{ORIGIN}\n{'9' * 5000}\n{ROOT64}\n",
    "two lines": f"{ORIGIN}\n42\n",
    "empty origin": f"\n42\n{ROOT64}\n",
    "empty extension": f"{ORIGIN}\n42\n{ROOT64}\n\nx\n",
    "short root": f"{ORIGIN}\n42\n{base64.b64encode(ROOT[:31]).decode()}\n",
    "root with stray bits": f"{ORIGIN}\n42\n{'A' * 42}B=\n",
    "empty tree with a root": f"{ORIGIN}\n0\n{ROOT64}\n",
    "too many extensions": f"{ORIGIN}\n42\n{ROOT64}\n" + "x\n" * 17,
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_checkpoint_is_refused_though_signed(body: str) -> None:
    signature = note.Signature(ORIGIN, b"\0\0\0\0", bytes(64))
    with pytest.raises(InvalidInput):
        checkpoint.parse_checkpoint(note.Note(body.encode(), (signature,)).encode())


def test_a_checkpoint_verifies_under_the_log_s_key_alone() -> None:
    parsed = checkpoint.verify_checkpoint(SIGNED, ORIGIN, [WITNESS_PUBLIC, PUBLIC])
    assert (parsed.origin, parsed.size, parsed.root) == (ORIGIN, 42, ROOT)
    for origin, keys in (("other.example/log", [PUBLIC]), (ORIGIN, [WITNESS_PUBLIC]), (ORIGIN, [])):
        with pytest.raises(VerificationFailed):
            checkpoint.verify_checkpoint(SIGNED, origin, keys)
    with pytest.raises(VerificationFailed):
        checkpoint.verify_checkpoint(SIGNED.replace(b"\n42\n", b"\n43\n"), ORIGIN, [PUBLIC])


def test_the_empty_tree_can_be_signed() -> None:
    data = checkpoint.sign_checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT, KEY)
    assert checkpoint.verify_checkpoint(data, ORIGIN, [PUBLIC]).size == 0


def test_what_would_not_parse_is_not_signed() -> None:
    for origin, size, root in (
        ("a b", 1, ROOT),
        ("a+b", 1, ROOT),
        ("", 1, ROOT),
        ("a\nb", 1, ROOT),
        (ORIGIN, -1, ROOT),
        (ORIGIN, 1, ROOT[:31]),
        (ORIGIN, 0, ROOT),
    ):
        with pytest.raises(InvalidInput):
            checkpoint.sign_checkpoint(origin, size, root, KEY)


def test_a_broken_signature_by_a_known_key_spoils_the_note() -> None:
    signed = note.parse(SIGNED)
    bad = note.Signature(ORIGIN, signed.signatures[0].key_id, bytes(64))
    both = note.Note(signed.text, (*signed.signatures, bad)).encode()
    with pytest.raises(VerificationFailed):
        checkpoint.verify_checkpoint(both, ORIGIN, [PUBLIC])


def test_unknown_signatures_are_ignored() -> None:
    ml_dsa = note.Signature("witness.example", b"\1\2\3\4", bytes(2428))
    other = note.Signature(ORIGIN, b"\1\2\3\4", bytes(64))
    signed = note.parse(SIGNED)
    data = note.Note(signed.text, (ml_dsa, other, *signed.signatures)).encode()
    assert checkpoint.verify_checkpoint(data, ORIGIN, [PUBLIC]).size == 42


def test_a_cosignature_verifies_under_the_witness_s_key_alone() -> None:
    assert cosignature.verify_cosignature(COSIGNED, NAME, [WITNESS_PUBLIC]) == 1_800_000_000
    assert checkpoint.verify_checkpoint(COSIGNED, ORIGIN, [PUBLIC]).size == 42
    for data, name, key in (
        (SIGNED, NAME, WITNESS_PUBLIC),
        (COSIGNED, "did:web:other.example", WITNESS_PUBLIC),
        (COSIGNED, NAME, PUBLIC),
        (COSIGNED.replace(b"\n42\n", b"\n43\n"), NAME, WITNESS_PUBLIC),
    ):
        with pytest.raises(VerificationFailed):
            cosignature.verify_cosignature(data, name, [key])


def test_a_log_s_signature_is_no_cosignature() -> None:
    """The same key and name under both types: neither line passes for the other."""
    only_log = checkpoint.sign_checkpoint(NAME, 42, ROOT, WITNESS)
    with pytest.raises(VerificationFailed):
        cosignature.verify_cosignature(only_log, NAME, [WITNESS_PUBLIC])


def test_a_cosignature_with_another_time_fails() -> None:
    signature = note.parse_signature(LINE)
    for data in (
        (1_800_000_001).to_bytes(8) + signature.data[8:],
        b"\xff" * 8 + signature.data[8:],
        signature.data[:-1],
        signature.data[:8],
    ):
        line = note.Signature(NAME, signature.key_id, data).line()
        with pytest.raises(VerificationFailed):
            cosignature.verify_cosignature(
                cosignature.add_line(SIGNED, line), NAME, [WITNESS_PUBLIC]
            )


def test_a_newer_cosignature_takes_the_older_one_s_place() -> None:
    newer = cosignature.cosign(SIGNED, NAME, WITNESS, 1_800_000_009)
    data = cosignature.add_line(cosignature.add_line(COSIGNED, newer), newer)
    assert len(note.parse(data).signatures) == 2
    assert cosignature.verify_cosignature(data, NAME, [WITNESS_PUBLIC]) == 1_800_000_009


def test_what_cannot_be_cosigned_is_refused() -> None:
    for data, name, time in (
        (b"no note", NAME, 1),
        (SIGNED, "a b", 1),
        (SIGNED, NAME, -1),
        (SIGNED, NAME, 2**63),
    ):
        with pytest.raises(InvalidInput):
            cosignature.cosign(data, name, WITNESS, time)
