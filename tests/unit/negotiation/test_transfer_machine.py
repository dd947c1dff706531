"""The table of transfers, against the specification written down a second time."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from connector.errors import Conflict
from connector.model.negotiation import Party
from connector.model.transfer import TransferState, TransferType
from connector.negotiation import transfer_machine as machine

# state | what the consumer may send | what the provider may send, each with the state it leads to
SPECIFICATION = """
none       | Request>REQUESTED                                             |
REQUESTED  | Termination>TERMINATED                                        | Start>STARTED Termination>TERMINATED
STARTED    | Completion>COMPLETED Suspension>SUSPENDED Termination>TERMINATED | Completion>COMPLETED Suspension>SUSPENDED Termination>TERMINATED
SUSPENDED  | Start>STARTED Termination>TERMINATED                          | Start>STARTED Termination>TERMINATED
COMPLETED  |                                                               |
TERMINATED |                                                               |
"""  # noqa: E501  a table


def specified():
    table = {}
    for line in SPECIFICATION.strip().splitlines():
        state, *sides = (part.strip() for part in line.split("|"))
        for party, side in zip((Party.CONSUMER, Party.PROVIDER), sides, strict=True):
            for move in side.split():
                name, leads_to = move.split(">")
                before = None if state == "none" else TransferState(state)
                kind = TransferType(f"Transfer{name}Message")
                table[party, before, kind] = TransferState(leads_to)
    return table


LEGAL = specified()
ALL = list(itertools.product(Party, (None, *TransferState), TransferType))


@pytest.mark.parametrize(("sender", "state", "message"), ALL)
def test_every_pair(sender, state, message):
    if (sender, state, message) in LEGAL:
        assert machine.after(sender, state, message) is LEGAL[sender, state, message]
    else:
        with pytest.raises(Conflict):
            machine.after(sender, state, message)


def test_nothing_leaves_a_final_state():
    assert {state for _, state, _ in machine.TABLE} & machine.FINAL == set()
    assert len(machine.ROWS) == len(machine.TABLE)


def test_the_diagram_in_the_documents_is_the_table():
    document = (Path(__file__).parents[3] / "docs" / "negotiation.md").read_text()
    assert f"```mermaid\n{machine.diagram()}```\n" in document


CROSSINGS = [
    (state, mine, theirs)
    for state in TransferState
    for mine, theirs in itertools.product(TransferType, repeat=2)
    if (Party.CONSUMER, state, mine) in LEGAL and (Party.PROVIDER, state, theirs) in LEGAL
]


@pytest.mark.parametrize(("state", "mine", "theirs"), CROSSINGS)
def test_messages_that_cross_lead_both_sides_to_one_state(state, mine, theirs):
    consumer = machine.after(Party.CONSUMER, state, mine)
    provider = machine.after(Party.PROVIDER, state, theirs)
    here = machine.after(Party.PROVIDER, consumer, theirs, left=state)
    there = machine.after(Party.CONSUMER, provider, mine, left=state)
    assert here is there
    assert here in (consumer, provider)
    if TransferState.TERMINATED in (consumer, provider):
        assert here is TransferState.TERMINATED


@pytest.mark.parametrize("left", TransferState)
@pytest.mark.parametrize(("sender", "state", "message"), ALL)
def test_crossing_adds_only_what_was_legal_before(sender, state, message, left):
    legal = (sender, state, message) in LEGAL
    crossed = state is not None and (sender, left, message) in LEGAL
    if legal or crossed:
        machine.after(sender, state, message, left)
    else:
        with pytest.raises(Conflict):
            machine.after(sender, state, message, left)


@pytest.mark.parametrize("resuming", [False, True])
@pytest.mark.parametrize("sender", Party)
@pytest.mark.parametrize("state", TransferState)
def test_only_a_provider_that_was_asked_answers_in_started(sender, state, resuming):
    answers = (sender, state, resuming) == (Party.PROVIDER, TransferState.STARTED, True)
    if answers or (sender, state, TransferType.START) in LEGAL:
        assert machine.answer(sender, state, resuming=resuming) is TransferState.STARTED
    else:
        with pytest.raises(Conflict):
            machine.answer(sender, state, resuming=resuming)


def test_a_row_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        machine.ROWS[0].next = TransferState.STARTED
