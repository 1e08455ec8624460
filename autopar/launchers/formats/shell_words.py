"""A shell script cut into statements and words, with nothing expanded yet."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from cost_models.specs.errors import SpecError

_ENDS = {"\n", ";", "&", "|", "(", ")"}
_HERE = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")


@dataclass(frozen=True, slots=True)
class Part:
    """A run of characters, or a variable's name or arithmetic to be looked up."""

    text: str = ""
    quoted: bool = False
    variable: str | None = None


@dataclass(slots=True)
class RawWord:
    """One word as written; ``array`` holds the items of ``NAME=( ... )``."""

    parts: list[Part] = field(default_factory=list)
    line: int = 0
    array: list["RawWord"] | None = None

    @property
    def head(self) -> str:
        """The text before the first quote or variable."""
        first = self.parts[0] if self.parts else Part()
        return "" if first.quoted or first.variable is not None else first.text

    @property
    def plain(self) -> str:
        """The word if it is free of quotes and variables, else nothing."""
        return self.head if len(self.parts) == 1 else ""


class _Cutter:
    def __init__(self, text: str, name: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.name = name
        self.at = 0
        self.line = 1

    def error(self, what: str, line: int) -> SpecError:
        return SpecError(f"{self.name}:{line}: {what}")

    def peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.text[index] if index < len(self.text) else ""

    def take(self) -> str:
        c = self.peek()
        self.at += 1
        self.line += c == "\n"
        return c

    def until(self, end: str, what: str) -> str:
        start, line = self.at, self.line
        stop = self.text.find(end, start)
        if stop < 0:
            raise self.error(f"{what} is never closed", line)
        self.line += self.text.count("\n", start, stop)
        self.at = stop + len(end)
        return self.text[start:stop]

    def balanced(self, opening: str, closing: str) -> str:
        """Text up to the closing bracket that matches the one just taken."""
        start, depth, line = self.at, 1, self.line
        while depth:
            c = self.take()
            if not c:
                raise self.error(f"{opening!r} is never closed", line)
            depth += (c == opening) - (c == closing)
        return self.text[start : self.at - 1]

    def variable(self, *, quoted: bool) -> Part:
        """What stands after a ``$``."""
        if self.peek() == "{":
            self.take()
            return Part(quoted=quoted, variable=self.balanced("{", "}"))
        if self.peek() == "(":
            self.take()
            inner = self.balanced("(", ")")
            return Part(quoted=quoted, variable=f"({inner})")
        name = re.match(r"[A-Za-z_]\w*|[\d@*#?$!]", self.text[self.at : self.at + 200])
        if not name:
            return Part("$", quoted)
        self.at += len(name.group())
        return Part(quoted=quoted, variable=name.group())

    def double_quoted(self, word: RawWord) -> None:
        line, text = self.line, ""
        word.parts.append(Part("", quoted=True))
        while True:
            c = self.take()
            if not c:
                raise self.error("a quote is never closed", line)
            if c == '"':
                break
            if c == "\\" and self.peek() in {'"', "\\", "$", "`", "\n"}:
                escaped = self.take()
                text += "" if escaped == "\n" else escaped
            elif c in "$`":
                word.parts.append(Part(text, quoted=True))
                text = ""
                word.parts.append(self.dollar(c, quoted=True))
            else:
                text += c
        word.parts.append(Part(text, quoted=True))

    def dollar(self, c: str, *, quoted: bool) -> Part:
        if c == "`":
            return Part(quoted=quoted, variable=f"`{self.until('`', 'a backquote')}`")
        return self.variable(quoted=quoted)

    def word(self) -> RawWord:
        """The word that starts here."""
        word, text = RawWord(line=self.line), ""

        def flush() -> None:
            nonlocal text
            if text:
                word.parts.append(Part(text))
            text = ""

        while (c := self.peek()) and c not in _ENDS and c not in " \t":
            self.take()
            if c == "\\":
                escaped = self.take()
                text += "" if escaped == "\n" else escaped
            elif c == "'":
                flush()
                word.parts.append(Part(self.until("'", "a quote"), quoted=True))
            elif c == '"':
                flush()
                self.double_quoted(word)
            elif c in "$`":
                flush()
                word.parts.append(self.dollar(c, quoted=False))
            else:
                text += c
            if c == "=" and self.peek() == "(" and not word.parts:
                flush()
                self.take()
                word.array = list(self.items())
                return word
        flush()
        word.parts = _without_empty_quotes(word.parts)
        return word

    def items(self) -> Iterator[RawWord]:
        """Words of an array up to its closing parenthesis."""
        line = self.line
        while True:
            self.skip(" \t\n")
            if not self.peek():
                raise self.error("an array is never closed", line)
            if self.peek() == ")":
                self.take()
                return
            if self.peek() in _ENDS:
                self.take()
                continue
            item = self.word()
            if item.parts:
                yield item

    def skip(self, blanks: str) -> None:
        """Past blanks, continued lines and comments."""
        while c := self.peek():
            if c in blanks:
                self.take()
            elif c == "\\" and self.peek(1) == "\n":
                self.take()
                self.take()
            elif c == "#":
                while self.peek() not in {"", "\n"}:
                    self.take()
            else:
                return

    def here_document(self) -> None:
        """Past the body of ``<<END``."""
        match = _HERE.match(self.text, self.at)
        if not match:
            self.take()
            return
        self.at = match.end()
        stop = re.compile(rf"^\s*{re.escape(match.group(2))}\s*$", re.MULTILINE).search(
            self.text, self.at
        )
        end = stop.end() if stop else len(self.text)
        self.line += self.text.count("\n", self.at, end)
        self.at = end


def _without_empty_quotes(parts: list[Part]) -> list[Part]:
    """``""`` beside something else adds nothing; alone it is an empty word."""
    kept = [p for p in parts if p.text or p.variable is not None]
    return kept or parts[:1]


def statements(text: str, *, name: str) -> Iterator[list[RawWord]]:
    """The script's statements, each a list of words; raises SpecError with file and line."""
    cutter = _Cutter(text, name)
    current: list[RawWord] = []
    while True:
        cutter.skip(" \t")
        c = cutter.peek()
        if c == "<" and cutter.peek(1) == "<":
            cutter.here_document()
        elif not c or c in _ENDS:
            if current:
                yield current
            current = []
            if not c:
                return
            cutter.take()
        else:
            word = cutter.word()
            if word.parts or word.array is not None:
                current.append(word)
