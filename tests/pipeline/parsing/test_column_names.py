"""From names in raw files to names of columns, in every format."""

import json

import pyarrow as pa
import pytest
from support.raw_files import THINGS, read_csv, read_json, read_parquet, refusal

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.parsing.column_names import ColumnNames
from lakehouse_utils.pipeline.sources import Source


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("\ufeffid,name", ["id", "name"]),
        ('\ufeff"id","name"', ["id", "name"]),
        ("ID, Name ", ["id", "name"]),
        ("\r\n\n\nid,name", ["id", "name"]),
        ("id,", ["id", "column_2"]),
        (",id", ["column_1", "id"]),
        ("id,_source_line", ["id", "column_source_line"]),
        ("id,(net) price\t=;{x}", ["id", "column_net__price____x_"]),
        ('id,"two\nlines"', ["id", "two_lines"]),
        ('id,"a ""b"" c\'d.e`f%g#h"', ["id", 'a_"b"_c\'d.e`f%g#h']),
        ("id,Größe", ["id", "größe"]),
        ("id,a\0b".replace("\0", "\x01"), ["id", "a_b"]),
    ],
)
def test_column_names_of_a_header(header, columns):
    """Names are in lower case and acceptable to Delta; none starts with an underscore."""
    content = read_csv(header + "\n1,x\n")
    assert content.columns == columns
    assert content.rows == [(header.count("\n") + 2, ("1", "x"))]


@pytest.mark.parametrize(
    "header",
    [
        "größe,unit_price,price",
        "gro\u0308ße,unit\u00a0price,\u200bprice",
        "GRÖSSE,Unit  Price ,pri\u00adce",
        "\ufeffgröße,unit\u2007\u202fprice,\u200eprice\u200f",
        "größe,unit-price,\uff50rice",
        "größe,Unit.Price,PRICE",
        "größe,unit/price,price",
    ],
)
def test_column_names_that_only_look_different(header):
    """A header means a described column if they look the same, and any punctuation stands for `_`."""
    source = THINGS.model_copy(
        update={"columns": dict.fromkeys(["größe", "unit_price", "price"], THINGS.columns["id"])}
    )
    content = read_csv(header + "\n1,2,3\n", source)
    assert content.columns == ["größe", "unit_price", "price"]
    assert content.values == [("1", "2", "3")]
    assert read_json(json.dumps(dict.fromkeys(header.split(","), 1)), source).columns == content.columns


def test_column_names_by_from_of_any_spelling():
    """A header that a column gives with `from` is that column, however it is spelled."""
    headers = {"id": ["@timestamp", "_id", "2nd Nº"], "name": [], "note": ["nome"]}
    columns = {name: {"type": "text", "from": given} for name, given in headers.items()}
    source = Source(name="things", key=["id"], columns=columns)
    for header in ("@timestamp", "_ID", "2ND\u00a0no", "2nd N\u00ba", "id", "ID"):
        assert read_csv(f"{header},Nome\n1,x\n", source).columns == ["id", "note"], header
        assert read_json(json.dumps({header: 1, "Nome": "x"}), source).columns == ["id", "note"], header
    assert read_csv("@timestamp,_id.\n1,2\n", source).columns == ["id", "column_id."]
    assert "the column 'id' appears twice" in refusal(read_csv, "@timestamp,id\n1,2\n", source)
    assert "the column 'id' appears twice" in refusal(read_csv, "@timestamp,_id\n1,2\n", source)


def test_column_names_closest_match_counts():
    """If a file has two headers that could be a column, the closer one is; a JSON object is read in the same way."""
    source = THINGS.model_copy(update={"columns": dict.fromkeys(["id", "order_id"], THINGS.columns["id"])})
    assert read_csv("id,order-id,order_id\n1,2,3\n", source).columns == ["id", "order-id", "order_id"]
    content = read_json('{"id":1,"order-id":2}\n{"id":3,"order-id":4,"order_id":5}\n', source)
    assert content.columns == ["id", "order_id", "order-id"]
    assert content.values == [("1", "2", None), ("3", "5", "4")]
    assert "the column 'order_id' appears twice" in refusal(read_csv, "id,order-id,order.id\n1,2,3\n", source)
    assert read_json('{"order-id":2,"order.id":3}', source).reasons == {
        1: "two field names differ only in case or punctuation"
    }
    assert read_parquet(pa.table({"id": [1], "na\u200bme": [2]})).columns == ["id", "name"]


