"""Translates the SQL of `sql/` from DuckDB's dialect to Spark's.

sqlglot translates. This module adds what sqlglot does not handle, and what is specific to the pipeline: its functions
are replaced by their definitions, and the dots in the names of relations are replaced, because Spark views cannot have
any.
"""

import re
from collections.abc import Callable
from functools import cache

from lakehouse_utils.errors import EngineError
from lakehouse_utils.pipeline.sql import statements
from lakehouse_utils.spark.session import MISSING_PACKAGES

try:
    import sqlglot
    from sqlglot import exp
except ImportError as error:
    raise EngineError(MISSING_PACKAGES.format(error)) from None

# Functions of `sql/functions.sql` that Spark has under another name.
_SPARK_FUNCTIONS = {"utc_of_local": "TO_UTC_TIMESTAMP", "local_of_utc": "FROM_UTC_TIMESTAMP"}


@cache
def to_spark(sql: str) -> str:
    """A statement or an expression in Spark's dialect."""
    tree = sqlglot.parse_one(sql, read="duckdb")
    for rewrite in (_inline_function, _replace_dotted_name, _translate):
        tree = _rewrite_nodes(tree, rewrite)
    return tree.sql("spark", comments=False)


def view_name(relation_name: str) -> str:
    """The name of the Spark view for a relation: `silver.orders` is `silver__orders`, which needs no database."""
    return relation_name.replace(".", "__")


@cache
def _functions() -> dict[str, tuple[list[str], exp.Expr]]:
    """The functions of `sql/functions.sql` by name: their parameters and their definitions."""
    functions = {}
    for text in statements("functions").values():
        macro = sqlglot.parse_one(text, read="duckdb")
        signature = macro.this
        functions[signature.this.name] = [parameter.name for parameter in signature.expressions], macro.expression
    return functions


def _rewrite_nodes(tree: exp.Expr, rewrite: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """Apply `rewrite` to each node, children first. sqlglot's own `transform` does not enter what it has inserted."""
    for node in reversed(list(tree.bfs())):
        new = rewrite(node)
        if node is tree:
            tree = new
        elif new is not node:
            node.replace(new)
    return tree


def _inline_function(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.Anonymous) and node.name in _SPARK_FUNCTIONS:
        return exp.Anonymous(this=_SPARK_FUNCTIONS[node.name], expressions=node.expressions)
    if not isinstance(node, exp.Anonymous) or node.name not in _functions():
        return node
    parameters, definition = _functions()[node.name]
    arguments = dict(zip(parameters, node.expressions, strict=True))

    def replace_parameter(part: exp.Expr) -> exp.Expr:
        is_parameter = isinstance(part, exp.Column) and not part.table and part.name in arguments
        return exp.paren(arguments[part.name], copy=True) if is_parameter else part

    return _rewrite_nodes(definition.copy(), replace_parameter)


def _replace_dotted_name(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.Table) and node.db:
        return exp.to_table(view_name(f"{node.db}.{node.name}"), alias=node.alias or None)
    return node


def _translate(node: exp.Expr) -> exp.Expr:
    match node:
        case exp.TryCast():
            return _translate_try_cast(node)
        case exp.CTE():
            node.set("materialized", None)
        case exp.RegexpFullMatch():
            pattern = exp.Literal.string(rf"\A(?:{node.expression.name})\z")
            return exp.Anonymous(this="REGEXP_LIKE", expressions=[node.this, pattern])
        case exp.RegexpReplace():  # Spark's groups are $1, and it always replaces all matches
            replacement = re.sub(r"\\(\d)", r"$\1", node.args["replacement"].name)
            arguments = [node.this, node.expression, exp.Literal.string(replacement)]
            return exp.Anonymous(this="REGEXP_REPLACE", expressions=arguments)
        case exp.DayOfWeekIso():
            from_sunday = exp.Anonymous(this="DAYOFWEEK", expressions=[node.this])
            return exp.paren(exp.paren(from_sunday + 5) % 7 + 1)
        case exp.Cast(this=exp.Concat(expressions=[exp.Literal(this="0x"), digits])):  # a hexadecimal number
            bases = [exp.Literal.number(16), exp.Literal.number(10)]
            return exp.cast(exp.Anonymous(this="CONV", expressions=[digits, *bases]), node.to)
        case exp.Anonymous():
            if node.name.lower() == "epoch_us":
                return exp.Anonymous(this="UNIX_MICROS", expressions=node.expressions)
            if node.name.lower() == "isfinite":  # Spark sorts NaN above all numbers
                infinity = exp.cast(exp.Literal.string("Infinity"), "double")
                return exp.paren(exp.Abs(this=node.expressions[0]) < infinity)
    return node


def _translate_try_cast(cast: exp.TryCast) -> exp.Expr:
    """A cast of text as in DuckDB, which also reads 1.0 and 1e3 as integers and a day with the time 00:00 as a date."""
    text = cast.this

    def try_cast(value: exp.Expr, to: exp.DataType) -> exp.TryCast:
        return exp.TryCast(**cast.args | {"this": value.copy(), "to": to.copy()})

    if cast.to.is_type("date"):
        day = [text, exp.Literal.string("^[^T ]*"), exp.Literal.number(0)]
        return try_cast(exp.Anonymous(this="REGEXP_EXTRACT", expressions=day), cast.to)
    if cast.to.is_type("bigint", "decimal"):
        via = ["double"] if cast.to.is_type("decimal") else ["decimal(38, 18)", "double"]
        others = [try_cast(try_cast(text, exp.DataType.build(name, dialect="spark")), cast.to) for name in via]
        return exp.Coalesce(this=cast.copy(), expressions=others)
    return cast
