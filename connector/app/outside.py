"""Connectors that ``connector.toml`` names, beside those that the directory does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from connector import config
from connector.directory.view import MembershipView
from connector.model.participant import Membership, Participant


def served(view: MembershipView, peers: Sequence[config.Peer]) -> Callable[[str], Participant]:
    """Who may be dealt with now: the active members of the space, by the directory's word, and
    who the operator named besides. The directory's word on a DID goes first, whatever it is; with
    a view that is too old nobody is dealt with.

    The result raises ``Unauthenticated`` or ``Unavailable``.
    """
    outside = {peer.id: _participant(peer) for peer in peers}

    def lookup(did: str) -> Participant:
        view.require_fresh()
        if did in outside and did not in view.participants:
            return outside[did]
        return view.active(did)

    return lookup


def _participant(peer: config.Peer) -> Participant:
    """As a peer whose keys we do not know: it signs nothing, and has no log."""
    return Participant(
        did=peer.id,
        name=peer.name or peer.id,
        roles=peer.roles,
        state=Membership.ACTIVE,
        signing_keys=(),
        endpoint="",
        log_origin="",
        revision=0,
    )
