"""The rows that the tables must have, computed from the raw files in plain Python: slow, simple, and independent.

This module shares no code with the pipeline, always reads all files, and knows nothing of runs. `tables(...)` returns
the rows of silver, both histories, gold and quarantine after all files have arrived, in any order. A surrogate key is
written as what it stands for: ("customers", customer_id, number of the version from 0), or None for the unknown member.
"""

import csv
import gzip
import io
import json
import re
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pyarrow.parquet as pq

BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
LOWEST = datetime(1, 1, 1, tzinfo=UTC)


@dataclass
class Version:
    """One good row: its values, from when they apply, and how it sorts among the versions of its key."""

    values: dict
    at: datetime | None
    order: tuple
    file: str
    line: int


def tables(landing: Path, sources: Path) -> dict[str, list[dict]]:
    """All tables by name: "silver.orders", "gold.fact_sales", "quarantine.orders" (file and line only)."""
    described = tomllib.loads(sources.read_text(encoding="utf-8"))
    tables: dict[str, list[dict]] = {}
    silver, history = {}, {}
    for name, source in described.items():
        versions, bad = _versions(landing, name, source)
        tables[f"quarantine.{name}"] = [{"_source_file": file, "_source_line": line} for file, line in bad]
        by_key = defaultdict(list)
        for version in sorted(versions, key=lambda version: version.order):
            by_key[tuple(version.values[column] for column in source["key"])].append(version)
        silver[name] = {key: of_key[-1].values for key, of_key in by_key.items()}
        tables[f"silver.{name}"] = list(silver[name].values())
        if source.get("history"):
            history[name] = {key[0]: _history(of_key, source) for key, of_key in by_key.items()}
            tables[f"silver.{name}_history"] = [row for rows in history[name].values() for row in rows]
    if "order_items" in described:
        tables |= _gold({name: list(rows.values()) for name, rows in silver.items()}, history)
    return tables


# -- raw files to good versions and bad lines


def _versions(landing: Path, table: str, source: dict) -> tuple[list[Version], list[tuple[str, int]]]:
    good, bad = [], []
    for path in sorted(landing.rglob(f"{table}.*")):
        file = path.relative_to(landing).as_posix()
        batch = path.parent.name if path.parent != landing else "."
        rows, broken = _read(path, source.get("delimiter", ","))
        bad += [(file, line) for line in broken]
        for line, raw in rows:
            folded = {name.casefold(): value for name, value in raw.items()}
            try:
                values = {name: _value(name, about, source, folded) for name, about in source["columns"].items()}
            except ValueError:
                bad.append((file, line))
                continue
            day = re.search(r"\d{4}-\d{2}-\d{2}", batch)
            at = datetime.combine(date.fromisoformat(day[0]), time(), UTC) if day else None
            by = values.get(source.get("order_by"))
            if isinstance(by, date) and not isinstance(by, datetime):
                by = datetime.combine(by, time(), UTC)
            if isinstance(by, datetime):
                at, by = by, None
            number = () if by is None and "order_by" not in source else (by is not None, by or 0)
            good.append(Version(values, at, (*number, at or LOWEST, batch, file, line), file, line))
    return good, bad


def _read(path: Path, delimiter: str) -> tuple[list[tuple[int, dict]], list[int]]:
    """(line, values as text) of the records that can be split, and the line numbers of those that cannot."""
    if path.suffix == ".parquet":
        return [
            (n, {k: _text(v) for k, v in row.items()}) for n, row in enumerate(pq.read_table(path).to_pylist(), 1)
        ], []
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    lines = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape").split("\n")
    return _json_lines(lines) if ".jsonl" in path.name else _csv(lines, delimiter)


def _json_lines(lines: list[str]) -> tuple[list, list]:
    rows, broken = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_int=str, parse_float=str)
            rows.append((number, {name: _text(value) for name, value in row.items()}))
        except (ValueError, AttributeError):
            broken.append(number)
    return rows, broken


