"""The transparency log as arithmetic on bytes: hashing, proofs, notes, checkpoints, tiles.

RFC 6962 and RFC 9162 for the tree; C2SP signed-note, tlog-checkpoint, tlog-cosignature and
tlog-tiles for the formats. No I/O, no clock, no randomness: whoever stores a log passes in a
function that reads its hashes.
"""
