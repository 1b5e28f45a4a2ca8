"""Whatever a table holds, and in whatever pieces it comes: its rows are those of Python's csv module, byte by byte.

The oracle takes the whole table apart with csv.reader, line by line; the reader sees it in pieces of one byte up to all
of it.
"""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gumbeltopk._records import BadRecord, Pieces, make_reader, pieces, separated
from gumbeltopk._records.plain import read_plain

# Few letters, so that quotes, delimiters and line ends meet in all ways.
TEXT = st.text(alphabet='a1,\t"\n\r é€\u2028.', max_size=8)
WEIGHTS = st.one_of(
    st.floats(0, 1.7976931348623157e308).map(repr), st.sampled_from(["0", "-0.0", " 1 ", "1e-5", "+2.", "007", "0e7"])
)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
SIZES = st.integers(1, 70)


def quoted(field: str, always: bool) -> str:
    """After RFC 4180. (The csv module before Python 3.13 leaves a carriage return unquoted.)"""
    return '"' + field.replace('"', '""') + '"' if always or re.search(r'[,"\r\n]', field) else field


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, int]:
    """A table and the place of its weights."""
    columns = draw(st.integers(1, 4))
    place = draw(st.integers(0, columns - 1))
    line_end = draw(LINE_ENDS)
    rows = [[f"c{i}" for i in range(columns)]]
    rows[0][place] = "w"
    for weight in draw(st.lists(WEIGHTS, max_size=12)):
        rows.append(draw(st.lists(TEXT, min_size=columns, max_size=columns)))
        rows[-1][place] = weight
    text = ""
    for row in rows:
        text += ",".join(quoted(field, draw(st.integers(0, 9)) == 9) for field in row) + line_end
        text += line_end * (draw(st.integers(0, 9)) == 9)
    return text.removesuffix(line_end) if draw(st.booleans()) else text, place


def read_in_pieces(
    data: bytes, size: int, form: str = "csv", skip: bool = False
) -> tuple[str, list[bytes], list[float]]:
    """Header, records and weights; every batch with records in it is the last of its reader, and another resumes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", size)
        patch.setattr(separated, "CAREFUL_BYTES", max(1, size // 3))
        reader = make_reader(Pieces(io.BytesIO(data)), form, "w", skip=skip)
        reader.begin()
        header, names = reader.header, reader.names
        records: list[bytes] = []
        weights: list[float] = []
        while batch := next((batch for batch in reader.batches() if len(batch.weights)), None):
            records += list(batch.records)
            weights += batch.weights.tolist()
            position = reader.position()
            source = Pieces(io.BytesIO(data[position.offset :]), offset=position.offset)
            reader = make_reader(source, form, "w", skip=skip)
            reader.resume(position, header, names)
        return header, records, weights


def oracle(text: str, place: int) -> tuple[list[bytes], list[float]]:
    """Records and weights by csv.reader on single lines: the lines it takes for a row are the record."""
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", text)
    taken: list[str] = []

    def feed():
        for line in lines:
            taken.append(line)
            yield line

    records, weights = [], []
    for fields in csv.reader(feed(), strict=True):
        if fields:
            records.append("".join(taken).encode())
            weights.append(fields[place])
        taken.clear()
    end = re.search("\r\n|\r|\n", text)
    if records and not records[-1].endswith((b"\n", b"\r")):
        records[-1] += end.group().encode() if end else b"\n"
    return records, [float(weight) for weight in weights[1:]]


@settings(max_examples=400, deadline=None)
@given(tables(), SIZES)
@example(('w\n"1"', 0), 1)
def test_rows_are_those_of_the_csv_module_in_pieces_of_any_size(table: tuple[str, int], size: int) -> None:
    text, place = table
    records, weights = oracle(text, place)
    assert read_in_pieces(text.encode(), size) == (records[0].decode(), records[1:], weights)


def outcome(data: bytes, size: int, skip: bool) -> object:
    """What is found, or what is said."""
    try:
        return read_in_pieces(data, size, skip=skip)
    except BadRecord as error:
        return str(error)


@settings(max_examples=800, deadline=None)
@given(
    st.lists(st.sampled_from(["1", ",1\n", "a", '"', '""', ",", "\n", "\r", "\r\n", "\0", "_", " ", "é", '",1\n"'])),
    SIZES,
    st.booleans(),
)
def test_any_text_gives_the_same_rows_or_the_same_complaint(parts: list[str], size: int, skip: bool) -> None:
    """No table at all, most of the time: nothing depends on the pieces, nor on the fast way."""
    data = ("a,w\n" + "".join(parts)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separated, "read_plain", lambda *arguments: None)
        expected = outcome(data, 1 << 20, skip)
    assert outcome(data, size, skip) == expected
    assert outcome(data, 1 << 20, skip) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["x,1\n", '"x\n,y",2\n', "x\n", "x,-1\n", '"x"y,1\n', "x,1,2\n", "\n", 'x"y,3\r\n']),
        max_size=20,
    ),
    SIZES,
)
def test_bad_rows_that_are_skipped_weigh_nothing_and_keep_their_places(rows: list[str], size: int) -> None:
    weight = {"x,1\n": 1.0, '"x\n,y",2\n': 2.0, 'x"y,3\r\n': 3.0}
    records = [row for row in rows if row != "\n"]
    found = read_in_pieces(("a,w\n" + "".join(rows)).encode(), size, skip=True)
    assert found == ("a,w\n", [row.encode() for row in records], [weight.get(row, 0.0) for row in records])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ['{"w": 1}\n', '{"n": "\\n\\"}{", "w": 2}\r\n', "\n", " \r\n", '{"n": "\u2028", "w": 3,\r "x": 1}\n']
        ),
        max_size=20,
    ),
    SIZES,
)
def test_objects_are_the_lines_in_pieces_of_any_size(lines: list[str], size: int) -> None:
    records = [line for line in lines if line.strip()]
    weights = [float(re.search(r'"w": (\d)', line)[1]) for line in records]
    assert read_in_pieces("".join(lines).encode(), size, "ndjson") == ("", [line.encode() for line in records], weights)


# --- the fast way ---------------------------------------------------------------------------------


def test_plain_rows_are_taken_the_fast_way() -> None:
    """So that the other tests speak of it."""
    for end in (b"\n", b"\r\n"):
        for last in (b"z", b'"z"', b'"a""b"', b'""', b'""""', b'",\n\r"'):
            rows = [row + end for row in (b"a,1.5,x", "é,2e-3,".encode(), b',"0.00",y', b"z,3," + last)]
            found = read_plain(b"".join(rows), ",", 3, 1)
            assert found is not None
            assert found[0].weights.tolist() == [1.5, 0.002, 0.0, 3.0]
            assert list(found[0].records) == rows
            assert found[1] == len(b"".join(rows))


