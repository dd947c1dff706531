"""How the demo speaks, and how it remembers what did not happen as told.

On a terminal rich draws it; anywhere else the text is plain, a line at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

COMMAND_WIDTH = 96  # characters of one line of a command
MAX_LINE = 240  # characters of one line of a tool's output


class StoryBroken(Exception):
    """A step failed in a way that later steps cannot do without."""


class Teller:
    """Tells the story on stdout; ``failed`` collects what was not so."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.console = Console(highlight=False, soft_wrap=not self.terminal)
        self.failed: list[str] = []
        self.checks = 0

    def title(self, text: str) -> None:
        self._print(f"[bold]{escape(text)}[/]")

    def step(self, number: int, text: str) -> None:
        self._print("")
        self._print(f"[bold cyan]{number}. {escape(text)}[/]")

    def say(self, text: str = "") -> None:
        self._print(f"   {escape(text)}" if text else "")

    def aside(self, text: str) -> None:
        """What a tool printed."""
        for line in text.rstrip().splitlines():
            shown = line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..."
            self._print(f"   [dim]| {escape(shown)}[/]")

    def command(self, who: str, words: Sequence[str]) -> None:
        first, *more = _lines(words)
        self._say(Text.assemble("   ", (who, "green"), " ", ("$", "dim"), " ", first))
        for line in more:
            self._say(Text(" " * (len(who) + 8) + line))

    def check(self, holds: bool, text: str) -> bool:
        """One claim of the story. It is told either way, and a false one fails the demo."""
        self.checks += 1
        if holds:
            self._print(f"   [green]ok[/]      {escape(text)}")
        else:
            self._print(f"   [bold red]NOT SO[/]  {escape(text)}")
            self.failed.append(text)
        return holds

    def need(self, holds: bool, text: str, details: str = "") -> None:
        """As ``check``, for what later steps cannot do without."""
        if not self.check(holds, text):
            if details:
                self.aside(details)
            raise StoryBroken(text)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if self.terminal:
            drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for index, header in enumerate(headers):
                drawn.add_column(header, justify="left" if index == 0 else "right")
            for row in rows:
                drawn.add_row(*(escape(_cell(cell)) for cell in row))
            self.console.print(Padding(drawn, (0, 0, 0, 3)))
            return
        cells = [list(headers), *([_cell(cell) for cell in row] for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
        for row in cells:
            shown = [
                f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self._print("   " + escape("  ".join(shown).rstrip()))

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """A spinner while something takes time; a line where there is no terminal."""
        if self.terminal:
            with self.console.status(f"{doing} ..."):
                yield
        else:
            self.say(f"... {doing}")
            yield

    def _print(self, markup: str) -> None:
        self._say(Text.from_markup(markup))

    def _say(self, text: Text) -> None:
        self.console.print(text)
        sys.stdout.flush()


def _lines(words: Sequence[str]) -> list[str]:
    """The command, broken as a shell would take it; an option stays beside its value."""
    parts: list[str] = []
    for word in map(_quoted, words):
        if parts and parts[-1].startswith("--") and " " not in parts[-1] and word[:2] != "--":
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > COMMAND_WIDTH:
            lines[-1] += " \\"
            lines.append("")
        lines[-1] += f" {part}" if lines[-1] else part
    return lines


def _quoted(word: str) -> str:
    plain = word == "&" or (word and all(c.isalnum() or c in "-_./:=,@%" for c in word))
    if plain:
        return word
    return f'"{word}"' if "'" in word else f"'{word}'"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1f}"
    return "" if value is None else str(value)
