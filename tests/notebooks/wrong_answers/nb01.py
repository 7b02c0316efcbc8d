"""Wrong answers to the exercises of notebook 01."""

_LISTED = """pages = s3.get_paginator("list_objects_v2").paginate(Bucket=lake.bucket, Prefix=PREFIX)
entries = [entry for page in pages for entry in page["Contents"]]
"""
_SLASH, _NO_SLASH = 'lake.key("silver", "customers", "")', 'lake.key("silver", "customers")'

_COLLEAGUE = f"""listing = s3.list_objects_v2(Bucket=lake.bucket, Prefix={_NO_SLASH}, MaxKeys=2)
answer = sum(entry["Size"] for entry in listing["Contents"])"""

_PUT = """def answer(key, body):
    try:
        s3.put_object(Bucket=lake.bucket, Key=key, Body=body, IfNoneMatch="*")
"""

_POLICY = """table = f"arn:aws:s3:::{lake.bucket}/{lake.key('silver', 'customers')}"
listing = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{lake.bucket}"}
listing["Condition"] = {"StringLike": {"s3:prefix": lake.key("silver", "customers", "*")}}
getting = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"{table}/*"}
answer = {"Version": "2012-10-17", "Statement": [listing, getting]}
"""

WRONG_ANSWERS = [
    (
        "01.1",
        _LISTED.replace("PREFIX", _NO_SLASH) + 'answer = sum(entry["Size"] for entry in entries)',
        "That includes silver/customers_history",
    ),
    (
        "01.1",
        _LISTED.replace("PREFIX", _SLASH)
        + 'answer = sum(entry["Size"] for entry in entries if entry["Key"].endswith(".parquet"))',
        "The log is part of the table too",
    ),
    ("01.1", _COLLEAGUE, "the size of the log alone"),
    ("01.1", _COLLEAGUE.replace(_NO_SLASH, _SLASH), "on the next one: use a paginator"),
    ("01.1", _LISTED.replace("PREFIX", _SLASH) + "answer = len(entries)", "the number of objects"),
    (
        "01.1",
        _LISTED.replace("PREFIX", _SLASH) + 'answer = round(sum(entry["Size"] for entry in entries) / 1000)',
        "That is in kB",
    ),
    ("01.1", _LISTED.replace("PREFIX", _SLASH) + "answer = pd.DataFrame(entries)", "it is of type DataFrame"),
    (
        "01.1",
        _LISTED.replace("PREFIX", _SLASH) + 'answer = 1000 * sum(round(entry["Size"] / 1000) for entry in entries)',
        "was rounded to kB",
    ),
    (
        "01.1",
        _LISTED.replace("PREFIX", '"silver/customers/"').replace('page["Contents"]', 'page.get("Contents", [])')
        + 'answer = sum(entry["Size"] for entry in entries)',
        "Your tables have their own prefix in the bucket: use lake.key(...)",
    ),
    (
        "01.2",
        """def answer(key, body):
    listing = s3.list_objects_v2(Bucket=lake.bucket, Prefix=key)
    if listing["KeyCount"]:
        return False
    s3.put_object(Bucket=lake.bucket, Key=key, Body=body)
    return True""",
        "wrote the object after your function had looked for it",
    ),
    (
        "01.2",
        """def answer(key, body):
    s3.put_object(Bucket=lake.bucket, Key=key, Body=body)
    return True""",
        "Did you pass IfNoneMatch?",
    ),
    (
        "01.2",
        _PUT
        + """        return True
    except ClientError:
        return False""",
        "503 SlowDown",
    ),
    (
        "01.2",
        """def answer(key, body):
    s3.put_object(Bucket=lake.bucket, Key=key, Body=body, IfNoneMatch="*")
    return True""",
        "The function raised the refusal, PreconditionFailed",
    ),
    (
        "01.2",
        _PUT
        + """        return True
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 400:
            return False
        raise""",
        "503 SlowDown",
    ),
    (
        "01.2",
        _PUT
        + """    except ClientError as error:
        return False""",
        "It returned None",
    ),
    (
        "01.2",
        _PUT
        + """        return True
    except ClientError as error:
        if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
            return False
        raise""",
        "409 ConditionalRequestConflict",
    ),
    (
        "01.2",
        _PUT
        + """        return True
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
            return False
        raise""",
        "no request has won",
    ),
    (
        "01.2",
        _PUT
        + """        return True
    except ClientError as error:
        if error.response["Error"]["Code"] == "PreconditionFailed":
            return False
        raise ValueError("no")""",
        "its ClientError became ValueError",
    ),
    (
        "01.2",
        """def answer(key, body):
    while True:
        try:
            s3.put_object(Bucket=lake.bucket, Key=key, Body=body, IfNoneMatch="*")
            return True
        except ClientError as error:
            if error.response["Error"]["Code"] == "PreconditionFailed":
                return False""",
        "again and again: set a limit",
    ),
    (
        "01.3",
        _POLICY
        + """name = lake.key("silver", "customers")
listing["Condition"] = {"StringLike": {"s3:prefix": [name, f"{name}/*"]}}""",
        "without the slash, which shows the keys",
    ),
    ("01.3", _POLICY + 'getting["Resource"] = f"{table}/_delta_log/*"', "could not get the data files"),
    (
        "01.3",
        _POLICY + 'getting["Resource"] = [f"{table}/*", table.replace("silver/customers", "bronze/orders") + "/*"]',
        "reading bronze/orders too",
    ),
    ("01.3", _POLICY + 'listing["Resource"] += "/*"', "is the bucket, without /*"),
    ("01.3", _POLICY + 'getting["Resource"] = table', "so it ends with /*"),
    ("01.3", _POLICY + 'getting["Action"] = ["s3:GetObject", "s3:PutObject"]', "allows writing a commit"),
    ("01.3", _POLICY + 'getting["Resource"] = f"{table}*"', "allows reading silver/customers_history too"),
    (
        "01.3",
        _POLICY + 'getting["Resource"] = f"arn:aws:s3:::{lake.bucket}/*"',
        "allows reading other tables too",
    ),
    (
        "01.3",
        _POLICY + 'getting["Action"] = [getting["Action"], listing.pop("Action")]\n'
        'getting["Resource"] = [getting["Resource"], listing["Resource"]]\n'
        'getting["Condition"] = listing["Condition"]\nanswer["Statement"] = [getting]',
        "belongs in a separate statement",
    ),
    (
        "01.3",
        _POLICY + 'listing["Condition"]["StringLike"]["s3:prefix"] = lake.key("silver", "customers") + "*"',
        "with a slash before the *",
    ),
    ("01.3", _POLICY + 'del listing["Condition"]', "allows listing silver/customers_history and everything else"),
    ("01.3", _POLICY + 'answer["Statement"] = getting', "must be a list"),
    ("01.3", _POLICY + 'answer["Version"] = "1.0"', "2012-10-17"),
]
