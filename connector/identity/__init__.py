"""Who somebody is: keys, signed statements, per-call tokens, certificates.

Functions on bytes with time and keys passed in: no I/O, no clock, no network. Needs
``cryptography`` and PyJWT alone, because the verifier stands on it.
"""
