"""What a node's operator may ask: publish, use, show receipts, export evidence, diagnose.

The doors (gRPC management now, HTTP and pages later) translate to these and hold no logic of
their own.
"""
