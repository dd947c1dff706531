"""The gRPC binding: ``protos/`` on one side, the services on the other.

``guard`` lets calls in and cuts them, ``channels`` reaches peers, ``server`` holds the doors; the
other modules translate one service each.
"""
