"""Manifests: one row a clip, as CSV or Parquet, read as text with the row's place for messages."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmsearch.errors import MMSearchError, nearest

SPLITS = ("train", "val", "test")
"""Values of the split column; an empty cell is development, like train and val."""

_SEPARATORS = {"semicolons": ";", "tabs": "\t", "bars": "|"}


class Manifest:
    """The rows of a manifest.

    A cell that names a file may hold any bytes, as file names do: what is not UTF-8 in them is kept as Python keeps
    it in names. Every other cell is UTF-8 text.

    Attributes:
        path: the file.
        columns: names of its columns.
        rows: per clip its cells by column; empty where nothing is given. Columns without a name are left out.
        numbers: per clip the row as a person counts it: the file's line (CSV) or 1 for the first row (Parquet).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        read = _read_parquet if path.suffix.lower() in (".parquet", ".pq") else _read_csv
        try:
            columns, pairs = read(path)
        except OSError as error:
            raise MMSearchError(f"{path}: the manifest cannot be read: {error.strerror or error}") from None
        for name, count in Counter(filter(None, columns)).items():
            if printable(name) != name:
                raise MMSearchError(f"{path}: column {printable(name)!r} is not UTF-8 text; save the manifest as UTF-8")
            if count > 1:
                raise MMSearchError(f"{path}: column {name!r} is there twice")
        self.columns = [name for name in columns if name]
        self.numbers = [number for number, _ in pairs]
        self.rows = [{name: cell for name, cell in zip(columns, cells, strict=True) if name} for _, cells in pairs]
        if not self.rows:
            raise MMSearchError(f"{path}: the manifest has no rows")

    def at(self, i: int) -> str:
        """The place of clip `i`, for the beginning of a message."""
        return f"{self.path}: row {self.numbers[i]}"

    def need(self, column: str, why: str) -> None:
        """Refuses a manifest without the column.

        Raises:
            MMSearchError: names the column, its use, and the nearest there is.
        """
        if column not in self.columns:
            raise MMSearchError(f"{self.path}: no column {column!r} ({why}){nearest(column, self.columns)}")

    def cells(self, column: str, *, names_files: bool = False) -> Iterator[tuple[int, str]]:
        """Index and text of every cell of a column.

        Args:
            column: its name.
            names_files: whether the cells are names of files, which need not be UTF-8.

        Raises:
            MMSearchError: names the first row whose cell is not UTF-8 text.
        """
        for i, row in enumerate(self.rows):
            if not names_files and printable(row[column]) != row[column]:
                raise MMSearchError(f"{self.at(i)}: {column} is not UTF-8 text; save the manifest as UTF-8")
            yield i, row[column]

    def filled(self, column: str) -> list[str]:
        """A column in which every cell is needed.

        Raises:
            MMSearchError: names the first row whose cell is empty.
        """
        for i, text in self.cells(column):
            if not text:
                raise MMSearchError(f"{self.at(i)}: {column} is empty")
        return [row[column] for row in self.rows]

    def seconds(self, column: str) -> list[float | None]:
        """A column of times, None where the cell is empty or the column is not there.

        Raises:
            MMSearchError: names the row of a cell that is no time.
        """
        if column not in self.columns:
            return [None] * len(self.rows)
        times: list[float | None] = []
        for i, text in self.cells(column):
            try:
                time = float(text) if text else None
            except ValueError:
                time = -1.0
            if time is not None and not 0 <= time < 1e9:
                raise MMSearchError(f"{self.at(i)}: {column} is {text!r}; it must be seconds from the file's beginning")
            times.append(time)
        return times


def printable(text: str) -> str:
    r"""A text that any stream and any format takes: bytes of a file name that are not UTF-8 become `\xe9`."""
    readable = re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)
    return readable.encode(errors="backslashreplace").decode()


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise MMSearchError(f"{path}: UTF-16 text; save the manifest as UTF-8")
    text = content.decode("utf-8-sig", errors="surrogateescape")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise MMSearchError(f"{path}: row {line}: has a NUL character; a manifest is UTF-8 text")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    pairs: list[tuple[int, list[str]]] = []
    row = 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                pass
            elif not columns:
                columns = cells
                _check_separator(path, columns)
            elif len(cells) != len(columns):
                raise MMSearchError(f"{path}: row {row}: {len(cells)} cells, but the header has {len(columns)} columns")
            else:
                pairs.append((row, cells))
            row = reader.line_num + 1
    except csv.Error as error:
        raise MMSearchError(f"{path}: row {row}: not CSV: {error}") from None
    return columns, pairs


def _check_separator(path: Path, columns: list[str]) -> None:
    found = [name for name, separator in _SEPARATORS.items() if len(columns) == 1 and separator in columns[0]]
    if found:
        raise MMSearchError(f"{path}: its columns are separated by {found[0]}; a manifest has commas")


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        values = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise MMSearchError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from None
    return table.column_names, [(i, list(cells)) for i, cells in enumerate(zip(*values, strict=True), start=1)]


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return os.fsdecode(value).strip()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
