"""Inclusion proofs to verify, as long as those of a large log, without having the log."""

from __future__ import annotations

import os
from collections.abc import Sequence

from connector.core.interface import Claim
from connector.model.receipt import HASH_BYTES
from connector.tlog import merkle


def proof_of(index: int, size: int) -> Claim:
    """Its hashes are random, and the root is where they lead."""
    length = len(merkle.inclusion_proof(index, size, lambda *_: bytes(HASH_BYTES)))
    leaf, *siblings = (os.urandom(HASH_BYTES) for _ in range(length + 1))
    return leaf, index, size, siblings, _root(leaf, index, size, siblings)


def _root(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2, without its checks."""
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if at & 1 or at == last:
            found = merkle.node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = merkle.node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    return found
