"""Wrong answers to the exercises of notebook 11."""

_POLICY = """arn = f"arn:aws:s3:::{{lake.bucket}}"
bronze, silver, everything = f"{{lake.prefix}}/bronze/*", f"{{lake.prefix}}/silver/*", f"{{lake.prefix}}/*"
answer = {{"Version": "2012-10-17", "Statement": [
    {{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn,
      "Condition": {{"StringLike": {{"s3:prefix": {listed}}}}}}},
    {{"Effect": "Allow", "Action": "s3:GetObject", "Resource": [f"{{arn}}/{{name}}" for name in {read}]}},
    {{"Effect": "Allow", "Action": {writes}, "Resource": [f"{{arn}}/{{name}}" for name in {written}]}},
]}}"""
_RIGHT = {
    "listed": "[bronze, silver]",
    "read": "[bronze, silver]",
    "writes": '["s3:PutObject", "s3:AbortMultipartUpload"]',
    "written": "[bronze]",
}


def _policy(**parts: str) -> str:
    return _POLICY.format(**_RIGHT | parts)


def _also(action: str, resource: str) -> str:
    """The right policy with one statement more; `arn` is the bucket."""
    more = f'{{"Effect": "Allow", "Action": "{action}", "Resource": {resource}}}, '
    return _policy().replace('"Statement": [', f'"Statement": [{more}')


def _alarm(
    column: str = "max(ended_at)", where: str = "command = 'run' AND status NOT IN ('failed', 'interrupted')"
) -> str:
    return f'answer = """SELECT coalesce({column} < now() - INTERVAL 26 HOURS, true) FROM runs WHERE {where}"""'


