"""Rows of CSV and TSV, all lines of a piece at once.

Where quotes stand only around fields, and doubled within them, a place lies within quotes if the number of quotes
before it is odd; other newlines end a row, and other delimiters a field. Whatever is not plain (quotes elsewhere, empty
lines, another number of fields, a weight that is no number) is left to the careful way, which finds the line and the
words for it.
"""

from __future__ import annotations

import numpy as np

from gumbeltopk._records.batches import Batch, Letters, Places, Slices, Weights

NEWLINE, RETURN, QUOTE, UNDERSCORE, ONE, NINE = (ord(letter) for letter in '\n\r"_19')
WIDEST = 64  # bytes of a weight
ROWS_AT_A_TIME = 1 << 12


def read_plain(piece: bytes, delimiter: str, columns: int, place: int) -> tuple[Batch, int] | None:
    """The rows that end in a piece, the weights being in the column number `place`; and the length of their text."""
    if not _is_plain_text(piece):
        return None
    letters = np.frombuffer(piece + bytes(WIDEST), dtype=np.uint8)  # room to read WIDEST bytes from any place
    quotes = np.flatnonzero(letters == QUOTE)
    if not _stand_around_fields(letters, quotes, ord(delimiter)):
        return None
    returns = _outside(quotes, np.flatnonzero(letters == RETURN)) if b"\r" in piece else quotes[:0]
    line_ends = _outside(quotes, np.flatnonzero(letters == NEWLINE))
    if len(line_ends) == 0 or (letters[returns + 1] != NEWLINE).any():
        return None
    length = int(line_ends[-1]) + 1
    starts = np.concatenate(([0], line_ends[:-1] + 1))
    delimiters = _outside(quotes, np.flatnonzero(letters[:length] == ord(delimiter)))
    bounds = _field_bounds(delimiters, starts, line_ends, columns, place)
    weights = None if bounds is None else _parse(letters, *_without_quotes(letters, *bounds))
    return None if weights is None else (Batch(weights, Slices(piece, starts, line_ends + 1)), length)


def _is_plain_text(piece: bytes) -> bool:
    """UTF-8 without zeros, which end a string in NumPy."""
    if b"\0" in piece:
        return False
    if piece.isascii():
        return True
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _stand_around_fields(letters: Letters, quotes: Places, delimiter: int) -> bool:
    """Whether each quote, in turn, opens and closes: a field, or what is between two quotes that mean one."""
    if len(quotes) == 0:
        return True
    opening, closing = quotes[0::2], quotes[1::2]
    before = letters[opening - 1]
    if opening[0] == 0:
        before[0] = NEWLINE
    after = letters[closing + 1]
    return bool(
        ((before == delimiter) | (before == NEWLINE) | (before == QUOTE)).all()
        and ((after == delimiter) | (after == NEWLINE) | (after == RETURN) | (after == QUOTE)).all()
    )


def _outside(quotes: Places, places: Places) -> Places:
    """The places that do not lie within quotes."""
    return places if len(quotes) == 0 else places[np.searchsorted(quotes, places) % 2 == 0]


def _field_bounds(
    delimiters: Places, starts: Places, line_ends: Places, columns: int, place: int
) -> tuple[Places, Places] | None:
    """Where the field of each row begins and ends, if each row has `columns` fields."""
    if columns == 1:
        return (starts, line_ends) if len(delimiters) == 0 else None
    if len(delimiters) != len(starts) * (columns - 1):
        return None
    delimiters = delimiters.reshape(len(starts), columns - 1)
    # They are in order, so if the first and the last of each row lie in it, all of them do.
    if not ((delimiters[:, 0] >= starts).all() and (delimiters[:, -1] < line_ends).all()):
        return None
    lefts = starts if place == 0 else delimiters[:, place - 1] + 1
    rights = line_ends if place == columns - 1 else delimiters[:, place]
    return lefts, rights


def _without_quotes(letters: Letters, lefts: Places, rights: Places) -> tuple[Places, Places]:
    """The bounds of the fields without the quotes around them, and without a carriage return at the end of a line."""
    rights = rights - ((letters[rights - 1] == RETURN) & (rights > lefts))
    is_quoted = letters[lefts] == QUOTE
    return lefts + is_quoted, rights - is_quoted


def _parse(letters: Letters, lefts: Places, rights: Places) -> Weights | None:
    """The numbers between these bounds, if all of them are plain."""
    widths = rights - lefts
    widest = int(widths.max())
    if widest > WIDEST or widths.min() <= 0:
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
