"""CSV: every record comes out once, as it is written, with the line on which it starts."""

import csv
import gzip
import io
import json
import random
import re

import pytest
from support.raw_files import NAMES, THINGS, WORDS, read_csv, read_json, refusal

from lakehouse_utils.pipeline.landing import LandingFile
from lakehouse_utils.pipeline.lineage import SOURCE_LINE
from lakehouse_utils.pipeline.parsing import csv as csv_files
from lakehouse_utils.pipeline.parsing import limits, read
from lakehouse_utils.pipeline.parsing.csv_records import Dialect
from lakehouse_utils.pipeline.parsing.text_files import Chunk


def written_csv(chance: random.Random) -> tuple[str, list[tuple[int, tuple[str, ...]]]]:
    """A well-formed CSV file, and its rows with the lines on which they begin."""
    ends = chance.choice([["\n"], ["\r\n"], ["\n", "\r\n"]])
    quoting = chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    blanks = chance.choice([0, 0, 0.2])
    text, rows = "", []
    for number in range(chance.randrange(12) + 1):
        fields = NAMES if number == 0 else ["".join(chance.choices(WORDS, k=chance.randrange(4))) for _ in NAMES]
        while chance.random() < blanks:
            text += chance.choice(ends)
        if number:
            rows.append((text.count("\n") + 1, tuple(fields)))
        out = io.StringIO()
        csv.writer(out, quoting=quoting).writerow(fields)
        text += out.getvalue().removesuffix("\r\n") + chance.choice(ends)
    if chance.random() < 0.3:
        text = text.removesuffix("\n").removesuffix("\r")
    return text, rows


@pytest.mark.parametrize("seed", range(80))
def test_csv_well_formed(seed, tiny_blocks):
    """Every row comes out as it is written, with its line, wherever blocks end."""
    chance = random.Random(seed)
    text, rows = written_csv(chance)
    by_python = [tuple(row) for row in csv.reader(io.StringIO(text, newline="")) if row]
    assert [values for _, values in rows] == by_python[1:]
    data = chance.choice(["", "\ufeff"]) + text
    for block in {1, 2, 3, 5, 7, 16, 61, 1 << 20}:
        tiny_blocks(block)
        content = read_csv(data)
        assert content.rows == rows, block
        assert content.broken == []


def by_character(text: str, width: int) -> tuple[list, list]:
    """(line, fields) of good records, and the lines of broken ones: the grammar, one character at a time."""
    good, broken = [], []
    position, line = 0, 1
    while position < len(text):
        begin, fields, wrong = position, [], False
        while not wrong:
            field, ended = "", ""
            if text[position] == '"':
                position += 1
                while position < len(text):
                    if text[position] != '"':
                        field += text[position]
                    elif text[position + 1 : position + 2] == '"':
                        field += '"'
                        position += 1
                    else:
                        break
                    position += 1
                behind = re.match(r",|\r?\n", text[position + 1 :])
                wrong = behind is None
                if behind:
                    ended = behind[0]
                    position += 1 + len(ended)
            else:
                ended = re.search(r",|\n", text[position:])[0]
                end = text.index(ended, position)
                field = text[position:end]
                position = end + 1
                if ended == "\n" and field.endswith("\r"):
                    field = field[:-1]
            fields.append(field)
            if ended.endswith("\n"):
                break
        if wrong:
            position = text.index("\n", begin) + 1
        if text[begin:position] not in ("\n", "\r\n"):
            if wrong or len(fields) != width:
                broken.append(line)
            else:
                good.append((line, tuple(fields)))
        line += text.count("\n", begin, position)
    return good, broken


