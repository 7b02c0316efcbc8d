"""Wrong answers to the exercises of notebook 07."""

_FILTER = """price = pl.col("price")
valid = supplied.filter({conditions})
answer = valid["line"].to_list()"""
_KEY = 'pl.col("product_id").is_not_null() & pl.col("product_id").is_unique()'
_NUMBER = "price.is_not_nan() & (price >= 0) & (price == price.round(2))"
_ZONE = 'pl.col("valid_from").str.contains(r"(Z|[+-]\\d\\d:\\d\\d)$")'


def _filter(*conditions: str) -> str:
    return _FILTER.format(conditions=" & ".join(conditions))


_PREDICTED = {
    "A": "stored",
    "B": "changed",
    "C": "changed",
    "D": "rejected",
    "E": "stored",
    "F": "rejected",
    "G": "stored",
}


def _predict(**different: str) -> str:
    return f"answer = {_PREDICTED | different}"


_PER_DAY = """per_day = {{
    name: {days} * measured[f"one day, {{name}}"]["{what}"]
    + {customers} * measured[f"one customer, {{name}}"]["{what}"]
    for name in layouts
}}
best = min(per_day, key=per_day.get)
answer = (best, per_day[best])"""

_REQUESTS = """answer = (
    "as_it_arrived",
    {days} * measured["one day, as_it_arrived"]["requests"]
    + {customers} * measured["one customer, as_it_arrived"]["requests"],
)"""

WRONG_ANSWERS = [
    ("07.1", _filter(_KEY, "(price >= 0)", "((price == price.round(2)) | price.is_nan())", _ZONE), "NaN passes"),
    ("07.1", _filter(_KEY, "((price >= 0) | price.is_null())", "price.fill_null(0).is_not_nan()", _ZONE), "no price"),
    ("07.1", _filter(_KEY, "price.is_not_nan() & (price == price.round(2))", _ZONE), "is negative"),
    ("07.1", _filter(_KEY, "price.is_not_nan() & (price >= 0)", _ZONE), "three decimals"),
    ("07.1", _filter('pl.col("product_id").is_unique()', _NUMBER, _ZONE), "no product_id"),
    ("07.1", _filter(_KEY, _NUMBER), "has no zone"),
    ("07.1", _filter('pl.col("product_id").is_not_null()', _NUMBER, _ZONE), "occurs twice"),
    (
        "07.1",
        _filter('pl.col("product_id").is_not_null() & pl.col("product_id").is_last_distinct()', _NUMBER, _ZONE),
        "occurs twice",
    ),
    ("07.1", _filter(_KEY, "(price >= 0) & (price * 100 % 1 == 0)", _ZONE), "floating point"),
    ("07.1", _filter(_KEY, _NUMBER, 'pl.col("valid_from").str.ends_with("Z")'), "+02:00"),
    ("07.1", _filter(_KEY, _NUMBER, 'pl.col("valid_from").str.contains(r"(Z|\\+)")'), "-05:00"),
    ("07.1", _filter(_KEY, _NUMBER, "(price > 0)", _ZONE), "price of 0 is valid"),
    ("07.1", "answer = [0, 7, 10, 11]", "no line 0"),
    ("07.1", "answer = 4", "into a list"),
    ("07.1", "answer = '1, 8, 11, 12'", "into a list, such as [1, 2]. The answer is of type str"),
    ("07.1", "answer = ['1', '8', '11', '12']", "These are texts"),
    ("07.1", "answer = [1, None, 12]", "None is not a line number"),
    ("07.1", "answer = [1, float('inf')]", "inf is not a line number"),
    ("07.1", "answer = [[1, 8], [11, 12]]", "[1, 8] is not a line number"),
    ("07.1", "answer = supplied.filter(pl.col('price') >= 0).drop('line')", "into a list"),
    ("07.1", "answer = supplied.select(pl.col('line') < 9).to_series()", "true or false for each line"),
    ("07.1", "answer = [1, 8.5, 11, 12]", "a whole number"),
    ("07.1", "answer = [1, 8, 11, 12, 12]", "Line 12 is in the answer 2 times"),
    ("07.1", _filter(_KEY, _NUMBER, "(price == -1)"), "No line meets all"),
    ("07.1", _filter(f"~({_KEY} & {_NUMBER} & {_ZONE}).fill_null(False)"), "may not be loaded"),
    ("07.1", _filter(_KEY, _NUMBER, 'pl.col("valid_from").str.contains(r"[+-]\\d\\d:\\d\\d$")'), "`Z` is a time zone"),
    ("07.2", _predict(A="rejected"), "A is not rejected"),
    ("07.2", _predict(B="rejected"), "Which integer comes out"),
    ("07.2", _predict(B="stored"), "Which integer comes out"),
    ("07.2", _predict(C="stored"), "third decimal"),
    ("07.2", _predict(D="stored"), "What is NULL > 0"),
    ("07.2", _predict(E="rejected"), "How does NaN compare"),
    ("07.2", _predict(F="changed"), "timestamp_ntz"),
    ("07.2", _predict(G="changed"), "same point in time"),
    ("07.2", _predict(G="error"), "'error'"),
    ("07.2", 'answer = {"A": "stored"}', "no prediction for B, C"),
    ("07.2", _predict(H="stored"), "no append H"),
    ("07.2", "answer = dict.fromkeys('ABCDEFG', 'rejected')", "A is not rejected"),
    ("07.3", _PER_DAY.format(days=2000, customers=100, what="bytes"), "fewest bytes"),
    ("07.3", _PER_DAY.format(days=2000, customers=0, what="requests"), "only one of the two"),
    ("07.3", _PER_DAY.format(days=0, customers=100, what="requests"), "only one of the two"),
    ("07.3", _REQUESTS.format(days=1, customers=1), "one query of each kind"),
    ("07.3", _REQUESTS.format(days=100, customers=2000), "are swapped"),
    ("07.3", _REQUESTS.format(days=2000, customers=101), "right, but not the number"),
    ("07.3", _REQUESTS.format(days=2100, customers=2100), "both queries 2,100 times"),
    ("07.3", _REQUESTS.format(days="2000 / 2100", customers="100 / 2100"), "mean of one query"),
    ("07.3", _REQUESTS.format(days=2000, customers=100).replace('"requests"', '"bytes"'), "the number of bytes"),
    ("07.3", _REQUESTS.format(days=2000, customers=100).replace("as_it_arrived", "by_day", 1), "number is right"),
    (
        "07.3",
        _REQUESTS.format(days=2000, customers=100).replace(", as_it_arrived", ", by_day"),
        "the number is that of by_day",
    ),
    ("07.3", 'answer = ("as_it_arrived", "11200")', "must be a number"),
    ("07.3", 'answer = ("by_customer", 7)', "more requests than another layout"),
    ("07.3", 'answer = ("z_order", 7)', "more requests than another layout"),
    ("07.3", 'answer = (layouts["as_it_arrived"], 7)', "Give the name of the layout"),
    ("07.3", 'answer = ("partitioned", 7)', "is not a layout"),
    ("07.3", 'answer = (7, "by_day")', "in this order"),
]
