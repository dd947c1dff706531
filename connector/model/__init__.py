"""The words of the data space as frozen dataclasses, and the one encoding of receipts.

Pure: no I/O, no clock, no randomness. Names are the standards' own (DSP 2025-1, DCAT 3,
ODRL 2.2); ours are Use, Decision and Receipt.
"""
