"""Bad proofs are refused, and roots agree with the definition.

That good ones verify is shown against others' vectors and code in tests/conformance.
"""

import pytest

from connector.core.reference import Reference
from connector.errors import InvalidInput, VerificationFailed
from connector.tlog import merkle

MANY = [merkle.leaf_hash(str(number).encode()) for number in range(70)]
READ = merkle.reader_of(MANY)
ROOT_AT = [merkle.root_of(MANY[:size]) for size in range(len(MANY) + 1)]

PROOF = merkle.inclusion_proof(40, 70, READ)
OTHER = bytes(32)

BAD_INCLUSION = {
    "index beyond the tree": (MANY[40], 70, 70, PROOF, ROOT_AT[70]),
    "negative index": (MANY[40], -1, 70, PROOF, ROOT_AT[70]),
    "empty tree": (MANY[0], 0, 0, [], merkle.EMPTY_ROOT),
    "negative size": (MANY[0], 0, -1, [], merkle.EMPTY_ROOT),
    "size beyond any log": (MANY[0], 0, 2**63, [], OTHER),
    "too short": (MANY[40], 40, 70, PROOF[:-1], ROOT_AT[70]),
    "too long": (MANY[40], 40, 70, [*PROOF, OTHER], ROOT_AT[70]),
    "none at all": (MANY[40], 40, 70, [], ROOT_AT[70]),
    "one leaf, with a proof": (MANY[0], 0, 1, [OTHER], ROOT_AT[1]),
    "order changed": (MANY[40], 40, 70, PROOF[::-1], ROOT_AT[70]),
    "another index": (MANY[40], 41, 70, PROOF, ROOT_AT[70]),
    "another size": (MANY[40], 40, 130, PROOF, ROOT_AT[70]),
    "another leaf": (MANY[41], 40, 70, PROOF, ROOT_AT[70]),
    "another root": (MANY[40], 40, 70, PROOF, ROOT_AT[69]),
    "a hash of 31 bytes": (MANY[40], 40, 70, [PROOF[0][:31], *PROOF[1:]], ROOT_AT[70]),
    "a root of 0 bytes": (MANY[40], 40, 70, PROOF, b""),
    "a thousand hashes": (MANY[40], 40, 70, [OTHER] * 1000, ROOT_AT[70]),
}


@pytest.mark.parametrize("case", BAD_INCLUSION.values(), ids=BAD_INCLUSION.keys())
def test_a_bad_inclusion_proof_is_refused(case: tuple) -> None:
    with pytest.raises((InvalidInput, VerificationFailed)):
        merkle.verify_inclusion(*case)


STEP = merkle.consistency_proof(33, 70, READ)
POWER = merkle.consistency_proof(32, 70, READ)

BAD_CONSISTENCY = {
    "shrinking": (70, ROOT_AT[70], 33, ROOT_AT[33], STEP),
    "negative": (-1, ROOT_AT[0], 33, ROOT_AT[33], []),
    "too short": (33, ROOT_AT[33], 70, ROOT_AT[70], STEP[:-1]),
    "too long": (33, ROOT_AT[33], 70, ROOT_AT[70], [*STEP, OTHER]),
    "none": (33, ROOT_AT[33], 70, ROOT_AT[70], []),
    "none, from a power of two": (32, ROOT_AT[32], 70, ROOT_AT[70], []),
    "another old root": (33, ROOT_AT[34], 70, ROOT_AT[70], STEP),
    "another old root, from a power of two": (32, ROOT_AT[33], 70, ROOT_AT[70], POWER),
    "another new root": (33, ROOT_AT[33], 70, ROOT_AT[69], STEP),
    "another old size": (34, ROOT_AT[33], 70, ROOT_AT[70], STEP),
    "another new size": (33, ROOT_AT[33], 130, ROOT_AT[70], STEP),
    "equal sizes, other roots": (33, ROOT_AT[33], 33, ROOT_AT[34], []),
    "equal sizes, with a proof": (33, ROOT_AT[33], 33, ROOT_AT[33], [OTHER]),
    "from nothing, with a proof": (0, ROOT_AT[0], 33, ROOT_AT[33], [OTHER]),
    "from nothing, with a root": (0, ROOT_AT[1], 33, ROOT_AT[33], []),
    "nothing to nothing, with roots": (0, ROOT_AT[0], 0, ROOT_AT[1], []),
}


@pytest.mark.parametrize("case", BAD_CONSISTENCY.values(), ids=BAD_CONSISTENCY.keys())
def test_a_bad_consistency_proof_is_refused(case: tuple) -> None:
    with pytest.raises((InvalidInput, VerificationFailed)):
        merkle.verify_consistency(*case)


def test_proofs_outside_the_tree_cannot_be_made() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 5), (0, -1)):
        with pytest.raises(InvalidInput):
            merkle.inclusion_proof(index, size, READ)
    for old, new in ((6, 5), (-1, 5)):
        with pytest.raises(InvalidInput):
            merkle.consistency_proof(old, new, READ)


def test_complete_subtrees_give_the_root_after_every_leaf() -> None:
    subtrees: list[bytes] = []
    for size, leaf in enumerate(MANY):
        assert merkle.root_of_subtrees(subtrees) == ROOT_AT[size]
        subtrees, _ = Reference().extend(size, subtrees, leaf)
    assert merkle.root_of_subtrees(subtrees) == ROOT_AT[70]
