"""C2SP tlog-proof: the specification's shape, a third party's hashes, and hostile files.

``VECTOR`` is from the tests of project-oak/oak (a verifier of this format in Rust, Apache-2.0): an
entry of a Tessera log, its index, proof and root. The signature on it here is our own.
"""

import base64
import dataclasses

import pytest

from connector.errors import ConnectorError, InvalidInput, VerificationFailed
from connector.tlog import merkle, note
from connector.tlog.checkpoint import sign_checkpoint
from connector.tlog.cosignature import add_line, cosign
from connector.tlog.proof import Proof, parse_proof, verify_proof, write_proof
from tests.vectors.scenario import PROVIDER, STRANGER

ORIGIN, WITNESS = "example.com/fancylog", "witness1.example"
KEY, OTHER = PROVIDER.key, STRANGER.key
PUBLIC = KEY.public_key().public_bytes_raw()
VKEY = note.VerifierKey(ORIGIN, PUBLIC)
WITNESS_KEY = note.VerifierKey(WITNESS, OTHER.public_key().public_bytes_raw(), note.COSIGNATURE_V1)
VECTOR = {
    "entry": b"hello tesseroak\n",
    "index": 76_958,
    "size": 76_959,
    "root": "QYfrD7XAd4qUHbRBs4dDyDZwpZN4M/cccXr2G56pxkY=",
    "hashes": [
        "fGRlLyuz+L9Jb8+uTSut/2aVc4z7fKFW+clvsb6xjEM=",
        "F6LautOHD5eppkWC0xn/lz00X5g2yLlZAkl2jCI/wdE=",
        "qH7OJxFNup+TDvJuohd2HphKVngfMeMzUK8QChEDcas=",
        "+Y3g758yXtPCRh/eqhLTA3bdcx+cCV1Uah0JdgB0YEs=",
        "vq8cJSjj8dPVmFBRUqDLlaMqW6aAYR2GKugVhgudXLs=",
        "J0z3X5qTb9WFC1gABhVFx0bW1rVZRL+DAoBL2e2h4G4=",
        "NmSbYg25xNFzTRerIsF3HbEMyTIDqW87AQd9ekzopE8=",
        "L8BZipjURnkctkjJtGJs+YyTXMssvNKA7+a8nV2JT/s=",
        "pva4RFzCejMkVMVmYc93As2lbk7WAyrw58TvrzEOjNc=",
    ],
}
ENTRIES = [b"a", b"b", b"c", b"d", b"e"]
HASHES = [merkle.leaf_hash(entry) for entry in ENTRIES]


def proof_of(index: int, size: int = 5, extra: bytes | None = None) -> Proof:
    hashes = HASHES[:size]
    checkpoint = sign_checkpoint(ORIGIN, size, merkle.root_of(hashes), KEY)
    path = merkle.inclusion_proof(index, size, merkle.reader_of(hashes))
    return Proof(index, tuple(path), checkpoint, extra)


FILE = write_proof(proof_of(2))


def test_the_file_is_what_the_specification_shows() -> None:
    proof = proof_of(2, extra=b"more")
    lines = write_proof(proof).decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra bW9yZQ==", "index 2"]
    assert [base64.b64decode(line) for line in lines[3:6]] == list(proof.hashes)
    assert lines[6:9] == ["", ORIGIN, "5"]
    assert lines[10:] == ["", lines[11], ""]
    assert lines[11].startswith(f"\N{EM DASH} {ORIGIN} ")


@pytest.mark.parametrize("extra", [None, b"", b"more"])
@pytest.mark.parametrize("size", range(1, 6))
def test_every_leaf_is_proved(size: int, extra: bytes | None) -> None:
    for index in range(size):
        data = write_proof(proof_of(index, size, extra))
        proof = parse_proof(data)
        assert proof == proof_of(index, size, extra)
        assert write_proof(proof) == data
        assert verify_proof(proof, HASHES[index], [VKEY]).checkpoint.size == size
        for other in HASHES[:index] + HASHES[index + 1 :]:
            with pytest.raises(VerificationFailed):
                verify_proof(proof, other, [VKEY])


def test_a_third_party_s_proof() -> None:
    checkpoint = sign_checkpoint(ORIGIN, VECTOR["size"], base64.b64decode(VECTOR["root"]), KEY)
    lines = ["c2sp.org/tlog-proof@v1", f"index {VECTOR['index']}", *VECTOR["hashes"], "", ""]
    proof = parse_proof("\n".join(lines).encode() + checkpoint)
    verify_proof(proof, merkle.leaf_hash(VECTOR["entry"]), [VKEY])
    with pytest.raises(VerificationFailed):
        verify_proof(proof, merkle.leaf_hash(b"hello tesseroak"), [VKEY])


def test_vkeys_of_third_parties_are_read() -> None:
    log = "fake.log.origin/log+527eabb8+AddT9PtBhhNAsDYZ0V0euiRbXuvrLsw4L6vKARfipnmz"
    witness = "test-witness+26349ef0+BIQDFTUlktisMqJzWn8qhteWrRr4dLcQ9R37T+8LQyQF"
    assert note.parse_verifier_key(log).type == note.ED25519
    assert note.parse_verifier_key(witness).type == note.COSIGNATURE_V1


def test_witnesses() -> None:
    plain = proof_of(2)
    line = cosign(plain.checkpoint, WITNESS, OTHER, 1_795_420_800)
    proof = dataclasses.replace(plain, checkpoint=add_line(plain.checkpoint, line))
    assert parse_proof(write_proof(proof)) == proof
    proved = verify_proof(proof, HASHES[2], [VKEY], [WITNESS_KEY])
    assert proved.cosigned == {WITNESS: 1_795_420_800}
    with pytest.raises(VerificationFailed, match="none by the expected witness"):
        verify_proof(plain, HASHES[2], [VKEY], [WITNESS_KEY])
    older = note.VerifierKey(WITNESS, PUBLIC, note.COSIGNATURE_V1)
    assert verify_proof(proof, HASHES[2], [VKEY], [older, WITNESS_KEY]).cosigned


