"""Records of CSV, TSV and NDJSON text: where each begins and ends, what it weighs, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import random
from typing import NamedTuple

import pytest

from gumbeltopk._records import BadRecord, Pieces, make_reader, pieces

HEADER = "name,w\n"


class Records(NamedTuple):
    """All that a reader finds in an input."""

    header: str
    texts: list[str]
    weights: list[float]


@pytest.fixture(params=[1, 2, 3, 7, 1 << 19], autouse=True)
def piece_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test holds for every size of the pieces that the input is read in."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", request.param)


def read_records(text: str, form: str, column: str) -> Records:
    reader = make_reader(Pieces(io.BytesIO(text.encode("utf-8"))), form, column)
    reader.begin()
    records = Records(reader.header, [], [])
    for batch in reader.batches():
        records.texts.extend(record.decode("utf-8") for record in batch.records)
        records.weights.extend(batch.weights.tolist())
    return records


def weights_of(text: str, form: str = "csv") -> list[float]:
    return read_records(text, form, "w").weights


# --- the text of each record is kept --------------------------------------------------------------


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_csv_records_keep_their_quotes_and_line_ends(line_end: str) -> None:
    """Quoted delimiters, quotes and line ends of any kind belong to the field, not to the splitting."""
    header = f'"name","w"{line_end}'
    texts = [f"plain,1{line_end}", f'"a ""quoted"", one","2"{line_end}', f'"x\ny\r\nz\rend",3.50{line_end}']
    assert read_records(header + "".join(texts), "csv", "w") == (header, texts, [1.0, 2.0, 3.5])


def test_ndjson_records_keep_their_spaces_and_numbers() -> None:
    """No value is written anew: 1.50e0 and an integer of 5000 digits stay as they are."""
    texts = ['{ "w" : 1.50e0 }\n', '{"id": ' + "9" * 5000 + ', "w": 2}\r\n', '{"x": NaN, "y": [{"w": 7}],\r "w": 3}\n']
    assert read_records("".join(texts), "ndjson", "w") == ("", texts, [1.5, 2.0, 3.0])


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_last_record_gets_the_line_end_of_the_file(line_end: str) -> None:
    """It may be written before others."""
    assert read_records(f"name,w{line_end}a,1{line_end}b,2", "csv", "w").texts == [f"a,1{line_end}", f"b,2{line_end}"]


@pytest.mark.parametrize("text", ['{"w": 1}', '{"w":\r1}', '{"w": 1}\r'])
def test_single_ndjson_record_without_line_end_is_read(text: str) -> None:
    """A lone carriage return is white space in JSON and ends no line."""
    assert read_records(text, "ndjson", "w") == ("", [text + "\n"], [1.0])


def test_byte_order_mark_stays_with_the_header_and_out_of_the_column_name() -> None:
    assert read_records("\ufeffw,name\n1,a\n", "csv", "w") == ("\ufeffw,name\n", ["1,a\n"], [1.0])
    assert read_records('\ufeff"w",name\n1,a\n', "csv", "w").weights == [1.0]
    assert read_records('\ufeff{"w": 1}\n', "ndjson", "w") == ("", ['{"w": 1}\n'], [1.0])


@pytest.mark.parametrize("separator", ["\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_separators_that_only_python_takes_for_line_ends_do_not_split(separator: str) -> None:
    assert read_records(f"name,w\na{separator}b,1\n", "csv", "w").texts == [f"a{separator}b,1\n"]


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_separators_that_json_allows_in_strings_do_not_split(separator: str) -> None:
    text = f'{{"name": "a{separator}b", "w": 1}}\n'
    assert read_records(text, "ndjson", "w").texts == [text]


def test_empty_lines_are_no_records() -> None:
    assert read_records("\n\nname,w\n\na,1\n\r\nb,2\n\n", "csv", "w") == ("name,w\n", ["a,1\n", "b,2\n"], [1.0, 2.0])
    assert weights_of('\n{"w": 1}\n  \n{"w": 2}\n\n', "ndjson") == [1.0, 2.0]


def test_tab_separates_tsv_and_comma_does_not() -> None:
    assert read_records("a,b\tw\n1,5\t2\n", "tsv", "w").weights == [2.0]


def test_header_alone_has_no_records() -> None:
    assert read_records("name,w", "csv", "w") == ("name,w\n", [], [])


def test_field_longer_than_the_csv_module_takes_by_default() -> None:
    """Texts of documents are; the module's setting, which is one for the whole process, is put back."""
    usual = csv.field_size_limit()
    assert weights_of(f"name,w\n{'x' * (usual + 1)},1\n") == [1.0]
    with pytest.raises(BadRecord):
        weights_of("name,w\na\n")
    assert csv.field_size_limit() == usual


