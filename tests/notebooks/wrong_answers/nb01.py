"""Wrong answers to the exercises of notebook 01."""

_LISTED = """pages = s3.get_paginator("list_objects_v2").paginate(Bucket=lake.bucket, Prefix=PREFIX)
found = [entry for page in pages for entry in page["Contents"]]
"""
_SLASH, _NO_SLASH = 'lake.key("silver", "customers", "")', 'lake.key("silver", "customers")'

_TAIL = """file = DeltaTable(lake.uri("silver", "customers"), storage_options=lake.storage_options).file_uris()[0]
place = file.removeprefix(f"s3://{lake.bucket}/")
tail = s3.get_object(Bucket=lake.bucket, Key=place, Range="bytes=-8")["Body"].read()
"""

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
        _LISTED.replace("PREFIX", _NO_SLASH) + 'answer = sum(entry["Size"] for entry in found)',
        "counts silver/customers_history as well",
    ),
    (
        "01.1",
        _LISTED.replace("PREFIX", _SLASH)
        + 'answer = sum(entry["Size"] for entry in found if entry["Key"].endswith(".parquet"))',
        "The log belongs to the table too",
    ),
    ("01.1", _LISTED.replace("PREFIX", _SLASH) + "answer = len(found)", "how many objects there are"),
    (
        "01.1",
        _LISTED.replace("PREFIX", _SLASH) + 'answer = round(sum(entry["Size"] for entry in found) / 1000)',
        "Those are kB",
    ),
    ("01.1", 'answer = views.objects(lake, "silver", "customers")', "it is of DataFrame"),
    (
        "01.1",
        'answer = int(1000 * views.objects(lake, "silver", "customers")["size_kb"].sum())',
        "were rounded to them",
    ),
    (
        "01.1",
        _LISTED.replace("PREFIX", '"silver/customers/"').replace('page["Contents"]', 'page.get("Contents", [])')
        + 'answer = sum(entry["Size"] for entry in found)',
        "lake.key(...) knows it",
    ),
    ("01.2", _TAIL + 'answer = int.from_bytes(tail[:4], "big")', "the order isn't"),
    ("01.2", _TAIL + 'answer = int.from_bytes(tail[:4], "little") + 8', "with the 8 bytes behind it"),
    ("01.2", _TAIL + 'answer = int.from_bytes(tail, "little")', "all 8 bytes"),
    ("01.2", _TAIL + 'answer = int.from_bytes(tail[4:], "little")', "the 4 before them"),
    ("01.2", _TAIL + 'answer = s3.head_object(Bucket=lake.bucket, Key=place)["ContentLength"]', "the whole file"),
    ("01.2", "answer = footer_length", "Is it that table's file?"),
    ("01.2", _TAIL + "answer = tail[:4]", "it is of bytes"),
    (
        "01.3",
        """def answer(key, body):
    found = s3.list_objects_v2(Bucket=lake.bucket, Prefix=key)
    if found["KeyCount"]:
        return False
    s3.put_object(Bucket=lake.bucket, Key=key, Body=body)
    return True""",
        "came between your look and your put",
    ),
    (
        "01.3",
        """def answer(key, body):
    s3.put_object(Bucket=lake.bucket, Key=key, Body=body)
    return True""",
        "Where is IfNoneMatch",
    ),
    (
        "01.3",
        _PUT
        + """        return True
    except ClientError:
        return False""",
        "503 SlowDown",
    ),
    (
        "01.3",
        """def answer(key, body):
    s3.put_object(Bucket=lake.bucket, Key=key, Body=body, IfNoneMatch="*")
    return True""",
        "came out as an error",
    ),
    (
        "01.3",
        _PUT
        + """        return True
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 400:
            return False
        raise""",
        "503 SlowDown",
    ),
    (
        "01.3",
        _PUT
        + """    except ClientError as error:
        return False""",
        "it returned None",
    ),
    ("01.4", _POLICY + 'listing["Resource"] += "/*"', "without /*"),
    ("01.4", _POLICY + 'getting["Resource"] = table', "ends with /*"),
    ("01.4", _POLICY + 'getting["Action"] = ["s3:GetObject", "s3:PutObject"]', "lets its holder write a commit"),
    ("01.4", _POLICY + 'getting["Resource"] = f"{table}*"', "opens silver/customers_history too"),
    (
        "01.4",
        _POLICY + 'getting["Resource"] = f"arn:aws:s3:::{lake.bucket}/*"',
        "opens other tables as well",
    ),
    (
        "01.4",
        _POLICY + 'getting["Action"] = [getting["Action"], listing.pop("Action")]\n'
        'getting["Resource"] = [getting["Resource"], listing["Resource"]]\n'
        'getting["Condition"] = listing["Condition"]\nanswer["Statement"] = [getting]',
        "in a statement of its own",
    ),
    (
        "01.4",
        _POLICY + 'listing["Condition"]["StringLike"]["s3:prefix"] = lake.key("silver", "customers") + "*"',
        "with a slash before the *",
    ),
    ("01.4", _POLICY + 'del listing["Condition"]', "lists silver/customers_history too, and all else"),
    ("01.4", _POLICY + 'answer["Statement"] = getting', "should be a list"),
    ("01.4", _POLICY + 'answer["Version"] = "1.0"', "2012-10-17"),
]
