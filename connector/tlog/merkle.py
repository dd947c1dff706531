"""Merkle tree hashing and proofs: RFC 6962 section 2.1, verified as RFC 9162 section 2.1 says.

Proofs are made from a ``HashReader``, which knows the hash of every complete subtree; where the
hashes come from (tiles, a list) is not this module's business. Hashes are SHA-256, 32 bytes.

Leaves out: signatures (``note``), what a root means (``checkpoint``), how hashes are stored
(``tiles``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

from connector.errors import InvalidInput, VerificationFailed

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_SIZE = 2**63 - 1  # leaves in a log
MAX_PROOF = 64  # hashes in a proof of either sort, never more for a tree of MAX_SIZE

HashReader: TypeAlias = Callable[[int, int], bytes]
"""``(level, index)`` to the hash of the complete subtree of ``2**level`` leaves that starts at
leaf ``index * 2**level``."""


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962 section 2.1: the hash of one entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 section 2.1: the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root over a list of leaf hashes, by the definition. For small trees and for tests."""
    if not leaf_hashes:
        return EMPTY_ROOT
    return _range_root(0, len(leaf_hashes), reader_of(leaf_hashes))


def reader_of(leaf_hashes: Sequence[bytes]) -> HashReader:
    """A ``HashReader`` over a list of leaf hashes."""

    def read(level: int, index: int) -> bytes:
        if level == 0:
            return leaf_hashes[index]
        return node_hash(read(level - 1, 2 * index), read(level - 1, 2 * index + 1))

    return read


def tree_root(size: int, read: HashReader) -> bytes:
    """The root of the tree over the first ``size`` leaves."""
    _check_size(size)
    return _range_root(0, size, read) if size else EMPTY_ROOT


def root_of_subtrees(subtrees: Sequence[bytes]) -> bytes:
    """The root of a tree from its complete subtrees, one for each bit of its size, the largest
    first; O(log size)."""
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1]
    for subtree in reversed(subtrees[:-1]):
        root = node_hash(subtree, root)
    return root


def inclusion_proof(index: int, size: int, read: HashReader) -> list[bytes]:
    """RFC 6962 section 2.1.1: the audit path of leaf ``index`` in the tree of ``size`` leaves.

    From the leaf up. Raises ``InvalidInput`` unless ``0 <= index < size``.
    """
    _check_size(size)
    if not 0 <= index < size:
        raise InvalidInput("inclusion proof: the index is not in the tree")
    start, end = 0, size
    path: list[bytes] = []  # from the root down
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, read))
            end = middle
        else:
            path.append(_range_root(start, middle, read))
            start = middle
    return path[::-1]


def consistency_proof(old_size: int, new_size: int, read: HashReader) -> list[bytes]:
    """RFC 6962 section 2.1.2: that the tree of ``new_size`` leaves extends that of ``old_size``.

    Empty if the sizes are equal or ``old_size`` is 0. Raises ``InvalidInput`` unless
    ``0 <= old_size <= new_size``.
    """
    _check_size(new_size)
    if not 0 <= old_size <= new_size:
        raise InvalidInput("consistency proof: the old tree is larger than the new one")
    if old_size in (0, new_size):
        return []
    start, end = 0, new_size
    path: list[bytes] = []  # from the root down
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(_range_root(middle, end, read))
            end = middle
        else:
            path.append(_range_root(start, middle, read))
            start = middle
    if start:  # the old tree's last subtree is not the old root, which the verifier has
        path.append(_range_root(start, end, read))
    return path[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """RFC 9162 section 2.1.3.2. ``leaf`` is a leaf hash.

    Raises ``InvalidInput`` for what cannot be a proof and ``VerificationFailed`` for one that
    does not lead to ``root``.
    """
    _check_size(size)
    _check_hashes((leaf, root, *proof))
    if not 0 <= index < size:
        raise InvalidInput("inclusion proof: the index is not in the tree")
    fn, sn, computed = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise VerificationFailed("inclusion proof: too long")
        if fn & 1 or fn == sn:
            computed = node_hash(sibling, computed)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            computed = node_hash(computed, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise VerificationFailed("inclusion proof: too short")
    if computed != root:
        raise VerificationFailed("inclusion proof: does not lead to the root")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.4.2, with the trivial cases (nothing old, nothing new) spelled out.

    Raises ``InvalidInput`` for what cannot be a proof and ``VerificationFailed`` if the new tree
    is not shown to extend the old one.
    """
    _check_size(new_size)
    _check_hashes((old_root, new_root, *proof))
    if not 0 <= old_size <= new_size:
        raise InvalidInput("consistency proof: the old tree is larger than the new one")
    if old_size in (0, new_size):
        if proof:
            raise VerificationFailed("consistency proof: too long")
        if old_root != (new_root if old_size else EMPTY_ROOT) or (
            new_size == 0 and new_root != EMPTY_ROOT
        ):
            raise VerificationFailed("consistency proof: the roots do not match")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise VerificationFailed("consistency proof: too short")
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old_computed = new_computed = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise VerificationFailed("consistency proof: too long")
        if fn & 1 or fn == sn:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new_computed = node_hash(new_computed, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise VerificationFailed("consistency proof: too short")
    if old_computed != old_root or new_computed != new_root:
        raise VerificationFailed("consistency proof: does not lead from one root to the other")


def _split(count: int) -> int:
    """The largest power of two smaller than ``count`` (RFC 6962's k)."""
    return 1 << (count - 1).bit_length() - 1


def _range_root(start: int, end: int, read: HashReader) -> bytes:
    """The root of leaves ``start`` to ``end``, a subtree as RFC 6962 splits them.

    It is made of complete subtrees, largest first, which are hashed together from the right.
    """
    parts: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(read(level, start >> level))
        start += 1 << level
    root = parts.pop()
    while parts:
        root = node_hash(parts.pop(), root)
    return root


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_SIZE:
        raise InvalidInput("log: a size that cannot be")


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > MAX_PROOF + 2:
        raise InvalidInput("proof: too many hashes")
    if any(len(item) != HASH_BYTES for item in hashes):
        raise InvalidInput("proof: a hash has 32 bytes")
