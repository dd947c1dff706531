"""Transfer messages on the wire, there and back."""

from __future__ import annotations

import pytest

from connector._pb.dataspace.negotiation.v1 import negotiation_pb2 as pb
from connector.errors import PeerFault
from connector.model.transfer import DataAddress, TransferError, TransferMessage, TransferType
from connector.negotiation.frames import Envelope
from connector.transport.grpc.negotiation import frame_message, frame_value

ADDRESS = DataAddress("https", "https://x.example/pull", (("名", "值"), ("名", "")))
CONTENTS = [
    TransferMessage(TransferType.REQUEST, "c", "", agreement_id="a", format="f"),
    TransferMessage(
        TransferType.REQUEST, "c", "", agreement_id="a", format="f", data_address=ADDRESS
    ),
    TransferMessage(TransferType.START, "c", "p"),
    TransferMessage(TransferType.START, "c", "p", data_address=ADDRESS),
    TransferMessage(TransferType.COMPLETION, "c", "p"),
    TransferMessage(TransferType.SUSPENSION, "c", "p", code="night", reason="不行"),
    TransferMessage(TransferType.TERMINATION, "c", "", code="x", reason="y"),
    TransferError("c", "p", "conflict", "no"),
]


@pytest.mark.parametrize("content", CONTENTS)
def test_there_and_back(content):
    sent = frame_message(Envelope(7, content, "abc")).SerializeToString()
    assert frame_value(pb.Frame.FromString(sent)) == Envelope(7, content, "abc")


def test_an_envelope_of_a_message_to_come():
    """A newer peer's: nothing that we know is set."""
    newer = pb.Frame(envelope=pb.Envelope(sequence=1))
    with pytest.raises(PeerFault):
        frame_value(newer)
