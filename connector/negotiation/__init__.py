"""Contract negotiation after DSP 2025-1: one table, two sides, one resumable exchange."""
