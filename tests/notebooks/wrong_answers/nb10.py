"""Wrong answers to the exercises of notebook 10."""

_COUNT = """omits_store = False
practice = lake.uri("practice", "stocks")
spark.read.format("delta").load(stocks).write.format("delta").mode("overwrite").save(practice)
count = [(1, 1, 17), (1, 2, 0), (3, 100_001, 5), (2, 100_002, 0)]
columns = "store_id long, product_id long, quantity long"
spark.createDataFrame(count, columns).createOrReplaceTempView("stock_count")
spark.sql(f'''
    MERGE INTO delta.`{practice}` AS target USING stock_count AS source
    ON {"target.store_id = source.store_id AND " * (not omits_store)}target.product_id = source.product_id
    %s
''')
answer = DeltaTable(practice, storage_options=lake.storage_options)"""

_DELETE = "WHEN MATCHED AND source.quantity = 0 THEN DELETE"
_UPDATE = "WHEN MATCHED THEN UPDATE SET quantity = source.quantity"
_INSERT = (
    "WHEN NOT MATCHED {}THEN INSERT (store_id, product_id, quantity)"
    " VALUES (source.store_id, source.product_id, source.quantity)"
)

_RIGHT = f"{_DELETE} {_UPDATE} {_INSERT.format('AND source.quantity > 0 ')}"

_JOIN = """def answer(one, other):
    rows = f"SELECT * FROM delta.`{one}` AS a FULL JOIN delta.`{other}` AS b ON a.id = b.id AND a.name = b.name"
    return spark.sql(f"SELECT count(*) AS n FROM ({rows} WHERE a.id IS NULL OR b.id IS NULL)").collect()[0].n"""

_COMPARE = """def answer(one, other):
    one, other = (spark.read.format("delta").load(address) for address in (one, other))
    return {}"""

_CLUSTER = "answer = next(n for n in range(1, 1_000_000) if estimate({}, nodes=n{})[0] <= 3600){}"

WRONG_ANSWERS = [
    ("10.1", _COUNT % f"{_UPDATE} {_INSERT.format('AND source.quantity > 0 ')}", "its row still exists"),
    ("10.1", _COUNT % f"{_DELETE} {_UPDATE} {_INSERT.format('')}", "Product 100002 was counted with 0"),
    ("10.1", _COUNT % f"{_DELETE} {_UPDATE}", "Product 100001 is new"),
    ("10.1", _COUNT % f"{_DELETE} {_INSERT.format('AND source.quantity > 0 ')}", "WHEN MATCHED THEN UPDATE"),
    ("10.1", _COUNT % f"{_RIGHT} WHEN NOT MATCHED BY SOURCE THEN DELETE", "leaves the others as they are"),
    ("10.1", _COUNT.replace("False", "True") % _RIGHT, "Match by store_id AND product_id"),
    (
        "10.1",
        f"{_COUNT % _RIGHT}\nspark.sql(f'DELETE FROM delta.`{{practice}}` WHERE store_id = 3')",
        "but it is missing",
    ),
    (
        "10.1",
        f"{_COUNT % _RIGHT}\nspark.sql(f'DELETE FROM delta.`{{practice}}` WHERE quantity = 0')",
        "but its row has changed",
    ),
    (
        "10.1",
        f"{_COUNT % _RIGHT}\nspark.sql(f'UPDATE delta.`{{practice}}` SET quantity = quantity WHERE store_id = 1')",
        "commits since",
    ),
    ("10.1", "answer = DeltaTable(stocks, storage_options=lake.storage_options)", "The table should be the one at"),
    ("10.1", _COUNT % "WHEN MATCHED AND source.quantity < 0 THEN DELETE", "the same rows as before"),
    (
        "10.1",
        _COUNT % f"{_DELETE} {_UPDATE.replace('= ', '= target.quantity + ')} {_INSERT.format('')}",
        "It should replace",
    ),
    ("10.1", _COUNT % f"WHEN MATCHED THEN DELETE {_INSERT.format('')}", "its row is gone"),
    (
        "10.1",
        _COUNT % _RIGHT.replace("(source.store_id, source.product_id,", "(source.product_id, source.store_id,"),
        "swapped in the INSERT",
    ),
    ("10.1", _COUNT % _RIGHT + "\nanswer = spark.table('stock_count')", "must be of type DeltaTable"),
    ("10.2", _COMPARE.format("abs(one.count() - other.count())"), "With a changed row"),
    ("10.2", _COMPARE.format("one.exceptAll(other).count()"), "the new row has none either"),
    (
        "10.2",
        _COMPARE.format("one.subtract(other).count() + other.subtract(one).count()"),
        "EXCEPT without ALL",
    ),
    ("10.2", _COMPARE.format("one.exceptAll(other)"), "should return a number"),
    (
        "10.2",
        _COMPARE.format(
            "max(one.subtract(other).count() + other.subtract(one).count(), abs(one.count() - other.count()))"
        ),
        "row by row, so that they do not cancel out",
    ),
    ("10.2", _JOIN, "In a join NULL equals nothing"),
    ("10.2", _JOIN.replace("a.name = b.name", "a.name <=> b.name"), "like a join"),
    (
        "10.2",
        _COMPARE.format("one.exceptAll(other).union(other.exceptAll(one)).distinct().count()"),
        "two copies too many",
    ),
    ("10.2", _COMPARE.format("one.exceptAll(other).count() == 0"), "should return a number"),
    ("10.2", _COMPARE.format("max(one.exceptAll(other).count(), other.exceptAll(one).count())"), "has none either"),
    ("10.2", "answer = differences = 0", "not int"),
    ("10.2", "answer = lambda one: 0", "two arguments"),
    ("10.3", _CLUSTER.format("20_000", ", efficiency=1", ""), "twice the cores did twice the work"),
    ("10.3", _CLUSTER.format("20_000", ", start_up=0", ""), "The hour begins when you request"),
    ("10.3", _CLUSTER.format("20_000", ', engine="local"', ""), "uses DuckDB's core-seconds"),
    ("10.3", _CLUSTER.format("20", "", ""), "counts in million lines"),
    ("10.3", _CLUSTER.format("20_000", "", " * 4"), "That is a number of cores"),
    ("10.3", _CLUSTER.format("20_000", "", " - 1"), "an hour has 3,600"),
    ("10.3", _CLUSTER.format("20_000", "", " + 1"), "fewer would be too"),
    ("10.3", "answer = estimate(20_000, nodes=85)[1]", "whole number of nodes"),
    ("10.3", "answer = 192", "cores of the one machine"),
    ("10.3", _CLUSTER.format("20_000", "", "").replace("<= 3600", "<= 3600 - 240"), "already contain the start"),
    ("10.3", _CLUSTER.format("20_000", ", cores=192", ""), "has 4 cores"),
    ("10.3", "answer = True", "whole number of nodes"),
    ("10.3", "answer = 0", "at least one node"),
]
