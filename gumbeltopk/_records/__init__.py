"""Records of CSV, TSV, NDJSON and Parquet input, in batches: the weight of each record and the record as it stands.

A reader has `begin()` or `resume(position, header, names)`, then `batches()`; after each batch `position()` is where
the next one begins. Memory is that of one piece of the input.
"""

from __future__ import annotations

from typing import Any

from gumbeltopk._records.batches import Batch, Position
from gumbeltopk._records.ndjson import ObjectReader
from gumbeltopk._records.parquet import ParquetReader
from gumbeltopk._records.pieces import Pieces
from gumbeltopk._records.separated import DELIMITERS, TableReader
from gumbeltopk._records.weights import BadRecord

__all__ = ["DELIMITERS", "FORMATS", "BadRecord", "Batch", "Pieces", "Position", "Reader", "make_reader"]

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}

Reader = TableReader | ObjectReader | ParquetReader


def make_reader(source: Any, form: str, column: str, *, skip: bool = False) -> Reader:
    """The reader of one input: `source` is a `Pieces`, or the path of a Parquet file."""
    if form == "parquet":
        return ParquetReader(source, column, skip=skip)
    if form == "ndjson":
        return ObjectReader(source, column, skip=skip)
    return TableReader(source, DELIMITERS[form], column, skip=skip)
