"""From evidence to a verdict: the fourteen steps of docs/evidence.md, section 5, in order.

 1. membership events are signed by the space's key        ``parties``
 2. both parties signed the agreement*                     ``parties``
 3. a disclosed secret is the committed one                ``parties``
 4. checkpoints are signed by the logs' owners             ``books``
 5. cosignatures of known witnesses verify                 ``books``
 6. each receipt's bytes are in its log                    ``books``
 7. each receipt is well-formed and of this agreement      ``books``
 8. receipts are numbered 1 to n and chained               ``books``
 9. acts are signed, the conclusion is the first           ``acts``
10. the exporter's statement counts all before it          ``acts``
11. allowed uses keep to the terms                         ``rules``
12. disclosed requests are those in the receipts           ``rules``
13. both parties' records agree                            ``compare``
14. receipts given singly are in the provider's log        ``given``

* A party that is no member of the space cannot be held to a signature: the file then shows who
  the exporter says it dealt with (``Verdict.assurance``).

Every step looks at everything it can and collects all that is wrong; nothing that a step failed
is believed by a later one.

What the caller MUST still do:

* get the space's public key from somewhere it trusts, never from whoever gave it the file;
* compare the checkpoints of several files of one log (and ask the witnesses): two that are not
  consistent prove that the log's owner forked it, which one file alone cannot show;
* ask the directory whether a member was suspended or lost a key after the events in the file;
* decide what it thinks of a file whose log nobody witnessed: see ``Verdict.assurance``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from connector.errors import InvalidInput
from connector.model import fields
from connector.model.terms import Agreement
from connector.verifier.acts import check_acts, check_statements
from connector.verifier.books import Book, Witnessed, check_books
from connector.verifier.compare import check_sides
from connector.verifier.evidence import Evidence, parse_evidence
from connector.verifier.given import check_given
from connector.verifier.parties import (
    Parties,
    check_agreement,
    check_members,
    check_secret,
    unsigned,
)
from connector.verifier.rules import SEEN, check_requests, check_terms, records_of
from connector.verifier.totals import totals
from connector.verifier.verdict import Verdict

KEY_BYTES = 32


def verify_file(data: bytes, space_key: bytes) -> Verdict:
    """The verdict on an evidence file. Raises ``InvalidInput`` if it cannot be read as one."""
    return verify(parse_evidence(data), space_key)


def verify(evidence: Evidence, space_key: bytes) -> Verdict:
    """The verdict. ``space_key`` is the space's Ed25519 public key (32 bytes).

    Raises ``InvalidInput`` for a key of another length and nothing else.
    """
    if len(space_key) != KEY_BYTES:
        raise InvalidInput("space key: an Ed25519 public key has 32 bytes")
    parties, members = check_members(evidence, space_key)
    agreement, agreed = check_agreement(evidence, parties)
    if agreement is None:
        return Verdict(
            valid=False,
            steps=(members, agreed),
            agreement="",
            provider="",
            consumer="",
            exporter=evidence.exporter,
            assurance=("steps 3 to 14 were not checked: there is no agreement to check against",),
            totals={},
        )
    books, witnessed, logs = check_books(evidence, agreement, parties)
    closed, statements = check_statements(books, evidence.exporter, parties)
    steps = (
        members,
        agreed,
        check_secret(evidence, agreement),
        *logs,
        check_acts(books, agreement, parties),
        statements,
        check_terms(books, agreement, parties),
        check_requests(evidence, books),
        check_sides(books),
        check_given(evidence, agreement, parties, books),
    )
    return Verdict(
        valid=all(step.ok for step in steps),
        steps=steps,
        agreement=agreement.id,
        provider=agreement.assigner,
        consumer=agreement.assignee,
        exporter=evidence.exporter,
        assurance=tuple(_assurance(evidence, agreement, parties, books, witnessed, closed)),
        totals={book.side: totals(receipt for _, receipt in book.believed()) for book in books},
    )


def _assurance(
    evidence: Evidence,
    agreement: Agreement,
    parties: Parties,
    books: Sequence[Book],
    witnessed: Sequence[Witnessed],
    closed: str,
) -> list[str]:
    """What the file shows, and what nobody can see from it."""
    said = []
    outsider = unsigned(evidence, agreement, parties)
    if outsider:
        said.append(
            f"ours signed, peer authenticated: {outsider} is no member of the space by this "
            f"file and signed nothing; that, and to what it agreed, is {evidence.exporter}'s word"
        )
    for book in books:
        cosigners = [
            f"{item.witness} at {fields.format_time(item.time)}"
            for item in witnessed
            if item.owner == book.owner
        ]
        said.append(
            f"the {book.side}'s log was witnessed by {', '.join(cosigners)}"
            if cosigners
            else f"the {book.side}'s log was witnessed by nobody: its owner could show others "
            "another history"
        )
        if book.owner == evidence.exporter:
            said.append(f"the {book.side}'s receipts are complete as of {closed or 'no time'}")
        else:
            said.append(
                f"the {book.side}'s receipts are complete up to number "
                f"{max((leaf.number for leaf in book.leaves), default=0)}; whether more came after "
                "is not shown"
            )
    for side in sorted({"provider", "consumer"} - {book.side for book in books}):
        said.append(
            f"the {side}'s log is not in this file: its records were not compared"
            + (", beyond what it gave singly" if evidence.given and side == "provider" else "")
        )
    said += [line for book in books if book.side == "provider" for line in _reported(book)]
    if not evidence.secret:
        said.append("the secret is not disclosed: digests of requests and results are unchecked")
    unseen = sorted({c.left for p in agreement.terms.permissions for c in p.constraints} - SEEN)
    if unseen:
        said.append(f"the provider's word, as receipts do not show it: {', '.join(unseen)}")
    return said


def _reported(book: Book) -> list[str]:
    """A line for each reporter. Many records are like one: nobody but the provider saw them."""
    records: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for _, record in records_of(book):
        records[record.reporter] += 1
        calls[record.reporter] += record.calls
    return [
        f"the provider's word: {calls[name]} uses in {records[name]} records were reported by its "
        f"system {name}; the consumer's log has nothing about them"
        for name in sorted(records)
    ]
