"""Rows of CSV and TSV without quotes, all lines of a piece at once.

Without quotes a line is a row and a delimiter ends a field. Whatever is not plain (empty lines, another number of
fields, a weight that is no number) is left to the careful way, which finds the line and the words for it.
"""

from __future__ import annotations

import numpy as np

from gumbeltopk._records.batches import Batch, Letters, Places, Slices, Weights

NEWLINE, UNDERSCORE, ONE, NINE = (ord(letter) for letter in "\n_19")
WIDEST = 64  # bytes of a weight
ROWS_AT_A_TIME = 1 << 12


def read_plain(piece: bytes, delimiter: str, columns: int, place: int) -> Batch | None:
    """The rows of a piece that ends with a line end, the weights being in the column number `place`."""
    if not _has_plain_letters(piece):
        return None
    letters = np.frombuffer(piece + bytes(WIDEST), dtype=np.uint8)  # room to read WIDEST bytes from any place
    line_ends = np.flatnonzero(letters == NEWLINE)
    starts = np.concatenate(([0], line_ends[:-1] + 1))
    bounds = _field_bounds(letters, starts, line_ends, ord(delimiter), columns, place)
    weights = None if bounds is None else _parse(letters, *bounds)
    return None if weights is None else Batch(weights, Slices(piece, starts, line_ends + 1))


def _has_plain_letters(piece: bytes) -> bool:
    """UTF-8 without quotes, where only newlines, with carriage returns before them, end a line."""
    if b'"' in piece or b"\0" in piece or not piece.endswith(b"\n"):
        return False
    if b"\r" in piece and piece.count(b"\r") != piece.count(b"\r\n"):
        return False
    if piece.isascii():
        return True
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _field_bounds(
    letters: Letters, starts: Places, line_ends: Places, delimiter: int, columns: int, place: int
) -> tuple[Places, Places] | None:
    """Where the field of each line begins and ends, if each line has `columns` fields."""
    if columns == 1:
        return starts, line_ends
    delimiters: Places = np.flatnonzero(letters == delimiter)
    if len(delimiters) != len(starts) * (columns - 1):
        return None
    delimiters = delimiters.reshape(len(starts), columns - 1)
    # They are in order, so if the first and the last of each row lie in its line, all of them do.
    if not ((delimiters[:, 0] >= starts).all() and (delimiters[:, -1] < line_ends).all()):
        return None
    lefts = starts if place == 0 else delimiters[:, place - 1] + 1
    rights = line_ends if place == columns - 1 else delimiters[:, place]
    return lefts, rights


def _parse(letters: Letters, lefts: Places, rights: Places) -> Weights | None:
    """The numbers between these bounds, if all of them are plain."""
    widths = rights - lefts
    widest = int(widths.max())
    if widest > WIDEST or widths.min() == 0:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(letters, widest)
    after = np.arange(widest)
    weights = np.empty(len(lefts))
    for first in range(0, len(lefts), ROWS_AT_A_TIME):
        rows = slice(first, first + ROWS_AT_A_TIME)
        fields = windows[lefts[rows]]
        fields[after >= widths[rows, None]] = 0  # NumPy's strings end where only zeros follow
        try:
            weights[rows] = fields.view(f"S{widest}").ravel().astype(np.float64)
        except ValueError:
            return None
        if (fields == UNDERSCORE).any() or _vanishes(weights[rows], fields):
            return None
    # The comparisons are false for NaN.
    return weights if weights.min() >= 0 and weights.max() < np.inf else None


def _vanishes(weights: Weights, fields: Letters) -> bool:
    """Whether a weight of 0 has been written with other digits: it may be too small for a float64."""
    of_zeros = fields[weights == 0]
    return bool(((of_zeros >= ONE) & (of_zeros <= NINE)).any())
