"""Manifests: one row a clip, as CSV or Parquet, read as text with the row's place for messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmsearch.errors import MMSearchError, nearest

SPLITS = ("train", "val", "test")
"""Values of the split column; an empty cell is development, like train and val."""


class Manifest:
    """The rows of a manifest.

    Attributes:
        path: the file.
        columns: names of its columns.
        rows: per clip its cells by column; empty where nothing is given.
        numbers: per clip the row as a person counts it: the file's line (CSV) or 1 for the first row (Parquet).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        read = _read_parquet if path.suffix.lower() in (".parquet", ".pq") else _read_csv
        try:
            self.columns, pairs = read(path)
        except OSError as error:
            raise MMSearchError(f"{path}: the manifest cannot be read: {error.strerror or error}") from None
        self.numbers = [number for number, _ in pairs]
        self.rows = [row for _, row in pairs]
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

    def cells(self, column: str) -> Iterator[tuple[int, str]]:
        """Index and text of every cell of a column."""
        for i, row in enumerate(self.rows):
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


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MMSearchError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    columns: list[str] = []
    pairs = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = _names(path, cells)
            elif len(cells) != len(columns):
                raise MMSearchError(
                    f"{path}: row {reader.line_num}: {len(cells)} cells, but the header has {len(columns)} columns"
                )
            else:
                pairs.append((reader.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise MMSearchError(f"{path}: row {reader.line_num}: {error}") from None
    return columns, pairs


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise MMSearchError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from None
    columns = _names(path, table.column_names)
    values = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*values, strict=True)]
    return columns, list(enumerate(rows, start=1))


def _names(path: Path, columns: list[str]) -> list[str]:
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise MMSearchError(f"{path}: column {twice[0]!r} is there twice")
    return list(columns)


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
