"""The description of source tables: what it may say, and what is told of one that is off."""

import pytest

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.pipeline import sources

GOOD = '[visits]\nkey = ["id"]\n[visits.columns]\nid = { type = "integer" }\nat = { type = "timestamp" }\n'


def described(tmp_path, text: str) -> dict[str, sources.Source]:
    path = tmp_path / "sources.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return sources.load(path)


def test_the_shop_is_described():
    shop = sources.load()
    assert list(shop) == [
        "brands", "categories", "customers", "products", "stores", "staffs", "orders", "order_items", "stocks",
    ]  # fmt: skip
    assert shop["order_items"].key == ["order_id", "item_id"]
    assert shop["order_items"].is_required("item_id") and not shop["orders"].is_required("shipped_date")
    for source in shop.values():
        for column in source.columns.values():
            if column.references:
                table, name = column.references.split(".")
                assert name in shop[table].columns


def test_one_of_your_own(tmp_path):
    visits = described(tmp_path, GOOD.replace('["id"]', '["id"]\ndelimiter = "\\t"\norder_by = "at"'))["visits"]
    assert (visits.delimiter, visits.order_by, visits.history) == ("\t", "at", False)


@pytest.mark.parametrize(
    ("type_", "sql"),
    [
        ("integer", "BIGINT"),
        ("decimal(10,2)", "DECIMAL(10,2)"),
        ("decimal(38, 38)", "DECIMAL(38, 38)"),
        ("timestamp", "TIMESTAMPTZ"),
        ("text", "VARCHAR"),
    ],
)
def test_types(type_, sql):
    assert sources.Column(type=type_).sql_type == sql


@pytest.mark.parametrize("type_", ["int", "", "decimal", "decimal(0,0)", "decimal(39,1)", "decimal(3,4)", "Integer"])
def test_no_types(type_):
    with pytest.raises(ValueError, match="is not a type; there are integer"):
        sources.Column(type=type_)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "describes no table"),
        ("[visits", "is not TOML"),
        (b"# \xff", "is not TOML"),
        ("visits = 1", "[visits]"),
        (GOOD.replace('key = ["id"]', ""), "[visits.key]: Field required"),
        (GOOD.replace('["id"]', "[]"), "[visits.key]"),
        (GOOD.replace('["id"]', '["no"]'), "'no' isn't"),
        (GOOD.replace('["id"]', '["id"]\norder_by = "no"'), "'no' isn't"),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = ";;"'), "[visits.delimiter]"),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = "\\""'), "delimiter can't be"),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = "\\r"'), "delimiter can't be"),
        (GOOD.replace('["id"]', '["id"]\nkeys = "id"'), "[visits.keys]: Extra inputs"),
        (
            GOOD.replace('["id"]', '["id"]\nhistory = true') + '\nis_first = { type = "boolean" }',
            "a column is_first itself",
        ),
        (
            GOOD.replace('["id"]', '["id"]\nhistory = true') + GOOD.replace("visits", "visits_history"),
            "[visits_history]: the history of [visits]",
        ),
        (GOOD.replace('"integer"', '"int"'), "[visits.columns.id.type]: 'int' is not a type"),
        (GOOD + 'ID = { type = "text" }', "two columns have the same name"),
        (GOOD + '_own = { type = "text" }', "'_own' can't be a name"),
        (GOOD + '"a b" = { type = "text" }', "'a b' can't be a name"),
        (GOOD.replace("visits", '"vis its"'), "'vis its' can't be a name"),
    ],
)
def test_what_is_off_is_named(text, said, tmp_path):
    with pytest.raises(LakehouseError) as error:
        described(tmp_path, text)
    assert said in str(error.value)
    assert "sources.toml" in str(error.value)


def test_a_description_that_is_not_there(tmp_path):
    with pytest.raises(LakehouseError, match="can't be read: No such file or directory. Check --sources"):
        sources.load(tmp_path / "none.toml")
    with pytest.raises(LakehouseError, match="can't be read"):
        sources.load(tmp_path)