@pytest.mark.parametrize("seed", range(80))
def test_csv_broken(seed, tiny_blocks):
    """Good and broken records are separated in the same way wherever blocks end."""
    chance = random.Random(seed)
    letters = chance.choice(['a,"\n', 'aé,,"\n\r', "a,,,\n\n\r", 'a,"",""\n'])
    for _ in range(6):
        text = "".join(chance.choices(letters, k=chance.randrange(60))) + "\n"
        good, broken = by_character(text, 3)
        shift = 1  # the header
        for block in {1, 2, 3, 7, 1 << 20}:
            tiny_blocks(block)
            content = read_csv("id,name,note\n" + text)
            assert content.rows == [(line + shift, values) for line, values in good], (text, block)
            assert [line for line, _, _ in content.broken] == [line + shift for line in broken], (text, block)
            physical = text.split("\n")
            for line, raw, _ in content.broken:
                assert raw.split("\n")[0].rstrip("\r") == physical[line - shift - 1].rstrip("\r")


@pytest.mark.parametrize("seed", range(40))
def test_csv_arrow_and_record_by_record_agree(seed):
    """Arrow and the reader that goes record by record return the same block."""
    chance = random.Random(seed)
    text, rows = written_csv(chance)
    body = text[text.index("\n", text.index("note")) + 1 :] if rows else "1,2,3\n"
    data = (body if body.endswith("\n") else body + "\n").encode()
    careful = list(csv_files.parse_record_by_record(Chunk(5, data), NAMES, Dialect()))
    lines, _ = csv_files.record_lines(Chunk(5, data), Dialect())
    assert len(lines) != len(careful[0].rows) or list(lines) == careful[0].rows[SOURCE_LINE].to_pylist()
    (either,) = csv_files.parse_chunk(Chunk(5, data), NAMES, Dialect())
    assert either.rows.equals(careful[0].rows)
    assert (either.broken, either.read, either.size_bytes) == (
        careful[0].broken,
        careful[0].read,
        careful[0].size_bytes,
    )


def test_csv_clean_chunk_is_read_by_arrow(monkeypatch):
    """A chunk without a problem is never read record by record."""
    monkeypatch.setattr(csv_files, "parse_record_by_record", lambda *args: pytest.fail("the careful reader was called"))
    content = read_csv('id,name,note\r\n1,"a ""b"", c",x\r\n2,"two\r\nlines",\r\n3,é,"",\r\n'.replace('"",\r', '""\r'))
    assert content.rows == [(2, ("1", 'a "b", c', "x")), (3, ("2", "two\r\nlines", "")), (5, ("3", "é", ""))]


def test_csv_many_short_values_are_halved(monkeypatch):
    """A chunk with too many cells is halved until each block has few enough."""
    monkeypatch.setattr(limits, "MAX_CELLS", 9)
    content = read_csv("id,name,note\n" + '1,"\n",\n2,"\nx\n",\n3,,\n' * 20)
    assert [line for line, _ in content.rows] == [2 + 6 * i + j for i in range(20) for j in (0, 2, 5)]
    assert [values[1] for _, values in content.rows] == ["\n", "\nx\n", ""] * 20
    assert max(block.rows.num_rows for block in content.blocks) <= 3


@pytest.mark.parametrize(
    "body",
    [
        "1,a\n2,b,c,d\n",  # too few and too many make up for each other
        "1,a,b,c\n2,b\n",
        '1,5" tube,"a"\n2,6" tube,b\n',
        '1,"a\n2,b"x,c\n',
        "1,a,b\n\n2,a,b\n",
        "\ufeff1,a,b\n",
    ],
)
def test_csv_chunk_with_a_problem_is_read_record_by_record(body, monkeypatch):
    """A chunk in which anything is not clean is read record by record."""
    careful = []
    parse = csv_files.parse_record_by_record
    monkeypatch.setattr(csv_files, "parse_record_by_record", lambda *args: careful.append(args) or parse(*args))
    read_csv("id,name,note\n" + body)
    assert careful