def _csv(lines: list[str], delimiter: str) -> tuple[list, list]:
    rows, broken, header, number = [], [], None, 0
    while number < len(lines):
        if not lines[number].strip():
            number += 1
            continue
        taken = 1
        while (text := "\n".join(lines[number : number + taken])).count('"') % 2 and number + taken < len(lines):
            taken += 1
        if text.count('"') % 2:  # never closed: only its first line is broken
            broken.append(number + 1)
            number += 1
            continue
        fields = next(csv.reader(io.StringIO(text.removesuffix("\r") + "\n", newline=""), delimiter=delimiter))
        if header is None:
            header = [name.strip() for name in fields]
        elif len(fields) != len(header) or re.search("[\udc80-\udcff]", text):
            broken.append(number + 1)
        else:
            rows.append((number + 1, dict(zip(header, fields, strict=True))))
        number += taken
    return rows, broken


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _value(name: str, about: dict, source: dict, raw: dict[str, str | None]) -> object:
    text = raw.get(name.casefold())
    if text in (None, "", "NULL"):
        if name in source["key"] or about.get("required"):
            raise ValueError(f"{name}: missing")
        return None
    value = _typed(text.strip(" ") if about["type"] != "text" else text, about["type"])
    if "min" in about and value < type(value)(str(about["min"])):
        raise ValueError(f"{name}: too low")
    if "max" in about and value > type(value)(str(about["max"])):
        raise ValueError(f"{name}: too high")
    if "allowed" in about and value not in about["allowed"]:
        raise ValueError(f"{name}: not allowed")
    return value


def _typed(text: str, kind: str) -> object:
    try:
        match kind:
            case "text":
                return text
            case "integer":
                return int(text)
            case "double":
                return float(text)
            case "date":
                return date.fromisoformat(text)
            case "timestamp":
                moment = datetime.fromisoformat(text)
                return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        precision, scale = map(int, re.findall(r"\d+", kind))
        value = Decimal(text)
        if value != value.quantize(Decimal(1).scaleb(-scale)) or abs(value) >= Decimal(10) ** (precision - scale):
            raise ValueError(text)
        return value.quantize(Decimal(1).scaleb(-scale))
    except InvalidOperation:
        raise ValueError(text) from None


def _history(versions: list[Version], source: dict) -> list[dict]:
    """Slowly changing dimension, type 2, of one key whose versions come in order."""
    compared = [name for name in source["columns"] if name not in (*source["key"], source.get("order_by"))]
    moments = {version.at: version.values for version in versions}  # of several versions of one moment the last counts
    rows = []
    for at, values in sorted(moments.items()):
        if rows and all(rows[-1][name] == values[name] for name in compared):
            continue
        if rows:
            rows[-1] |= {"valid_to": at, "is_current": False}
        rows.append({**values, "valid_from": at, "valid_to": None, "is_first": not rows, "is_current": True})
    return rows


# -- the star schema


