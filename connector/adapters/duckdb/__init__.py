"""Queries and data preparation in DuckDB, each in a worker process of its own.

``engine`` answers the port ``connector.ports.query``; it and ``process`` run in the node and
import neither duckdb nor pyarrow. ``worker`` is the child's program: ``sandbox`` shuts it in,
``execute`` runs a query, ``sources`` reads Parquet and CSV.
"""
