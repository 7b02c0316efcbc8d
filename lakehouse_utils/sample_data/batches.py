"""What happens in the bicycle shop, batch by batch: the full load, and the six daily batches with all their quirks.

The docstring of a batch's function is its description in data/README.md.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from errno import ENOSPC
from math import isfinite
from pathlib import Path
from shutil import disk_usage
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.sample_data.columns import Row, Table, pick, rows_of, where
from lakehouse_utils.sample_data.draws import Integers, draw
from lakehouse_utils.sample_data.shop import CLOSED, UNKNOWN_ID, Shop, timestamps
from lakehouse_utils.sample_data.vocabulary import BRANDS, CATEGORIES, CUSTOMERS_WITH_TWO_LINES
from lakehouse_utils.sample_data.writer import (
    BROKEN_LINE,
    BROKEN_VALUE,
    OnProgress,
    Quirk,
    TextFile,
    Writer,
    chunks,
    csv_line,
)

BATCHES = tuple(f"2026-01-0{day}" for day in range(1, 8))

_SCALE_1_BYTES = 400_000  # approximate size on disk
_FIRST_MOVING_CUSTOMER = 150  # customers with lower numbers have other quirks


class Summary(NamedTuple):
    """What `generate` wrote: the number of rows by file, broken ones included, the size on disk, and the quirks."""

    files: dict[str, int]
    bytes: int
    quirks: list[Quirk]


def write_full_load(writer: Writer, shop: Shop) -> None:
    """The full load: everything as of the evening of 2025-12-31, clean, and without updated_at."""

    def write(name: str, last: int, to_table: Callable[[Integers], Table], rows_per_number: int = 1) -> None:
        columns = to_table(np.arange(1, 2, dtype=np.int64))
        with writer.text_file(f"{BATCHES[0]}/{name}.csv", columns) as file:
            for ids in chunks(1, last, rows_per_number):
                file.block(to_table(ids))

    def stock_rows(codes: Integers) -> Table:
        store, product = (codes - 1) // shop.products, (codes - 1) % shop.products
        return {
            "store_id": pa.array(store + 1),
            "product_id": pa.array(product + 1),
            "quantity": pa.array(shop.stock[store, product]),
        }

    write("brands", len(BRANDS), _brand_rows)
    write("categories", len(CATEGORIES), _category_rows)
    write("customers", shop.customers, shop.customer_rows)
    write("products", shop.products, shop.product_rows)
    write("stores", shop.stores, shop.store_rows)
    write("staffs", shop.staffs, shop.staff_rows)
    write("orders", shop.orders, lambda ids: shop.order_rows(ids, CLOSED))
    write("order_items", shop.orders, lambda ids: shop.line_rows(*shop.line_keys(ids)), 3)
    write("stocks", shop.stores * shop.products, stock_rows)


def _brand_rows(ids: Integers) -> Table:
    return {"brand_id": pa.array(ids), "brand_name": pick(BRANDS, ids - 1)}


def _category_rows(ids: Integers) -> Table:
    return {"category_id": pa.array(ids), "category_name": pick(CATEGORIES, ids - 1)}


_CATEGORY_COLUMNS = [
    "category_id",
    "category_name",
    "updated_at",
]
_CUSTOMER_COLUMNS = [
    "customer_id",
    "first_name",
    "last_name",
    "phone",
    "email",
    "street",
    "city",
    "state",
    "zip_code",
    "updated_at",
]
_PRODUCT_COLUMNS = [
    "product_id",
    "product_name",
    "brand_id",
    "category_id",
    "model_year",
    "list_price",
    "updated_at",
]
_ORDER_COLUMNS = [
    "order_id",
    "customer_id",
    "order_status",
    "order_date",
    "required_date",
    "shipped_date",
    "store_id",
    "staff_id",
    "updated_at",
]
_LINE_COLUMNS = [
    "order_id",
    "item_id",
    "product_id",
    "quantity",
    "list_price",
    "discount",
    "updated_at",
]

# Quirks: kind, and details with the names of columns
_MOVED = "a customer who moved", "customer {customer_id}"
_NEW_PRICE = "a price change", "product {product_id} now costs {list_price}"
_LATE = ("a row that arrives late",)
_OLDER = ("an older version that arrives after the newer one",)


class Day:
    """What happens in the shop on one day of January 2026, as rows for the day's files."""

    def __init__(self, writer: Writer, shop: Shop, number: int) -> None:
        self.writer, self.shop = writer, shop
        self.day = CLOSED + number
        self.batch = BATCHES[number - 1]
        self.columns_of_orders = _ORDER_COLUMNS + (["channel"] if number >= 5 else [])

    def file(self, name: str, columns: Iterable[str]) -> AbstractContextManager[TextFile]:
        """The file of this day to write rows to."""
        return self.writer.text_file(f"{self.batch}/{name}", columns)

    def windows_file(self, name: str, columns: Iterable[str]) -> AbstractContextManager[TextFile]:
        """The same, with a byte order mark and Windows line ends."""
        return self.writer.text_file(f"{self.batch}/{name}", columns, byte_order_mark=True, line_end="\r\n")

    def note_missing_file(self, table: str) -> None:
        """Note that the day has no file of this table."""
        self.writer.quirks.append(Quirk(self.batch, None, "a missing file", f"{table}: no file arrived that day", None))

    def stamped(self, what: str, table: Table, ids: Integers, day: int | None = None) -> Iterator[Row]:
        """The rows with `updated_at`: a time on this day, or on the given one."""
        return rows_of(table | {"updated_at": timestamps(what, ids, day or self.day)})

    # customers

    def customers(self, ids: Iterable[int], *, moved: bool = True, day: int | None = None) -> Iterator[Row]:
        """Rows of these customers as written on `day`; with another address if they have `moved`."""
        numbers = np.fromiter(ids, dtype=np.int64)
        day = day or self.day
        return self.stamped("customer", self.shop.customer_rows(numbers, day if moved else 0), numbers, day)

    def new_customers(self) -> Iterator[Row]:
        """The customers who join today."""
        first = self.shop.customers + int(self.shop.joined_by_day[self.day - 1]) + 1
        for ids in chunks(first, self.shop.customers + int(self.shop.joined_by_day[self.day])):
            yield from self.customers(ids, moved=False)

    def moved_customers(self) -> Iterator[Row]:
        """The customers who moved today."""
        for ranks in chunks(1, self.shop.moved_customers):
            candidates = self.shop.customers - _FIRST_MOVING_CUSTOMER + 1
            moved = np.unique(draw(f"moves {self.day}", ranks, candidates))
            yield from self.customers(_FIRST_MOVING_CUSTOMER + moved)

    # orders

    def orders(self, ids: Iterable[int], *, day: int | None = None) -> Iterator[Row]:
        """Rows of these orders as of the evening of `day`."""
        numbers = np.fromiter(ids, dtype=np.int64)
        day = day or self.day
        channels = pick(["store", "store", "web"], draw("channel", numbers, 3))
        channel = where(self.shop.order_day(numbers) < CLOSED + 5, "", channels)
        return self.stamped("order", self.shop.order_rows(numbers, day) | {"channel": channel}, numbers, day)

    def new_orders(self) -> Iterator[Row]:
        """The orders that are placed today, without those that arrive late."""
        for ids in chunks(*self.shop.new_orders(self.day)):
            yield from self.orders(ids[~np.isin(ids, list(self.shop.late_orders))])

    def changed_orders(self) -> Iterator[Row]:
        """Earlier orders whose status has changed since the batch before."""
        first, last = self.shop.order_bound[self.day - 15] + 1, self.shop.order_bound[self.day - 1]
        for chunk in chunks(int(first), int(last)):
            ids, before = chunk, np.full(len(chunk), CLOSED if self.day == CLOSED + 2 else self.day - 1)
            for order, (placed, arrives) in self.shop.late_orders.items():
                if arrives == self.day:
                    before[ids == order] = placed
                elif arrives > self.day:
                    ids, before = ids[ids != order], before[ids != order]
            yield from self.orders(ids[self.shop.status(ids, before) != self.shop.status(ids, self.day)])

    def late_order(self) -> int:
        """The order that arrives today, but was placed earlier."""
        return next(order for order, (_, arrives) in self.shop.late_orders.items() if arrives == self.day)

    # order lines

    def lines(self, orders: Iterable[int], *, day: int | None = None) -> Iterator[Row]:
        """All lines of these orders."""
        keys = self.shop.line_keys(np.fromiter(orders, dtype=np.int64))
        return self.stamped("line", self.shop.line_rows(*keys), keys[0], day)

    def new_lines(self, without: int = 0) -> Iterator[Row]:
        """The lines of the orders that are placed today, `without` those of one order."""
        for ids in chunks(*self.shop.new_orders(self.day), 3):
            yield from self.lines(ids[ids != without])

    def extra_lines(self) -> Iterator[Row]:
        """Additional lines that a quirk breaks or changes, with an item number that their orders do not have."""
        first = self.shop.new_orders(self.day)[0]
        for order in range(first, first + self.shop.fourth_root):
            yield next(self.lines([order])) | {"item_id": 9}

    # products and stocks

    def products(self, ids: Iterable[int]) -> Iterator[Row]:
        """Rows of these products."""
        numbers = np.fromiter(ids, dtype=np.int64)
        return self.stamped("product", self.shop.product_rows(numbers), numbers)

    def change_price(self, product: int, percent: int) -> None:
        """Change a list price to `percent` of what it was, rounded down to whole dollars and 99 cents."""
        cents = self.shop.cents
        cents[product - 1] = cents[product - 1] * percent // 100 // 100 * 100 + 99

    def write_stocks(self, *, with_broken_row: bool = False) -> None:
        """Write the stocks that changed today to a Parquet file: less what was sold, and restocked if needed."""
        shop, sold = self.shop, np.zeros_like(self.shop.stock)
        for ids in chunks(*shop.new_orders(self.day), 3):
            orders, items = shop.line_keys(ids)
            product, quantity = shop.line_values(orders, items)
            _, _, store = shop.placed(orders)
            np.add.at(sold, (store - 1, product - 1), quantity)
        store, product = np.nonzero(sold)
        left = shop.stock - sold
        shop.stock = np.where(left < 0, left + (-left + 19) // 20 * 20, left)
        quantity = shop.stock[store, product]
        name = f"{self.batch}/stocks.parquet"
        if with_broken_row:
            store, product, quantity = np.append(store, 0), np.append(product, 0), np.append(quantity, -3)
            self.writer.quirks.append(Quirk(name, len(store), "a value below its minimum", "quantity -3", BROKEN_VALUE))
        table = pa.table({"store_id": store + 1, "product_id": product + 1, "quantity": quantity})
        self.writer.parquet_file(name, table)

    def quirky_ids(self, start: int, step: int = 200) -> list[int]:
        """The IDs of the rows that have a quirk: one at scale 1, more at larger scales."""
        return [start + step * nth for nth in range(self.shop.fourth_root)]


def _without_zone(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        yield row | {"updated_at": str(row["updated_at"]).replace("T", " ").removesuffix("Z")}


def _january_2(day: Day) -> None:
    """New and changed orders, new customers and customers who moved; from now on, rows have updated_at."""
    first = day.shop.new_orders(day.day)[0]
    with day.file("customers.csv", _CUSTOMER_COLUMNS) as file:
        file.rows(day.new_customers())
        file.rows(day.moved_customers(), *_MOVED)

    with day.file("orders.csv", _ORDER_COLUMNS) as file:
        file.rows(day.changed_orders(), "a changed order", "order {order_id} now has status {order_status}")
        date_ = "an invalid date", "order {order_id}: shipped_date 2026-02-30", BROKEN_VALUE
        file.rows(day.orders(day.quirky_ids(11)), *date_, shipped_date="2026-02-30")
        file.rows(day.new_orders())
        number = "text in a number", "order {order_id}: order_status done", BROKEN_VALUE
        file.rows(day.orders(day.quirky_ids(12)), *number, order_status="done")
        file.rows(day.orders([first]), "the same row twice", "order {order_id}, in one file")

    with day.file("order_items.csv", _LINE_COLUMNS) as file:
        number = "text in a number", "line 9 of order {order_id}: quantity two", BROKEN_VALUE
        file.rows(day.extra_lines(), *number, quantity="two")
        file.rows(day.new_lines())
        file.rows(day.lines([first]), "the same row twice", "line {item_id} of order {order_id}, in one file")

    day.write_stocks()


def _january_3(day: Day) -> None:
    """A renamed category; price changes, in a file with BOM and CRLF; two versions of a row in one batch."""
    with day.file("categories.csv", _CATEGORY_COLUMNS) as file:
        ids = np.array([3], dtype=np.int64)
        renamed = "a renamed category", "category 3, formerly Cruisers Bicycles"
        file.rows(day.stamped("category", _category_rows(ids), ids), *renamed, category_name="Cruisers")

    with day.windows_file("products.csv", _PRODUCT_COLUMNS) as file:
        file.note("a file with BOM and CRLF line ends", "written by a Windows tool; its times have no time zone")
        products = sorted({8, *day.quirky_ids(40, 60), *day.quirky_ids(95, 60), *day.quirky_ids(121, 60)})
        for nth, product in enumerate(products):
            day.change_price(product, (108, 95, 112, 90)[nth % 4])
        file.rows(_without_zone(day.products(products)), *_NEW_PRICE)
        number = "text in a number", "product 41: list_price 1.299,00", BROKEN_VALUE
        file.rows(_without_zone(day.products([41])), *number, list_price="1.299,00")

    with day.file("customers.csv", _CUSTOMER_COLUMNS) as file:
        file.rows(day.new_customers())
        two_lines = day.customers(CUSTOMERS_WITH_TWO_LINES[:1], moved=False)
        file.rows(two_lines, "a line end inside a field", "customer {customer_id}: street")
        older, newer = day.customers([21], day=day.day - 1), day.customers([21])
        both = "two versions of one row", "customer 21, who moved twice, at {updated_at}"
        file.rows(newer, *both, updated_at=f"{day.batch}T16:40:05Z")
        file.rows(older, *both, updated_at=f"{day.batch}T09:12:44Z")
        for row in day.customers(day.quirky_ids(31)):
            file.raw(csv_line(list(row.values())[:6]), "too few fields", f"customer {row['customer_id']}", BROKEN_LINE)
        for row in day.customers(day.quirky_ids(32)):
            more = csv_line([*row.values(), "x", "y"])
            file.raw(more, "too many fields", f"customer {row['customer_id']}", BROKEN_LINE)
        file.rows(day.customers(day.quirky_ids(34)), "an empty key", "customer_id", BROKEN_VALUE, customer_id="")
        file.rows(day.customers(day.quirky_ids(37)), "a NULL key", "customer_id", BROKEN_VALUE, customer_id="NULL")
        file.rows(day.moved_customers(), *_MOVED)

    with day.file("orders.csv", _ORDER_COLUMNS) as file:
        file.rows(day.changed_orders())
        file.rows(day.new_orders())

    with day.file("order_items.csv", _LINE_COLUMNS) as file:
        file.rows(day.new_lines(without=day.shop.new_orders(day.day)[1]))

    day.write_stocks()


def _january_4(day: Day) -> None:
    """Orders switch from CSV to JSON lines; order lines arrive as a gzip file."""
    with day.file("customers.csv", _CUSTOMER_COLUMNS) as file:
        file.rows(day.new_customers())
        file.rows(day.customers([24]), _MOVED[0], "customer 24, whose older version arrives on 2026-01-07")
        file.rows(day.moved_customers(), *_MOVED)

    with day.file("orders.jsonl", _ORDER_COLUMNS) as file:
        file.note("the source switches from CSV to JSON lines", "orders, from this day on")
        file.rows(day.changed_orders())
        for row in day.orders(day.quirky_ids(13)):
            file.raw(json.dumps(row)[:57], "a truncated line", f"order {row['order_id']}", BROKEN_LINE)
        file.rows(day.new_orders())
        file.raw('["order", 14]', "not an object", "a list", BROKEN_LINE)
        number = "text in a number", "order {order_id}: order_status completed", BROKEN_VALUE
        file.rows(day.orders(day.quirky_ids(15)), *number, order_status="completed")

    with day.file("order_items.csv.gz", _LINE_COLUMNS) as file:
        file.note("a gzip file", "order_items, on this day only; line numbers are those of the decompressed file")
        changed = list(day.lines([day.shop.orders]))[:1]
        file.rows(changed, "a changed order line", "line 1 of order {order_id} now has quantity 4", quantity=4)
        low = "a value below its minimum", "line 9 of order {order_id}: quantity 0", BROKEN_VALUE
        file.rows(day.extra_lines(), *low, quantity=0)
        file.rows(day.new_lines())
        for row in day.extra_lines():
            few = "too few fields", f"line 9 of order {row['order_id']}", BROKEN_LINE
            file.raw(csv_line(list(row.values())[:3]), *few)

    day.write_stocks()


def _january_5(day: Day) -> None:
    """A new column, orders.channel; an order that is two days late; lines of an unknown order; an empty file."""
    late = day.late_order()
    with day.file("customers.csv", _CUSTOMER_COLUMNS) as file:
        file.note("a file with a header and no rows", "customers")

    with day.file("orders.jsonl", day.columns_of_orders) as file:
        file.note("a new column", "orders.channel, from this day on")
        file.rows(day.orders([late], day=day.day - 2), *_LATE, "order {order_id}, placed two days ago")
        file.rows(day.changed_orders())
        file.rows(day.new_orders())
        channel = "a value that is not allowed", "order {order_id}: channel phone", BROKEN_VALUE
        file.rows(day.orders(day.quirky_ids(16)), *channel, channel="phone")

    with day.file("order_items.csv", _LINE_COLUMNS) as file:
        file.rows(day.lines([late], day=day.day - 2), *_LATE, "line {item_id} of order {order_id}")
        file.rows(day.new_lines())
        again = day.lines([day.shop.new_orders(day.day - 1)[0]], day=day.day - 1)
        file.rows(again, "the same row twice", "line {item_id} of order {order_id}, as in the batch before")
        low = "a value below its minimum", "line 9 of order {order_id}: quantity -1", BROKEN_VALUE
        file.rows(day.extra_lines(), *low, quantity=-1)
        high = "a value above its maximum", "line 9 of order {order_id}: discount 1.5", BROKEN_VALUE
        file.rows(day.extra_lines(), *high, discount="1.5")
        for nth, row in enumerate(day.extra_lines()):
            unknown = "a line whose order is unknown", "order {order_id}"
            file.rows([row], *unknown, order_id=UNKNOWN_ID - nth, item_id=1)
            unknown = "a line whose product is unknown", "line 8 of order {order_id}: product {product_id}"
            file.rows([row], *unknown, item_id=8, product_id=UNKNOWN_ID)

    day.write_stocks()


def _january_6(day: Day) -> None:
    """New products, more price changes; an older version of an order after the newer one; no customers file."""
    shop = day.shop
    day.note_missing_file("customers")
    with day.file("products.csv", _PRODUCT_COLUMNS) as file:
        day.change_price(8, 94)
        day.change_price(77, 106)
        file.rows(day.products([8, 77]), *_NEW_PRICE)
        file.rows(day.products([shop.products + 1, shop.products + 2]), "a new product", "product {product_id}")
        low = "a value below its minimum", "product 42: list_price -10.00", BROKEN_VALUE
        file.rows(day.products([42]), *low, list_price="-10.00")
        missing = "a required value is missing", "product 43: product_name", BROKEN_VALUE
        file.rows(day.products([43]), *missing, product_name="")

    with day.file("orders.jsonl", day.columns_of_orders) as file:
        older = "order {order_id} with status 1; its version of 2026-01-02 is newer and must be kept"
        file.rows(day.orders([shop.orders], day=CLOSED), *_OLDER, older, updated_at="2026-01-01T18:00:00Z")
        file.rows(day.changed_orders())
        for row in day.new_orders():
            if row["order_id"] == shop.anonymous_order:
                file.rows([row], "an order without a customer", "order {order_id}: a sale without a customer account")
            elif row["order_id"] == shop.order_of_unknown_customer:
                file.rows([row], "an order whose customer is unknown", "order {order_id}: customer {customer_id}")
            else:
                file.row(row)
        status = "a value that is not allowed", "order {order_id}: order_status 7", BROKEN_VALUE
        file.rows(day.orders(day.quirky_ids(18)), *status, order_status=7)

    with day.file("order_items.csv", _LINE_COLUMNS) as file:
        early = shop.new_orders(day.day)[1]
        file.rows(day.new_lines(without=early))
        before = (
            "a line that arrives before its order",
            "line {item_id} of order {order_id}, which arrives the next day",
        )
        file.rows(day.lines([early]), *before)

    day.write_stocks(with_broken_row=True)


def _january_7(day: Day) -> None:
    """An older version of a customer after the newer one; bytes that are not UTF-8; an unclosed quote."""
    with day.file("customers.csv", _CUSTOMER_COLUMNS) as file:
        file.rows(day.new_customers())
        older = "customer 24 as of 2026-01-03; its version of 2026-01-04 is newer and must be kept"
        file.rows(day.customers([24], day=day.day - 4), *_OLDER, older)
        for row in day.customers(day.quirky_ids(35)):
            latin = csv_line((row | {"last_name": "Müller"}).values()).encode("latin-1", "replace")
            detail = f"customer {row['customer_id']}: Müller in Latin-1"
            file.raw(latin, "a byte that is not UTF-8", detail, BROKEN_LINE)
        file.rows(day.moved_customers(), *_MOVED)
        (row,) = day.customers([36])  # the last line, because everything after an unclosed quote belongs to its field
        open_quote = csv_line((row | {"street": "1 Oak Lane"}).values()).replace("1 Oak Lane", '"1 Oak Lane')
        file.raw(open_quote, "an unclosed quote", "customer 36: street", BROKEN_LINE)

    with day.file("orders.jsonl", day.columns_of_orders) as file:
        late = "order {order_id}, placed the day before; its lines arrived that day"
        file.rows(day.orders([day.late_order()], day=day.day - 1), *_LATE, late)
        file.rows(day.changed_orders())
        file.rows(day.new_orders())

    with day.file("order_items.csv", _LINE_COLUMNS) as file:
        file.rows(day.new_lines())
        missing = "a required value is missing", "line 9 of order {order_id}: list_price", BROKEN_VALUE
        file.rows(day.extra_lines(), *missing, list_price="")

    day.write_stocks()


DAYS = (_january_2, _january_3, _january_4, _january_5, _january_6, _january_7)


def generate(out: Path, scale: float = 1, *, progress: OnProgress | None = None) -> Summary:
    """Write the raw files `<out>/<batch>/<table>.<csv|csv.gz|jsonl|parquet>`, and return what was written.

    `out` must be empty or not exist yet. Raises LakehouseError if it is not empty, if `scale` is not a positive number,
    or if the disk is full. After an error, the files that this call wrote are removed.
    """
    out = Path(out)
    if not (isfinite(scale) and scale > 0):
        raise LakehouseError(
            f"The scale {scale} is invalid: it must be a number above 0. Scale 1 is about 1,600 orders; use 0.1, 1 or"
            " 100, for example."
        )
    _refuse_unless_empty(out)
    needed_bytes, free_bytes = int(_SCALE_1_BYTES * scale), disk_usage(_existing_folder(out)).free
    if needed_bytes > free_bytes:
        raise LakehouseError(
            f"Scale {scale:g} needs about {needed_bytes / 1e6:,.1f} MB in {out}, but only"
            f" {free_bytes / 1e6:,.1f} MB are free. Free some space, choose a smaller --scale, or another --out."
        )
    shop = Shop(scale)
    expected_rows = shop.customers + 4 * shop.orders + int(shop.stock.size)
    writer = Writer(out, expected_rows, progress or (lambda _batch, _done, _total: None))
    try:
        write_full_load(writer, shop)
        for number, write_day in enumerate(DAYS, start=2):
            write_day(Day(writer, shop, number))
    except BaseException as error:  # also Ctrl+C: incomplete output must not look complete
        writer.remove_all()
        if isinstance(error, OSError):
            is_full = error.errno == ENOSPC
            advice = (
                "Free some space, choose a smaller --scale, or another --out." if is_full else "Choose another --out."
            )
            raise LakehouseError(f"Could not write to {out}: {error.strerror or error}. {advice}") from error
        raise
    return Summary(writer.files, writer.written_bytes, writer.quirks)


def _refuse_unless_empty(out: Path) -> None:
    try:
        names = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
    except OSError as error:
        raise LakehouseError(f"Could not use the folder {out}: {error.strerror}. Choose another --out.") from None
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise LakehouseError(
            f"The folder {out} is not empty: it contains {shown}. Nothing was changed. Choose an empty or new folder as"
            " --out, or move these files away."
        )


def _existing_folder(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
