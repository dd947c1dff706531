"""What a contract's terms mean, what a policy engine is asked, and how its answer is read.

Pure: no engine, no clock, no I/O. The policies themselves are Rego, in ``policies/``.
"""