KEYS = {
    "no key": ([], [], VerificationFailed),
    "another log's key": ([note.VerifierKey("b.example", PUBLIC)], [], VerificationFailed),
    "another key": (
        [note.VerifierKey(ORIGIN, OTHER.public_key().public_bytes_raw())],
        [],
        VerificationFailed,
    ),
    "a witness's key for the log": ([WITNESS_KEY], [], InvalidInput),
    "a log's key for a witness": ([VKEY], [VKEY], InvalidInput),
}


@pytest.mark.parametrize(("keys", "witnesses", "error"), KEYS.values(), ids=KEYS.keys())
def test_other_keys_prove_nothing(
    keys: list[note.VerifierKey],
    witnesses: list[note.VerifierKey],
    error: type[ConnectorError],
) -> None:
    with pytest.raises(error):
        verify_proof(proof_of(2), HASHES[2], keys, witnesses)


CHECKPOINT = proof_of(2).checkpoint.decode()
HASH = base64.b64encode(HASHES[0]).decode()
BAD = {
    "empty": "",
    "another version": FILE.decode().replace("@v1", "@v2"),
    "a space before the header": " " + FILE.decode(),
    "no header": FILE.decode().partition("\n")[2],
    "carriage returns": FILE.decode().replace("\n", "\r\n"),
    "no index": FILE.decode().replace("index 2\n", ""),
    "index twice": FILE.decode().replace("index 2\n", "index 2\nindex 2\n"),
    "index with a zero before it": FILE.decode().replace("index 2", "index 02"),
    "index with a sign": FILE.decode().replace("index 2", "index +2"),
    "index below zero": FILE.decode().replace("index 2", "index -2"),
    "index with a space": FILE.decode().replace("index 2", "index 2 "),
    "index with an underscore": FILE.decode().replace("index 2", "index 1_0"),
    "index in other digits": FILE.decode().replace("index 2", "index ٢"),
    "index of nothing": FILE.decode().replace("index 2", "index "),
    "index beyond every tree": FILE.decode().replace("index 2", f"index {2**63 - 1}"),
    "index of a thousand digits": FILE.decode().replace("index 2", "index " + "9" * 1_000),
    "extra behind the index": FILE.decode().replace("index 2\n", "index 2\nextra bW9yZQ==\n"),
    "extra twice": FILE.decode().replace("index 2\n", "extra bW9yZQ==\n" * 2 + "index 2\n"),
    "extra without padding": FILE.decode().replace("index 2\n", "extra bW9yZQ\nindex 2\n"),
    "extra without a space": FILE.decode().replace("index 2\n", "extra\nindex 2\n"),
    "extra in another spelling": FILE.decode().replace("index 2\n", "extra bW9yZR==\nindex 2\n"),
    "extra too long": FILE.decode().replace("index 2\n", f"extra {'AAAA' * 21_846}\nindex 2\n"),
    "a hash of 31 bytes": FILE.decode().replace(
        "index 2\n", f"index 2\n{base64.b64encode(bytes(31)).decode()}\n"
    ),
    "a hash that is not base64": FILE.decode().replace("index 2\n", "index 2\n!\n"),
    "a hash with a space": FILE.decode().replace("index 2\n", f"index 2\n{HASH} \n"),
    "65 hashes": FILE.decode().replace("index 2\n", "index 2\n" + f"{HASH}\n" * 65),
    "a million lines": "c2sp.org/tlog-proof@v1\nindex 2\n" + "\n" * 100_000,
    "no checkpoint": FILE.decode().partition("\n\n")[0] + "\n",
    "an empty checkpoint": FILE.decode().partition("\n\n")[0] + "\n\n",
    "two empty lines": FILE.decode().replace("\n\n", "\n\n\n", 1),
    "an unsigned checkpoint": FILE.decode().rpartition("\n\n")[0] + "\n\n",
    "bytes after the end": FILE.decode() + "x",
    "a line after the end": FILE.decode() + "\n",
    "half the file": FILE.decode()[: len(FILE) // 2],
    "too large": FILE.decode() + "\N{EM DASH} a AAAAAAAA\n" * 30_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_proof(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    for data in (b"\xff" + FILE, FILE.replace(b"index 2\n", b"index 2\n\xff\n")):
        with pytest.raises(InvalidInput):
            parse_proof(data)


UNWRITABLE = {
    "a hash too short": dataclasses.replace(proof_of(2), hashes=(bytes(31),)),
    "an index below zero": dataclasses.replace(proof_of(2), index=-1),
    "hashes in a list": dataclasses.replace(proof_of(2), hashes=list(proof_of(2).hashes)),
    "no checkpoint": dataclasses.replace(proof_of(2), checkpoint=b"checkpoint"),
    "65 hashes": dataclasses.replace(proof_of(2), hashes=(bytes(32),) * 65),
    "too much extra data": dataclasses.replace(proof_of(2), extra=bytes(65_537)),
}


@pytest.mark.parametrize("proof", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_what_cannot_be_read_is_not_written(proof: Proof) -> None:
    with pytest.raises(InvalidInput):
        write_proof(proof)


def test_every_byte_counts() -> None:
    """A file with one bit changed is refused or proves nothing."""
    for place in range(len(FILE)):
        broken = FILE[:place] + bytes([FILE[place] ^ 1]) + FILE[place + 1 :]
        with pytest.raises(ConnectorError):
            verify_proof(parse_proof(broken), HASHES[2], [VKEY])
