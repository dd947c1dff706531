"""Untrusted SQL text to one parsed SELECT: limits first, then the parser, then its clauses.

1. Size, encoding, number of tokens and depth of parentheses are limited before any parsing.
2. Punctuation that no supported form needs (brackets, braces, lambdas, parameters, ``::`` apart)
   is refused, so that less of the parser is reached. One SELECT, at most one semicolon at the end.
3. The parser's own errors mean a refusal, and so does running out of stack. Nothing else is
   caught: an error of ours must not look like a refusal of theirs.
4. Each clause that is not known is refused by its name.

Left out: what stands inside the clauses (``connector.gate.translate``). Comments are gone after
tokenising; the text itself never goes further than this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from connector.errors import Reason, Refused
from connector.model.use import MAX_REQUEST_BYTES

MAX_TOKENS = 2_000
MAX_PARENTHESES = 24  # levels; the parser needs about 20 stack frames for each
MAX_SHOWN = 80  # characters of the request that a reason repeats
DIALECT = "duckdb"
STATEMENT = "one SELECT ... FROM the dataset's table"

_PUNCTUATION = frozenset(
    {TokenType.COMMA, TokenType.DOT, TokenType.L_PAREN, TokenType.R_PAREN, TokenType.SEMICOLON}
    | {TokenType.STAR, TokenType.PLUS, TokenType.DASH, TokenType.SLASH, TokenType.DIV}
    | {TokenType.MOD, TokenType.DPIPE, TokenType.DCOLON, TokenType.CARET, TokenType.DSTAR}
    | {TokenType.EQ, TokenType.NEQ, TokenType.LT, TokenType.LTE, TokenType.GT, TokenType.GTE}
)
_LITERALS = frozenset({TokenType.STRING, TokenType.NUMBER, TokenType.IDENTIFIER})

# The clauses of a Select, as the parser names them, that are looked at; others are refused.
_CLAUSES = frozenset({"expressions", "from_", "where", "group", "having", "order", "limit"})
_CLAUSE_NAMES: Mapping[str, str] = {
    "with_": "WITH",
    "distinct": "DISTINCT",
    "into": "INTO",
    "joins": "JOIN",
    "laterals": "LATERAL",
    "qualify": "QUALIFY",
    "windows": "WINDOW",
    "pivots": "PIVOT",
    "sample": "USING SAMPLE",
    "locks": "FOR UPDATE",
    "connect": "CONNECT BY",
}
CLAUSES = "SELECT, FROM, WHERE, GROUP BY, HAVING, ORDER BY, LIMIT, OFFSET"


def refuse(term: str, observed: str, allowed: str) -> NoReturn:
    """Raise ``Refused`` with one reason. ``observed`` comes from the request alone."""
    raise Refused((Reason(term, observed, allowed),))


def shown(text: str) -> str:
    """A piece of the request, safe to print and to keep in a receipt."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def parse(query: str) -> exp.Select:
    """One SELECT with known clauses only. Raises ``Refused``."""
    _check_size(query)
    try:
        tokens = sqlglot.tokenize(query, read=DIALECT)
        _check_tokens(query, tokens)
        statements = sqlglot.parse(query, read=DIALECT)
    except TokenError:
        refuse("syntax", "text that is not SQL", STATEMENT)
    except ParseError as error:
        refuse("syntax", _place(error), STATEMENT)
    except RecursionError:
        refuse("size", "a query that is nested too deeply", f"{MAX_PARENTHESES} levels")
    found = [statement for statement in statements if statement is not None]
    if len(found) != 1 or type(found[0]) is not exp.Select:
        refuse("statement", f"{len(found)} statements, or none that is a SELECT", STATEMENT)
    check_keys(found[0], _CLAUSES | {"offset"}, "clause", CLAUSES, _CLAUSE_NAMES)
    return found[0]


def check_keys(
    node: exp.Expr,
    known: frozenset[str] | set[str],
    term: str,
    allowed: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """Refuse a node that says more than what is looked at."""
    for key, value in node.args.items():
        if key not in known and value not in (None, False, []):
            refuse(term, (names or {}).get(key, f"{type(node).__name__} with {key}"), allowed)


def _check_size(query: str) -> None:
    try:
        size = len(query.encode())
    except UnicodeEncodeError:
        refuse("syntax", "text that is not Unicode", STATEMENT)
    if size > MAX_REQUEST_BYTES:
        refuse("size", f"{size} bytes", f"at most {MAX_REQUEST_BYTES} bytes")
    if "\0" in query:
        refuse("syntax", "a NUL character", STATEMENT)


def _check_tokens(query: str, tokens: Sequence[Token]) -> None:
    if not tokens:
        refuse("statement", "no statement", STATEMENT)
    if len(tokens) > MAX_TOKENS:
        refuse("size", f"{len(tokens)} words", f"at most {MAX_TOKENS} words")
    if tokens[0].token_type is not TokenType.SELECT:
        refuse("statement", shown(tokens[0].text.upper()), STATEMENT)
    depth = selects = 0
    for number, token in enumerate(tokens):
        kind = token.token_type
        if not (kind in _PUNCTUATION or kind in _LITERALS or _is_word(token)):
            refuse("operator", shown(token.text), "plain SQL operators and literals")
        if kind is TokenType.SEMICOLON and number != len(tokens) - 1:
            refuse("statement", "more than one statement", STATEMENT)
        if (
            kind is TokenType.NUMBER
            and number + 1 < len(tokens)
            and tokens[number + 1].start == token.end + 1
            and _is_word(tokens[number + 1])
        ):
            refuse("syntax", shown(query[token.start : tokens[number + 1].end + 1]), "a number")
        depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        if depth > MAX_PARENTHESES:
            refuse("size", f"{depth} levels of parentheses", f"at most {MAX_PARENTHESES}")
        selects += kind is TokenType.SELECT
    if selects > 1:
        refuse("statement", "a SELECT within a SELECT, or two", STATEMENT)


def _is_word(token: Token) -> bool:
    """A keyword or a bare name; a prefixed string (E'', X'', $$ $$) is neither."""
    if token.token_type.name.endswith("_STRING"):
        return False
    return token.text.replace("_", "a").replace(" ", "a").isalnum()


def _place(error: ParseError) -> str:
    """Where the text stops being SQL; the parser's message would repeat the text."""
    for found in error.errors:
        line, column = found.get("line"), found.get("col")
        if isinstance(line, int) and isinstance(column, int):
            return f"text that is not SQL at line {line}, column {column}"
    return "text that is not SQL"