@pytest.mark.parametrize(
    ("body", "rows", "reasons"),
    [
        ("", [], {}),
        ("1,a,b", [(2, ("1", "a", "b"))], {}),
        ("\n\n1,a,b\n\r\n2,c,d\n\n\n", [(4, ("1", "a", "b")), (6, ("2", "c", "d"))], {}),
        ("1,a,b\r\n2,c,d\n3,e,f\r\n", [(2, ("1", "a", "b")), (3, ("2", "c", "d")), (4, ("3", "e", "f"))], {}),
        ("   \n1,a,b\n", [(3, ("1", "a", "b"))], {2: "expected 3 fields, found 1"}),
        (",,\n", [(2, ("", "", ""))], {}),
        (" 1 , a ,\t\n", [(2, (" 1 ", " a ", "\t"))], {}),
        (
            "1,a\n2,b,c,d\n3,c,d\n",
            [(4, ("3", "c", "d"))],
            {2: "expected 3 fields, found 2", 3: "expected 3 fields, found 4"},
        ),
        ("1,a\0b,\n", [(2, ("1", "a\0b", ""))], {}),
        ("1,a\u2028b\x85\x0b\x0cc,\n", [(2, ("1", "a\u2028b\x85\x0b\x0cc", ""))], {}),
        ("1,a\rb,c\r\r\n", [(2, ("1", "a\rb", "c\r"))], {}),
        ('1,5" tube,"6"" tube"\n', [(2, ("1", '5" tube', '6" tube'))], {}),
        ('1,"a"b,c\n2,b,c\n', [(3, ("2", "b", "c"))], {2: "there is text after a closing quote"}),
        ('1,"a,c\n2,b,c\n', [(3, ("2", "b", "c"))], {2: "a quoted field is never closed"}),
        (
            '1,"a,c\n2,b,c\n3,"d",e\n',
            [(3, ("2", "b", "c")), (4, ("3", "d", "e"))],
            {2: "there is text after a closing quote"},
        ),
        ('1, "a, b"\n', [(2, ("1", ' "a', ' b"'))], {}),
        ("NULL,null,\n", [(2, ("NULL", "null", ""))], {}),
        ("1,NaN,-Infinity\n", [(2, ("1", "NaN", "-Infinity"))], {}),
        ("2026-02-30,007,1e999\n", [(2, ("2026-02-30", "007", "1e999"))], {}),
        ("\ufeff1,a,b\n", [(2, ("\ufeff1", "a", "b"))], {}),
    ],
)
def test_csv_body(body, rows, reasons):
    """Each kind of line becomes the expected row, or is broken for the expected reason."""
    content = read_csv("id,name,note\n" + body)
    assert content.rows == rows
    assert content.reasons.keys() == reasons.keys()
    for line, reason in reasons.items():
        assert content.reasons[line].startswith(reason)


def test_csv_invalid_utf8_breaks_only_its_row():
    """Invalid UTF-8 breaks its own row, and its bytes are shown escaped."""
    content = read_csv(b"id,name,note\n1,M\xfcller,\n2,M\xc3\xbcller,\n3,\xed\xa0\x80,\r\n")
    assert content.rows == [(3, ("2", "Müller", ""))]
    assert content.broken == [
        (2, "1,M\\xfcller,", "invalid UTF-8: byte 0xfc at position 4"),
        (4, "3,\\xed\\xa0\\x80,", "invalid UTF-8: byte 0xed at position 3"),
    ]


@pytest.mark.parametrize("data", [b"", b"\n\n\r\n", b"\xef\xbb\xbf", b"id,name,note", b"id,name,note\r\n\r\n"])
def test_csv_without_rows(data):
    """A file without rows has neither rows nor broken records."""
    content = read_csv(data)
    assert (content.rows, content.broken) == ([], [])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"1,a,b\n2,c,d\n", "check that the file has a header"),
        (
            b"id;name;note\n1;a;b\n",
            (
                "check that the file has a header and that its delimiter is ',', or set"
                ' delimiter in the table\'s section, such as delimiter = ";"'
            ),
        ),
        ("id,name\n1,a\n".encode("utf-32"), "the file is encoded as UTF-32, which is not supported; save it as UTF-8"),
        (
            "id,name\n1,a\n".encode("utf-16-le"),
            (
                "the header contains NUL bytes; check that the file is text, and encoded as UTF-8, or set encoding in"
                ' the description of the table, such as encoding = "utf-16-le"'
            ),
        ),
        (
            "id,größe\n1,a\n".encode("latin-1"),
            (
                "the header is not valid UTF-8; save the file as UTF-8, or set encoding in the description of the"
                ' table, such as encoding = "windows-1252"'
            ),
        ),
        (b"PAR1....", "this is a Parquet file; rename it to end in .parquet"),
        (b"PK\x03\x04....", "this is a zip archive or an Excel file"),
        (gzip.compress(b"id\n1\n", mtime=0), "the file is gzip-compressed; rename it to end in .gz"),
        (b'id,"name\n1,a\n', "the header is invalid: a quoted field is never closed"),
        (b'id,"name"x\n1,a\n', "the header is invalid: there is text after a closing quote"),
    ],
)
def test_csv_unreadable_file(data, reason):
    """A file that is not CSV is refused, with what to do about it."""
    assert reason in refusal(read_csv, data)