def test_column_names_that_appear_twice():
    """A repeated name gets its position as a suffix, unless it is described: then the file is refused."""
    assert read_csv("id,x,X,x\n1,2,3,4\n").columns == ["id", "x", "x_3", "x_4"]
    assert read_csv("id,x,x_4,x\n1,2,3,4\n").columns == ["id", "x", "x_4", "x_4_4"]
    described = THINGS.model_copy(update={"columns": THINGS.columns | {"x_3": THINGS.columns["note"]}})
    assert read_csv("id,x,x\n1,2,3\n", described).columns == ["id", "x", "x_3_3"]
    assert "the column 'id' appears twice in the file" in refusal(read_csv, "id,name,ID\n1,2,3\n")


def test_column_names_of_json_keys():
    """Keys of JSON objects become column names by the same rules as headers."""
    content = read_json('{"ID":1,"a.b":2," c d":3,"_id":4,"":5}\n{"id":6,"c_d":7,"(x)":8}\n')
    assert content.columns == ["id", "a.b", "c_d", "column_id", "column_0", "column_x_"]
    assert content.values == [("1", "2", "3", "4", "5", None), ("6", None, "7", None, None, "8")]


def test_column_names_too_many(monkeypatch):
    """A file with too many columns is refused, whatever its format."""
    monkeypatch.setattr(limits, "MAX_COLUMNS", 50)
    names = ["id", *(f"c{i}" for i in range(50))]
    for refused in (
        refusal(read_csv, ",".join(names) + "\n"),
        refusal(read_json, json.dumps(dict.fromkeys(names, 1))),
        refusal(read_json, "".join(f'{{"id":1,"{name}":1}}\n' for name in names[1:])),
        refusal(read_parquet, pa.table({name: [1] for name in names})),
    ):
        assert refused == (
            "the file has more than 50 different columns; check whether it uses data values as column names"
        )
    assert len(read_csv(",".join(names[:50]) + "\n" + "1," * 49 + "1\n").columns) == 50


def test_column_names_by_from():
    """A header that a column gives with `from` is that column, in any case and in every format."""
    source = Source(
        name="t",
        key=["id"],
        columns={
            "id": {"type": "integer", "from": "Nº Sócio"},
            "net": {"type": "text", "from": ["a.b-c/d", "(net) =;"]},
        },
    )
    assert ColumnNames(source).of_header(["nº sócio ", "A.B-C/D", "other"]) == ["id", "net", "other"]
    assert ColumnNames(source).of_header(["ID", "(net) =;"]) == ["id", "net"]
    with pytest.raises(UnreadableFileError, match="the column 'id' appears twice in the file"):
        ColumnNames(source).of_header(["Nº Sócio", "id"])


@pytest.mark.parametrize(
    ("header", "delimiter", "advice"),
    [
        (["x;town"], ",", 'delimiter = ";"'),
        (["x\ttown\tb"], ",", 'delimiter = "\\t"'),
        (["x", "town|b"], ";", 'delimiter = "|"'),
        (["x,town"], ";", 'delimiter = ","'),
        (["x"], ",", 'delimiter = ";"'),
    ],
)
def test_column_names_of_another_delimiter(header, delimiter, advice):
    """If no column is described, the error names the setting, with the delimiter that the header seems to have."""
    source = Source(name="t", key=["id"], delimiter=delimiter, columns={"id": {"type": "integer"}})
    with pytest.raises(UnreadableFileError) as error:
        ColumnNames(source).of_header(header, delimiter)
    assert f"its delimiter is {delimiter!r}, or set delimiter in the table's section, such as {advice}" in str(
        error.value
    )
