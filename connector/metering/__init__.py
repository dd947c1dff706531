"""Reserve, record, prove: a node's uses, acts and deliveries as receipts in its log.

``meter`` is what services call; ``ledger`` decides, ``state`` remembers, ``reader`` proves;
``witness`` and ``cosigned`` compare logs with what was seen of them.
"""