def test_weights_in_the_last_column_may_have_quotes_and_carriage_returns() -> None:
    found = read_plain(b'a,"1"\r\nb,2\r\n', ",", 2, 1)
    assert found is not None
    assert found[0].weights.tolist() == [1.0, 2.0]


def test_a_row_that_does_not_end_is_left_over() -> None:
    found = read_plain(b'a,1\n"b\n",2\n"c\n,3\n', ",", 2, 1)
    assert found is not None
    assert list(found[0].records) == [b"a,1\n", b'"b\n",2\n']
    assert found[1] == len(b'a,1\n"b\n",2\n')


@pytest.mark.parametrize(
    "line",
    [b'"a"b,1', b'a"b,1', b'a"b",1', b'"a" ,1', b' "a",1', b'a,"1" ', b'a,"1""2"', b'a,""', b'"a"\r,1',
     b"a", b"a,1,2", b"", b"a,", b"a, ", b"a,x", b"a,1_0", b"a,-1", b"a,nan", b"a,inf", b"a,1e999",
     b"a,1e-999", b"a,1\0", b"\xff,1", b"a\rb,1", b"a," + b"1" * 65],
)  # fmt: skip
@pytest.mark.parametrize("before", [b"", b"b,2\n"])
@pytest.mark.parametrize("after", [b"", b"b,2\n"])
def test_what_is_not_plain_is_left_to_the_careful_way(line: bytes, before: bytes, after: bytes) -> None:
    assert read_plain(before + line + b"\n" + after, ",", 2, 1) is None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(0, 1.7976931348623157e308), min_size=1), st.sampled_from(["%r", "%.3e", "%.17g", " %r ", "+%r"])
)
def test_fast_numbers_are_the_nearest_floats(numbers: list[float], form: str) -> None:
    """Those of Python's float, to the last bit."""
    texts = [form % number for number in numbers]
    found = read_plain("".join(f"{text}\n" for text in texts).encode(), ",", 1, 0)
    if found is not None:
        assert found[0].weights.tobytes() == np.asarray([float(text) for text in texts]).tobytes()
    else:  # a number that rounding has made infinite or zero
        assert any(
            float(text) == np.inf or (float(text) == 0 and number > 0)
            for text, number in zip(texts, numbers, strict=True)
        ) or any("0e" in t for t in texts)


# --- long records ---------------------------------------------------------------------------------


class Counting(io.BytesIO):
    """Counts the reads."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        return super().read(size)


def test_a_record_of_many_pieces_is_looked_at_a_logarithmic_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 64)
    monkeypatch.setattr(separated, "CAREFUL_BYTES", 16)
    source = Counting(b'a,w\n"' + b"x\n" * 500_000 + b'",1\nb,2\n')
    reader = make_reader(Pieces(source), "csv", "w")
    reader.begin()
    assert [len(record) for batch in reader.batches() for record in batch.records] == [1_000_005, 4]
    assert source.reads < 40


@pytest.mark.parametrize("row", [b"a,1\n", b'"a",1\n', b'"a\n",1\n', b"a,1\r"])
def test_pieces_do_not_grow(row: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read is of one piece, whatever the rows hold: what is given back is used before more is read."""
    sizes: list[int] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            sizes.append(size or 0)
            return super().read(size)

    monkeypatch.setattr(pieces, "PIECE_BYTES", 1024)
    monkeypatch.setattr(separated, "CAREFUL_BYTES", 128)
    reader = make_reader(Pieces(Watched(b"n,w\n" + row * 20_000)), "csv", "w")
    reader.begin()
    batches = [batch.weights for batch in reader.batches()]
    assert sum(map(len, batches)) == 20_000
    assert max(sizes) == 1024
    assert max(map(len, batches)) <= 1100