def test_any_table_that_the_csv_module_writes_is_cut_into_its_rows() -> None:
    """The pieces join to the input again, and each parses to its own row; 200 random tables."""
    generator = random.Random(0)
    for _ in range(200):
        line_end = generator.choice(["\n", "\r\n"])
        rows = [["".join(generator.choices('ab,"\n\r\t ;é', k=generator.randrange(5))), "1"] for _ in range(8)]
        pieces = []
        for row in [["name", "w"], *rows]:
            buffer = io.StringIO(newline="")
            csv.writer(buffer, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerow(row)
            pieces.append(buffer.getvalue())
        assert read_records("".join(pieces), "csv", "w") == (pieces[0], pieces[1:], [1.0] * 8)


# --- weights --------------------------------------------------------------------------------------


NUMBERS = {
    "0": 0.0,
    "-0.0": 0.0,
    "0.00E5": 0.0,
    "5e-324": 5e-324,
    "1.7976931348623157e308": 1.7976931348623157e308,
    "123456789012345678901234567890": 123456789012345678901234567890.0,
}


@pytest.mark.parametrize("text", NUMBERS)
def test_weight_is_the_nearest_float(text: str) -> None:
    assert weights_of(f"{HEADER}a,{text}\n") == [NUMBERS[text]]
    assert weights_of(f'{{"w": {text}}}\n', "ndjson") == [NUMBERS[text]]


@pytest.mark.parametrize("field", ["2.5", " 2.5 ", '"2.5"', "+2.5", "25e-1"])
def test_weight_of_a_table_may_have_quotes_spaces_and_a_sign(field: str) -> None:
    assert weights_of(f"{HEADER}a,{field}\n") == [2.5]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("NaN", "'NaN' must be finite and not negative"),
        ("inf", "'inf' must be finite"),
        ("1e400", "'1e400' must be finite"),
        ("9" * 400, f"'{'9' * 60}'... must be finite"),
        ("-1", "'-1' must be finite and not negative"),
        ("-5e-324", "'-5e-324' must be finite and not negative"),
        ("1e-400", "'1e-400' is too small for a float64; scale the whole column"),
        ("0.00012e-330", "'0.00012e-330' is too small"),
        ("", "is empty; write 0"),
        ("  ", "is empty; write 0"),
        ("heavy", "'heavy' is not a number; write one such as 0.5"),
        ("true", "'true' is not a number"),
        ('"1,5"', "'1,5' is not a number"),
        ("0x10", "'0x10' is not a number"),
        ("1_000", "'1_000' is not a number; write it without underscores"),
    ],
)
def test_bad_weight_is_refused_with_line_column_and_value(text: str, complaint: str) -> None:
    """The line is that of the file, after a record of two lines and an empty one."""
    with pytest.raises(BadRecord) as caught:
        weights_of(f'{HEADER}"two\nlines",1\n\na,{text}\nb,also bad\n')
    assert str(caught.value).startswith(f"line 5, column 'w': the weight {complaint}")