def test_csv_header_that_never_ends(monkeypatch):
    """A header that does not end is refused before much of the file is read."""
    monkeypatch.setattr(limits, "HEAD_BYTES", 1000)
    monkeypatch.setattr(limits, "MAX_HEADER_BYTES", 5000)
    stream = io.BytesIO(b'id,"name\n' + b"1,a\n" * 100_000)
    file = LandingFile("b", "things", "b/things.csv", "csv", False, 0)
    assert "the header does not end within 5,000 bytes" in refusal(lambda: list(read(stream, file, THINGS)))
    assert stream.tell() < 10_000


@pytest.mark.parametrize("delimiter", [";", "\t", "|", " ", "¦", ".", "^", "\\"])
def test_csv_other_delimiter(delimiter):
    """Any single character works as a delimiter."""
    source = THINGS.model_copy(update={"delimiter": delimiter})
    lines = ["id,name,note", "1,a,", ",,", '2,"x,y",z', "3"]
    content = read_csv("\n".join(lines).replace(",", delimiter), source)
    assert content.rows == [(2, ("1", "a", "")), (3, ("", "", "")), (4, ("2", f"x{delimiter}y", "z"))]
    assert content.reasons == {5: "expected 3 fields, found 1"}


@pytest.mark.parametrize("quote", ["'", "|", "^", "`", "$", "\\", "]", "-"])
@pytest.mark.parametrize("delimiter", [",", ";", "¦"])
def test_csv_other_quote(quote, delimiter):
    """Any ASCII character works as a quote, and then a double quote is text."""
    source = THINGS.model_copy(update={"quote": quote, "delimiter": delimiter})
    lines = ['Qid",nameQ', '1,QaQQ,"\nbQ', '2,"x"', "3,QxQy", '4,5"']
    text = "\n".join(lines).replace('Qid"', "QidQ").replace("nameQ", "name").replace(",", delimiter).replace("Q", quote)
    content = read_csv(text, source)
    assert content.rows == [(2, ("1", f'a{quote}{delimiter}"\nb')), (4, ("2", '"x"')), (6, ("4", '5"'))]
    assert content.broken == [(5, f"3{delimiter}{quote}x{quote}y", "there is text after a closing quote")]


def test_csv_without_quotes():
    """With quote = "", quotes are text everywhere, and a line is a record."""
    source = THINGS.model_copy(update={"quote": ""})
    content = read_csv('id,name\n1,"a\n2,"b,c"\n3,5" tube\n', source)
    assert content.columns == ["id", "name"]
    assert content.rows == [(2, ("1", '"a')), (4, ("3", '5" tube'))]
    assert content.reasons == {3: "expected 2 fields, found 3"}


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_csv_rows_before_the_header(block, tiny_blocks):
    """skip_rows leaves out lines before the header, whatever is in them, and line numbers are those of the file."""
    tiny_blocks(block)
    text = 'sep=;"\n\nReport "of 2026, (a\n\nid;name\n1;"a\nb"\n2\n3;c\n'
    source = THINGS.model_copy(update={"skip_rows": 3, "delimiter": ";"})
    for data in (text, "\ufeff" + text.replace("\n", "\r\n")):
        content = read_csv(data, source)
        assert [(line, values[0]) for line, values in content.rows] == [(6, "1"), (9, "3")]
        assert content.broken == [(8, "2", "expected 2 fields, found 1")]


