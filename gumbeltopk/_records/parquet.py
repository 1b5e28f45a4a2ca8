"""Parquet, by pyarrow: a record is a row, as an Arrow stream of one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from gumbeltopk._records.batches import Batch, Position, Weights
from gumbeltopk._records.weights import BadRecord, listed

ROWS_AT_A_TIME = 1 << 16


class MissingPackage(Exception):
    """pyarrow cannot be imported."""


def import_pyarrow() -> Any:
    """The package, with what is used of it."""
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        advice = 'install it with: python -m pip install "gumbeltopk[parquet]"'
        raise MissingPackage(f"pyarrow cannot be imported ({error}); {advice}") from None
    return pa


class Rows(Sequence[bytes]):
    """Rows of a record batch; only those that are asked for are written out."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return Rows(self._batch.take(list(range(len(self)))[index]))
        pa = import_pyarrow()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._batch.schema) as writer:
            writer.write_batch(self._batch.slice(index, 1))
        return bytes(sink.getvalue())


class ParquetReader:
    """A Parquet file with a column of numbers; positions count rows."""

    def __init__(self, path: str, column: str, *, skip: bool = False) -> None:
        self._pa = import_pyarrow()
        self._column = column
        self._skip = skip
        self._row = 0
        self._start = 0
        try:
            self._file = self._pa.parquet.ParquetFile(path)
        except self._pa.ArrowInvalid as error:
            raise BadRecord(f"this is no Parquet file ({error}); check --format") from None
        self.header = ""
        self.names: list[str] = []

    def begin(self) -> None:
        """Look for the column."""
        schema = self._file.schema_arrow
        self.header = schema.serialize().to_pybytes().hex()
        self.names = [f"{field.name}: {field.type}" for field in schema]
        if schema.names.count(self._column) != 1:
            what = "is there more than once" if self._column in schema.names else "is not there; check -w"
            raise BadRecord(f"column {self._column!r} {what} (the columns are {listed(schema.names)})")
        kind, types = schema.field(self._column).type, self._pa.types
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
            raise BadRecord(f"column {self._column!r} is of type {kind}; the weights must be numbers")

    def resume(self, position: Position, header: str, names: list[str]) -> None:
        """Go on, instead of `begin`, from this row."""
        self.names = names
        self._start = position.offset

    def position(self) -> Position:
        """Where the next batch begins."""
        return Position(self._row, 0, "")

    def batches(self) -> Iterator[Batch]:
        """All records, in order."""
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if self._row + rows <= self._start:
                self._row += rows
                continue
            for batch in self._file.iter_batches(batch_size=ROWS_AT_A_TIME, row_groups=[group]):
                taken = max(0, min(self._start - self._row, batch.num_rows))
                self._row += taken
                if taken < batch.num_rows:
                    yield self._read(batch.slice(taken))

    def _read(self, batch: Any) -> Batch:
        column = batch.column(batch.schema.names.index(self._column))
        weights = column.cast(self._pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # null becomes NaN
        good = (weights >= 0) & (weights < np.inf)
        bad = np.flatnonzero(~good)
        complaint = "" if len(bad) == 0 else self._complaint(column[int(bad[0])], int(bad[0]))
        if complaint and not self._skip:
            raise BadRecord(complaint)
        self._row += batch.num_rows
        kept: Weights = np.where(good, weights, 0.0)
        return Batch(kept, Rows(batch), len(bad), complaint)

    def _complaint(self, value: Any, place: int) -> str:
        where = f"row {self._row + place + 1}, column {self._column!r}: the weight"
        if not value.is_valid:
            return f"{where} is null; write 0 for a row that is never to be drawn"
        return f"{where} {value.as_py()!r} must be finite and not negative; 0 is a row that is never drawn"
