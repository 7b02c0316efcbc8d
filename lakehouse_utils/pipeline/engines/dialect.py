"""The SQL of `sql/`, written in DuckDB's dialect, in Spark's.

sqlglot translates; here is what it doesn't know, and what belongs to the pipeline: its functions, which Spark gets as
their text, and its tables, whose names Spark wants without a dot.
"""

from collections.abc import Callable
from functools import cache

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.pipeline.sql import statements
from lakehouse_utils.spark.session import MISSING_PACKAGES

try:
    import sqlglot
    from sqlglot import exp
except ImportError as error:
    raise LakehouseError(MISSING_PACKAGES.format(error)) from None


@cache
def to_spark(sql: str) -> str:
    """A statement, or an expression, as Spark Connect servers take it."""
    tree = sqlglot.parse_one(sql, read="duckdb")
    for rewrite in (_expand_function, _flatten_name, _translate):
        tree = _rewritten(tree, rewrite)
    return tree.sql("spark", comments=False)


def flat(name: str) -> str:
    """`silver.orders` as the name of a view that needs no database."""
    return name.replace(".", "__")


@cache
def _functions() -> dict[str, tuple[list[str], exp.Expression]]:
    """The functions of `sql/functions.sql`: their parameters and what they stand for."""
    found = {}
    for text in statements("functions").values():
        macro = sqlglot.parse_one(text, read="duckdb")
        found[macro.find(exp.Table).name] = [parameter.name for parameter in macro.this.expressions], macro.expression
    return found


def _rewritten(tree: exp.Expression, rewrite: Callable[[exp.Expression], exp.Expression]) -> exp.Expression:
    """The tree with each node rewritten after its parts: sqlglot's own `transform` doesn't enter what it has put in."""
    for node in reversed(list(tree.bfs())):
        new = rewrite(node)
        if node is tree:
            tree = new
        elif new is not node:
            node.replace(new)
    return tree


def _expand_function(node: exp.Expression) -> exp.Expression:
    if not isinstance(node, exp.Anonymous) or node.name not in _functions():
        return node
    parameters, body = _functions()[node.name]
    given = dict(zip(parameters, node.expressions, strict=True))

    def fill_in(part: exp.Expression) -> exp.Expression:
        is_parameter = isinstance(part, exp.Column) and not part.table and part.name in given
        return exp.paren(given[part.name], copy=True) if is_parameter else part

    return _rewritten(body.copy(), fill_in)


def _flatten_name(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Table) and node.db:
        return exp.to_table(flat(f"{node.db}.{node.name}"), alias=node.alias or None)
    return node


def _translate(node: exp.Expression) -> exp.Expression:
    match node:
        case exp.Case(args={"ifs": [exp.If(args={"true": exp.Boolean(this=True)})], "default": spelled_out}):
            return exp.paren(spelled_out)  # the rest is a short cut, and none where all branches are evaluated
        case exp.TryCast():
            return _read_as_duckdb_does(node)
        case exp.CTE():
            node.set("materialized", None)
        case exp.RegexpFullMatch():
            pattern = exp.Literal.string(rf"\A(?:{node.expression.name})\z")
            return exp.Anonymous(this="REGEXP_LIKE", expressions=[node.this, pattern])
        case exp.DayOfWeekIso():
            from_sunday = exp.Anonymous(this="DAYOFWEEK", expressions=[node.this])
            return exp.paren(exp.paren(from_sunday + 5) % 7 + 1)
        case exp.Cast(this=exp.Concat(expressions=[exp.Literal(this="0x"), digits])):  # a hexadecimal number
            bases = [exp.Literal.number(16), exp.Literal.number(10)]
            return exp.cast(exp.Anonymous(this="CONV", expressions=[digits, *bases]), node.to)
        case exp.Anonymous():
            if node.name.lower() == "epoch_us":
                return exp.Anonymous(this="UNIX_MICROS", expressions=node.expressions)
            if node.name.lower() == "isfinite":  # NaN is greater than all numbers there
                return exp.paren(exp.Abs(this=node.expressions[0]) < exp.cast(exp.Literal.string("Infinity"), "double"))
    return node


def _read_as_duckdb_does(cast: exp.TryCast) -> exp.Expression:
    """A cast of text: DuckDB also reads 1.0 and 1e3 as numbers, and a day with the time 00:00 as a date."""
    text = cast.this

    def reads(value: exp.Expression, kind: exp.DataType) -> exp.TryCast:
        return exp.TryCast(**cast.args | {"this": value.copy(), "to": kind.copy()})

    if cast.to.is_type("date"):
        day = [text, exp.Literal.string("^[^T ]*"), exp.Literal.number(0)]
        return reads(exp.Anonymous(this="REGEXP_EXTRACT", expressions=day), cast.to)
    if cast.to.is_type("bigint", "decimal"):
        ways = ["double"] if cast.to.is_type("decimal") else ["decimal(38, 18)", "double"]
        others = [reads(reads(text, exp.DataType.build(way, dialect="spark")), cast.to) for way in ways]
        return exp.Coalesce(this=cast.copy(), expressions=others)
    return cast