@pytest.mark.parametrize("line_end", ["\r", "\r\n", "\r\r\n"])
def test_csv_line_ends_of_rows_before_the_header(line_end):
    """A quote in a line before the header does not hide how lines end."""
    source = THINGS.model_copy(update={"skip_rows": 1})
    text = line_end.join(['Frames of 28"', "id,name", "1,a", "2,b", ""])
    assert read_csv(text, source).rows == [(3, ("1", "a")), (4, ("2", "b"))]


def test_csv_that_ends_before_the_header():
    """A file that ends within the lines before the header is refused; an empty file has no rows, as always."""
    source = THINGS.model_copy(update={"skip_rows": 3})
    for text in ("id,name\n1,a\n", "id,name\n1,a\n2,b", "a\n\n\n\n\r\n"):
        assert refusal(read_csv, text, source) == (
            "there is no header: the file ends within the 3 lines before it (skip_rows)"
        )
    assert read_csv("", source).rows == []


def test_csv_skipped_line_that_never_ends(monkeypatch):
    """A line before the header that does not end is refused before much of the file is read."""
    monkeypatch.setattr(limits, "HEAD_BYTES", 1000)
    monkeypatch.setattr(limits, "MAX_HEADER_BYTES", 5000)
    source = THINGS.model_copy(update={"skip_rows": 1})
    assert "the header does not end within 5,000 bytes" in refusal(read_csv, "x" * 10_000, source)


@pytest.mark.parametrize("text", ["id\n1\n\n  \n2\n", 'id\r\n1\r\n\r\n  \r\n"2"\r\n', 'id\n"1"\n\n"  "\n2'])
def test_csv_one_column(text):
    """With one column, empty lines are still not records, but blanks are."""
    assert read_csv(text).rows == [(2, ("1",)), (4, ("  ",)), (5, ("2",))]


def test_csv_unclosed_quote_breaks_one_line(tiny_blocks, monkeypatch):
    """A quote that is never closed breaks its own line only, and blocks stay small."""
    tiny_blocks(1000)
    monkeypatch.setattr(limits, "MAX_QUOTED_BYTES", 5000)
    lines = [f'{i},"a\nb",c' for i in range(2000)]
    lines[700] = '700,"a,b'
    for i in range(701, 1600):
        lines[i] = f"{i},ab,cdef"
    content = read_csv("id,name,note\n" + "\n".join(lines))
    assert [values[0] for values in content.values] == [str(i) for i in range(2000) if i != 700]
    assert content.broken == [(2 + 2 * 700, '700,"a,b', "a quoted field is never closed")]
    assert max(block.rows.num_rows for block in content.blocks) < 1000
    for (line, _), i in zip(content.rows, (i for i in range(2000) if i != 700), strict=True):
        assert line == 2 + i + min(i, 700) + max(0, i - 1600)


def test_csv_many_columns_stay_in_one_piece():
    """With many columns, Arrow does not cut a column into many short pieces."""
    names = [f"c{i}" for i in range(4000)]  # a piece of a column takes two pages of memory, however short it is
    rows = csv_files.arrow_table((b"1," * 3999 + b"1\n") * 500, names, Dialect(), False)
    assert (rows.num_rows, rows["c0"].num_chunks) == (500, 1)


def test_ten_thousand_columns():
    """Ten thousand columns come out of CSV and of JSON lines."""
    names = ["id", *(f"extra {i}" for i in range(9_999))]
    rows = [[f"{r}.{i}" for i in range(10_000)] for r in range(3)]
    out = io.StringIO()
    csv.writer(out).writerows([names, *rows])
    content = read_csv(out.getvalue() + "1,2\n")
    assert content.values == [tuple(row) for row in rows]
    assert content.columns[:3] == ["id", "extra_0", "extra_1"]
    assert content.reasons == {5: "expected 10000 fields, found 2"}
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    assert read_json("\n".join(lines)).values == [tuple(row) for row in rows]
