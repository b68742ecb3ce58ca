"""A JSON array read item by item, in memory that grows with the largest item and not with the file."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from json import JSONDecodeError
from typing import IO, Any

from instil.facts.faults import Fault
from instil.facts.records import DECODER, is_cut, not_json

_BLANK = re.compile(r"[ \t\r\n]*")
_BLOCK = 1 << 16


class _Window:
    """The part of the text that is not yet used up, and the line at which it begins."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._block = _BLOCK
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def more(self) -> None:
        """Drop what is used up and read on, twice as much each time, so that one giant item costs linear time."""
        data = self._file.read(self._block)
        self._block *= 2
        self.ended = not data
        self.text, self.at = self.text[self.at :] + self._decode.decode(data, final=self.ended), 0

    def advance(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end
        self._block = _BLOCK

    def next_mark(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            self.advance(_BLANK.match(self.text, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()


def array_items(file: IO[bytes], name: str) -> Iterator[tuple[int, Any, bytes]]:
    """(line, item or the fault that ends the file, the item as it was written)."""
    window = _Window(file)
    try:
        yield from _items(window, name)
    except UnicodeDecodeError as error:
        line = window.line + window.text.count("\n", window.at) + error.object.count(b"\n", 0, error.start)
        found = f"byte 0x{error.object[error.start]:02x}"
        yield 0, Fault(name, "not UTF-8; nothing after it was read", line, found=found, expected="UTF-8"), b""
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = "the gzipped file is cut or damaged; nothing after it was read"
        yield 0, Fault(name, what, window.line, found=str(error)), b""


def _items(window: _Window, name: str) -> Iterator[tuple[int, Any, bytes]]:
    window.next_mark()
    window.advance(window.at + 1)
    if window.next_mark() == "]":
        window.advance(window.at + 1)
    else:
        while True:
            window.next_mark()
            line = window.line
            item = _item(window, name)
            yield item
            if isinstance(item[1], Fault):
                return
            mark = window.next_mark()
            window.advance(window.at + 1)
            if mark == "]":
                break
            if mark != ",":
                what = "the JSON breaks off" if not mark else "not JSON"
                yield line, Fault(name, what, window.line, found=mark or "the end of the file", expected=", or ]"), b""
                return
    if mark := window.next_mark():
        yield 0, Fault(name, "something stands after the JSON array", window.line, found=repr(mark)), b""


def _item(window: _Window, name: str) -> tuple[int, Any, bytes]:
    """The item that begins at the window's place."""
    line = window.line
    while True:
        text = window.text
        try:
            value, end = DECODER.raw_decode(text, window.at)
            raw = text[window.at : end].encode("utf-8", "surrogatepass")
            window.advance(end)
            return line, value, raw
        except JSONDecodeError as error:
            # An error near the end of what is read may be a literal that the next block completes.
            if not window.ended and (is_cut(error, text) or error.pos > len(text) - 16):
                window.more()
                continue
            wrong = not_json(error, text)
            last = line + text.count("\n", window.at, error.pos)
            return line, Fault(name, f"{wrong.what}; nothing after it was read", last, found=wrong.found), b""
        except RecursionError:
            return line, Fault(name, "the JSON is nested too deeply; nothing after it was read", line), b""
        except ValueError as error:
            return line, Fault(name, "not JSON; nothing after it was read", line, found=str(error)), b""
