"""The Dataspace Protocol 2025-1 over HTTPS: another door to the same services as gRPC."""