def _gold(silver: dict[str, list[dict]], history: dict[str, dict]) -> dict[str, list[dict]]:
    brands = {row["brand_id"]: row["brand_name"] for row in silver["brands"]}
    categories = {row["category_id"]: row["category_name"] for row in silver["categories"]}
    stores = {row["store_id"]: row for row in silver["stores"]}
    staffs = {row["staff_id"]: row for row in silver["staffs"]}
    orders = {row["order_id"]: row for row in silver["orders"]}

    def without(row: dict, *names: str) -> dict:
        return {name: value for name, value in row.items() if name not in names}

    def versions(table: str) -> list[dict]:
        return [
            without(row, "is_first")
            | {"valid_from": row["valid_from"] if number else BEGINNING, f"{table[:-1]}_sk": (table, key, number)}
            for key, rows in history[table].items()
            for number, row in enumerate(rows)
        ]

    def in_force(table: str, key: object, day: date | None) -> tuple | None:
        rows = history[table].get(key)
        if rows is None:
            return None
        end = datetime.combine(day, time(), UTC) + timedelta(days=1) if day else None
        last = max(n for n, row in enumerate(rows) if not n or end is None or row["valid_from"] < end)
        return (table, key, last)

    beginning = {"valid_from": BEGINNING, "is_current": True}
    unknown_person = {"first_name": "Unknown", "last_name": "Unknown"}
    gold = {
        "dim_customers": [without(row, "updated_at") for row in versions("customers")] + [unknown_person | beginning],
        "dim_products": [
            {
                **without(row, "updated_at"),
                "brand_name": brands.get(row["brand_id"], "Unknown"),
                "category_name": categories.get(row["category_id"], "Unknown"),
            }
            for row in versions("products")
        ]
        + [{"product_name": "Unknown", "brand_name": "Unknown", "category_name": "Unknown"} | beginning],
        "dim_stores": [row | {"store_sk": ("stores", key, 0)} for key, row in stores.items()]
        + [{"store_name": "Unknown"}],
        "dim_staffs": [
            row
            | {
                "staff_sk": ("staffs", key, 0),
                "store_name": stores.get(row["store_id"], {}).get("store_name", "Unknown"),
                "manager_name": (boss := staffs.get(row["manager_id"])) and f"{boss['first_name']} {boss['last_name']}",
            }
            for key, row in staffs.items()
        ]
        + [unknown_person | {"store_name": "Unknown"}],
        "fact_stocks": [
            row
            | {
                "store_sk": ("stores", row["store_id"], 0) if row["store_id"] in stores else None,
                "product_sk": in_force("products", row["product_id"], None),
            }
            for row in silver["stocks"]
        ],
    }
    days = [row["order_date"] for row in silver["orders"]]
    first, last = (date(min(days).year, 1, 1), date(max(days).year, 12, 31)) if days else (date(2, 1, 2), date(2, 1, 1))
    gold["dim_date"] = [{"month_name": "Unknown", "weekday_name": "Unknown"}] + [
        {
            "date_sk": int(f"{day:%Y%m%d}"),
            "date": day,
            "year": day.year,
            "quarter": (day.month + 2) // 3,
            "month": day.month,
            "month_name": f"{day:%B}",
            "day": day.day,
            "weekday": day.isoweekday(),
            "weekday_name": f"{day:%A}",
            "is_weekend": day.isoweekday() > 5,
        }
        for day in (first + timedelta(days=n) for n in range((last - first).days + 1))
    ]
    gold["fact_sales"] = []
    for line in silver["order_items"]:
        order = orders.get(line["order_id"], {})
        day = order.get("order_date")
        gold["fact_sales"].append(
            {
                **{name: line[name] for name in ("order_id", "item_id", "quantity", "list_price", "discount")},
                "product_sk": in_force("products", line["product_id"], day),
                "customer_sk": in_force("customers", order.get("customer_id"), day),
                "staff_sk": ("staffs", order["staff_id"], 0) if order.get("staff_id") in staffs else None,
                "store_sk": ("stores", order["store_id"], 0) if order.get("store_id") in stores else None,
                "date_sk": int(f"{day:%Y%m%d}") if day else None,
                "order_date": day,
                "order_status": order.get("order_status"),
                "net_amount": line["quantity"] * line["list_price"] * (1 - line["discount"]),
            }
        )
    return {f"gold.{name}": rows for name, rows in (gold | _marts(gold, stores, history)).items()}


def _marts(gold: dict, stores: dict, history: dict) -> dict[str, list[dict]]:
    sold = [line for line in gold["fact_sales"] if line["order_status"] != 3]
    products = {row.get("product_sk"): row for row in gold["dim_products"]}

    def grouped(lines: list[dict], key) -> dict[object, list[dict]]:
        groups = defaultdict(list)
        for line in lines:
            groups[key(line)].append(line)
        groups.pop(None, None)
        return groups

    def sums(lines: list[dict]) -> dict:
        return {
            "orders": len({line["order_id"] for line in lines}),
            "units": sum(line["quantity"] for line in lines),
            "revenue": sum(line["net_amount"] for line in lines),
        }

    def month(line: dict) -> tuple | None:
        store = stores[line["store_sk"][1]]["store_name"] if line["store_sk"] else "Unknown"
        day = line["order_date"]
        return day and (day.replace(day=1), store, products[line["product_sk"]]["category_name"])

    monthly = [
        {"month": first, "store_name": store, "category_name": category} | sums(lines)
        for (first, store, category), lines in grouped(sold, month).items()
    ]
    of_product = []
    for product_id, lines in grouped(sold, lambda line: line["product_sk"] and line["product_sk"][1]).items():
        today = products["products", product_id, len(history["products"][product_id]) - 1]
        names = {name: today[name] for name in ("product_id", "product_name", "brand_name", "category_name")}
        days = [line["order_date"] for line in lines if line["order_date"]]
        of_product.append(names | sums(lines) | {"last_sold": max(days, default=None)})
    of_customer = []
    for customer_id, lines in grouped(sold, lambda line: line["customer_sk"] and line["customer_sk"][1]).items():
        days = [line["order_date"] for line in lines]
        today = {"customer_id": customer_id, "state": history["customers"][customer_id][-1]["state"]}
        of_customer.append(today | sums(lines) | {"first_order": min(days), "last_order": max(days)})
    return {"mart_monthly_sales": monthly, "mart_product_sales": of_product, "mart_customer_value": of_customer}


# -- comparing


def as_counter(rows: list[dict], columns: list[str]) -> Counter:
    """The rows without their order; a missing value is None."""
    return Counter(tuple(row.get(column) for column in columns) for row in rows)
