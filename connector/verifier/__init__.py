"""From an evidence file and the space's public key to a verdict, offline.

``evidence`` reads and writes the file (docs/evidence.md), ``verify`` runs the numbered steps,
``cli`` is ``connector-verify``. Needs cryptography and PyJWT alone; no I/O but in ``cli``.
"""
