"""The outside world, a file or a small folder each. Only ``connector.app`` imports these."""
