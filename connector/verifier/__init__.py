"""From an evidence file and the space's public key to a verdict, offline.

``evidence`` reads and writes the file (docs/evidence.md), ``verify`` runs the numbered steps,
``cli`` is ``connector-verify``. ``wholelog`` does the same for a whole exported log, ``cli_log``
prints it, and single receipts with their proofs. Needs cryptography and PyJWT alone; no I/O but
in ``cli``, ``cli_log`` and ``folder``.
"""