def test_line_of_a_bad_record_is_the_one_where_it_begins() -> None:
    with pytest.raises(BadRecord, match=r"^line 3, column 'w'"):
        weights_of(f'{HEADER}a,1\n"over\nthree\nlines",x\n')
    with pytest.raises(BadRecord, match=r"^line 3: 1 fields"):
        weights_of(f'{HEADER}a,1\n"over\nthree\nlines"\n')


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("NaN", "'NaN' must be finite"),
        ("-Infinity", "'-Infinity' must be finite"),
        ("1e999", "'1e999' must be finite"),
        ("9" * 5000, f"'{'9' * 60}'... must be finite"),
        ("-1", "'-1' must be finite and not negative"),
        ("1E-999", "'1E-999' is too small"),
        ("true", "is a truth value; write a number"),
        ("null", "is null; write a number"),
        ('"1"', "is the string '1'; write a number, unquoted"),
        ("[1]", "is an array; write a number"),
        ("{}", "is an object; write a number"),
        ('{"w": 1}', "is an object; write a number"),
    ],
)
def test_bad_json_weight_is_refused_with_line_field_and_value(value: str, complaint: str) -> None:
    with pytest.raises(BadRecord) as caught:
        weights_of(f'{{"w": 1}}\n\n{{"w": {value}}}\n', "ndjson")
    assert str(caught.value).startswith(f"line 3, column 'w': the weight {complaint}")


# --- what is no table -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the input is empty; it needs a header line"),
        ("\n\r\n", "the input is empty; it needs a header line"),
        ("\ufeff", "the input is empty; it needs a header line"),
        ("a,b\n1,2\n", "column 'w' is not there; check -w and --format (the columns are 'a', 'b')"),
        ("a\tw\n1\t2\n", r"column 'w' is not there; check -w and --format (the columns are 'a\tw')"),
        ("a, w\n1, 2\n", "column 'w' is not there; check -w and --format (the columns are 'a', ' w')"),
        ("w,b,w\n1,2,3\n", "column 'w' is there more than once; rename one (the columns are 'w', 'b', 'w')"),
        ("a,w\n1,2\n1\n", "line 3: 1 fields, but the header has 2; check its quotes and --format"),
        ("a,w\n1,2,3\n", "line 2: 3 fields, but the header has 2; check its quotes and --format"),
        ('a,w\n1,2\n"b,2\nc,3\n', "the record that begins in line 3: unexpected end of data; check its quotes"),
        ('a,w\n1,2\n"b"c,2\n', "the record that begins in line 3: ',' expected after '\"'; check its quotes"),
    ],
)
def test_bad_table_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(BadRecord) as caught:
        weights_of(text)
    assert str(caught.value).startswith(complaint)


def test_a_wide_table_is_not_listed_whole() -> None:
    with pytest.raises(BadRecord, match=r"'c19' and 480 more\)$"):
        weights_of(",".join(f"c{i}" for i in range(500)) + "\n")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{w: 1}", "line 2 is not JSON (Expecting property name enclosed in double quotes at character 2); write"),
        ('{"w": 1} {"w": 2}', "line 2 is not JSON (Extra data at character 10); write one object a line"),
        ('{"w": 1', "line 2 is not JSON (Expecting ',' delimiter"),
        ("[1]", 'line 2 is not an object; write one object a line, such as {"w": 1.5}'),
        ("[]", "line 2 is not an object"),
        ("1", "line 2 is not an object"),
        ("{}", "line 2: field 'w' is not there; check -w, or add it (the fields are )"),
        ('{"x": 1, "y": {"w": 1}}', "line 2: field 'w' is not there; check -w, or add it (the fields are 'x', 'y')"),
        ('{"w": 1, "w": 2}', "line 2: field 'w' is there more than once; rename one (the fields are 'w', 'w')"),
        ('{"w": 1, "x": ' + "[" * 100_000 + "}", "line 2 is nested too deeply"),
    ],
)
def test_bad_ndjson_is_refused(line: str, complaint: str) -> None:
    with pytest.raises(BadRecord) as caught:
        weights_of(f'{{"w": 1}}\n{line}\n', "ndjson")
    assert str(caught.value).startswith(complaint)


def test_json_numbers_are_not_converted_before_they_are_needed() -> None:
    """json.loads alone fails on an integer of 5000 digits, in whatever field it stands."""
    line = '{"w": 1, "id": ' + "7" * 5000 + "}\n"
    with pytest.raises(ValueError, match="4300"):
        json.loads(line)
    assert weights_of(line, "ndjson") == [1.0]
