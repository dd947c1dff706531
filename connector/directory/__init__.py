"""Who is a member, and who says so.

On the space operator's node: ``service`` puts together ``register`` (the signed, numbered events),
``enrolment``, ``members``, ``feed`` (for watchers) and ``catalog``. On every node: ``view``, the
verified local picture of all that.
"""