WRONG_ANSWERS = [
    ("11.1", _policy(read="[silver]"), "reads the log of the bronze table"),
    ("11.1", _policy(written="[bronze, silver]"), "can write to silver"),
    (
        "11.1",
        _policy(writes='["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]'),
        "can delete objects in bronze",
    ),
    ("11.1", _policy(read="[everything]"), "reaches gold"),
    ("11.1", _policy(listed="[everything]"), "sees the rest of the lake"),
    ("11.1", _policy(listed="[bronze]"), "cannot list the folder silver/"),
    ("11.1", _policy(writes='["s3:PutObject"]'), "abort such an upload"),
    ("11.1", "answer = deployment.lake_policy('ReaderRole', lake.bucket, lake.prefix)", "cannot write to bronze"),
    ("11.1", "answer = writer_policy", "can write to silver"),
    (
        "11.1",
        _policy(writes='["s3:*"]').replace(
            '"Statement": [', '"Statement": [{"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"}, '
        ),
        "old versions",
    ),
    (
        "11.1",
        _policy().replace(
            '"Statement": [', '"Statement": [{"Effect": "Deny", "Action": "s3:Abort*", "Resource": "*"}, '
        ),
        "abort such an upload",
    ),
    ("11.1", _policy().replace("StringLike", "StringEquals"), "StringLike knows *"),
    ("11.1", _policy().replace('"Resource": arn,', '"Resource": f"{arn}/*",'), "its resource is the bucket's ARN"),
    ("11.1", _policy(listed="['bronze/*', 'silver/*']").replace("{lake.prefix}/", ""), "begin with `lake.prefix`"),
    ("11.1", _policy().replace('"s3:ListBucket"', '"s3:List"'), "Which action lists"),
    ("11.1", "answer = {}", "version is required"),
    ("11.1", _policy(listed="[lake.prefix, bronze, silver]"), "without a slash"),
    ("11.1", _policy(listed="[bronze, bronze[:-2], silver]"), "without a slash"),
    ("11.1", _policy(listed="[bronze.replace('/*', '*'), silver]"), "without a slash"),
    ("11.1", _policy(listed="[bronze, silver, lake.key('quarantine', '*')]"), "sees the rest of the lake"),
    ("11.1", _policy(listed="[bronze, silver, lake.key('bronze2', '*')]"), "sees the rest of the lake"),
    ("11.1", _also("s3:ListBucketVersions", "arn"), "sees the rest of the lake"),
    (
        "11.1",
        _policy(read="[everything]").replace(
            '"Statement": [',
            '"Statement": [{"Effect": "Deny", "Action": "*", "Resource": f"{arn}/{lake.key(\'gold\', \'*\')}"}, ',
        ),
        "reaches quarantine",
    ),
    ("11.1", _policy(read="[bronze, silver, lake.key('operations', '*')]"), "reaches operations"),
    ("11.1", _policy(written="[bronze, lake.key('quarantine', '*')]"), "reaches quarantine"),
    ("11.1", _policy(read="[bronze.replace('/*', '*'), silver]"), "reaches bronze2/"),
    ("11.1", _policy(read="['*/bronze/*', silver]"), "no *, before bronze/"),
    ("11.1", _also("s3:GetObject", "f'{arn}/{lake.prefix}-other/bronze/*'"), "-other/bronze/"),
    ("11.1", _also("s3:GetObject", "f'arn:aws:s3:::*/{bronze}'"), "other buckets"),
    ("11.1", _also("s3:ListBucket", "'arn:aws:s3:::other*'"), "other buckets"),
    ("11.1", _also("s3:AbortMultipartUpload", "f'{arn}/{silver}'"), "only read in silver"),
    ("11.1", _also("s3:Put*", "f'{arn}/{bronze}'"), "more in bronze"),
    *[
        ("11.1", _also(f"s3:{action}", "arn"), "more with the bucket")
        for action in ("PutBucketPolicy", "PutLifecycleConfiguration", "DeleteBucket", "Get*", "*")
    ],
    ("11.1", _policy().replace("arn:aws:s3:::", "s3://"), "not an address with s3://"),
    ("11.1", _policy(read="['bronze/*', 'silver/*']"), "begin with `lake.prefix`"),
    ("11.1", _policy(written="['bronze/*']"), "begin with `lake.prefix`"),
    ("11.2", "answer = 10 / (30 * 900 * 0.005 / 1000)", "left out the GET"),
    ("11.2", "answer = 62 * 30", "about a day"),
    ("11.2", "answer = int(10 / (31 * 0.0053))", "has 30 days"),
    ("11.2", "answer = int(10 / (30 * (2000 * 0.005 + 900 * 0.0004) / 1000))", "prices are swapped"),
    ("11.2", "answer = 0.0053", "price of one run"),
    ("11.2", "answer = 62 * 30 * 0.0053", "runs of a month cost"),
    ("11.2", "answer = 24 * 60 / 62", "minutes between two runs"),
    ("11.2", "answer = float('inf')", "price of one run first"),
    ("11.2", "answer = int(10 / (30 * 900 * 0.005 / 1000))", "left out the GET"),
    ("11.2", "answer = int(10 / (30 * 2000 * 0.0004 / 1000))", "left out the PUT and LIST"),
    ("11.2", "answer = int(10 / (900 * 0.005 / 1000 + 2000 * 0.0004 / 1000))", "runs in a month"),
    ("11.2", "answer = int(10 / (30 * 2900 * 0.005 / 1000))", "have another price"),
    ("11.2", "answer = 10 / (30 * (900 * 0.005 + 2000 * 0.0004) / 1000)", "round down"),
    ("11.2", "answer = 10 / (30 * (900 * 0.005 + 2000 * 0.0004))", "for 1,000 requests"),
    ("11.2", "answer = int(10 / (30 * (900 * 0.005 + 2000 * 0.0004)))", "for 1,000 requests"),
    ("11.2", "answer = 63", "round down"),
    ("11.2", "answer = '62'", "The answer must be a number"),
    ("11.3", "answer = alarm", "An interrupted run counts"),
    ("11.3", _alarm(where="status NOT IN ('failed', 'interrupted')"), "--maintain counts"),
    ("11.3", _alarm(where="command = 'run' AND status <> 'failed'"), "An interrupted run counts"),
    ("11.3", _alarm(where="command = 'run' AND status <> 'interrupted'"), "The only run of the last day failed"),
    ("11.3", _alarm(where="command = 'run' AND status = 'ok'"), "put rows into quarantine"),
    ("11.3", _alarm(where="command = 'run' AND exit_code = 0"), "put rows into quarantine"),
    ("11.3", _alarm(where="command = 'run' AND (status = 'ok' OR exit_code IN (3, 4))"), "Without --strict"),
    ("11.3", _alarm(where="command = 'run' AND exit_code <> 1"), "An interrupted run counts"),
    (
        "11.3",
        _alarm("max_by(status, ended_at) IN ('failed', 'interrupted') OR max(ended_at)", "command = 'run'"),
        "a run succeeded 5 hours ago",
    ),
    (
        "11.3",
        _alarm(
            "max_by(status, ended_at) = 'interrupted' OR max(ended_at) FILTER (exit_code IN (0, 3, 4))",
            "command = 'run'",
        ),
        "a run succeeded 5 hours ago",
    ),
    ("11.3", _alarm(column="max(started_at)"), "took 29 hours"),
    ("11.3", _alarm(column="min(ended_at)"), "but there is a newer one"),
    ("11.3", _alarm().replace("coalesce(", "(").replace(", true)", ")"), "is NULL or false"),
    ("11.3", _alarm().replace("26 HOURS", "24 HOURS"), "Which limit"),
    ("11.3", 'answer = "SELECT * FROM runs"', "one row with one value"),
    ("11.3", _alarm().replace(", true)", ", true), count(*)"), "2 columns"),
    ("11.3", _alarm().replace(", true)", ", true)::INT"), "true or false"),
    ("11.3", _alarm().replace("SELECT", "SELECT NOT"), "the other way round"),
    ("11.3", 'answer = ""', "no SQL"),
    ("11.3", 'answer = "SELECT true FROM runs WHERE"', "DuckDB cannot run it"),
    ("11.3", 'answer = "SELECT true"', "does not stay false"),
]
