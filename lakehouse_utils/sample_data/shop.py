"""The shop: how large everything is at a scale, and every row of every table as a function of its number.

Customers, orders and order lines grow with the scale; stores, staffs and products with its fourth root; stocks (stores
times products) with its square root.
"""

import unicodedata
from datetime import date, timedelta
from math import isqrt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakehouse_utils.sample_data.columns import FOUR_DIGITS, TWO_DIGITS, Table, as_text, join, money, pick, where
from lakehouse_utils.sample_data.draws import Integers, draw, draw_low, draw_weighted
from lakehouse_utils.sample_data.vocabulary import (
    BRANDS,
    CATEGORY_PRICES,
    CATEGORY_WEIGHTS,
    CHILD_SIZES,
    CITIES,
    CUSTOMER_CALLED_NULL,
    CUSTOMER_WITH_APOSTROPHE,
    CUSTOMERS_WITH_TWO_LINES,
    DISCOUNTS,
    FIRST_NAMES,
    LAST_NAMES,
    MODELS,
    MONTH_WEIGHTS,
    SALE_DISCOUNT_WEIGHTS,
    SIZES,
    STATE_WEIGHTS,
    STATES,
    STREET_ENDS,
    STREET_KINDS,
    STREETS,
    USUAL_DISCOUNT_WEIGHTS,
    WEEKDAY_WEIGHTS,
)

START = date(2024, 1, 1)  # day 0, on which the shop opened
CLOSED = 730  # day number of 2025-12-31: the full load shows that evening, and on New Year's Day the shop is closed
DAYS_WITH_NEW_CUSTOMERS = (2, 3, 4, 7)  # of January 2026
UNKNOWN_ID = 999_999_999  # a number that no order, product or customer has


def date_of(day: int) -> date:
    """The date of a day number."""
    return START + timedelta(days=int(day))


MONTH_OF_DAY = np.array([date_of(day).month for day in range(CLOSED + 60)], dtype=np.int64)
DATE_TEXTS = pa.array([date_of(day).isoformat() for day in range(CLOSED + 60)])


def phone_numbers(what: str, ids: Integers) -> pa.Array:
    """Telephone numbers that are reserved for fiction: (555) 010-0000 to (555) 019-9999."""
    return join("(555) 01", as_text(draw(what + " area", ids, 10)), "-", pick(FOUR_DIGITS, draw(what, ids, 10_000)))


def email_spelling(words: list[str]) -> list[str]:
    """The words in lower case and without accents, as in an email address."""
    plain = [
        unicodedata.normalize("NFKD", word.lower()).replace("ø", "o").replace("\N{LATIN SMALL LETTER DOTLESS I}", "i")
        for word in words
    ]
    return ["".join(letter for letter in word if letter.isascii() and letter.isalpha()) for word in plain]


def addresses(what: str, ids: Integers, state: Integers, nth_city: Integers | None = None) -> Table:
    """Street, city, state and zip code for each of `ids`, in its `state` (0 to 2), and in its `nth_city` if given."""
    street = join(
        as_text(1 + draw_low(what + " number", ids, 990)),
        " ",
        pick(STREETS, draw(what + " street", ids, len(STREETS))),
        " ",
        pick(STREET_KINDS, draw(what + " kind", ids, len(STREET_KINDS))),
        pick(STREET_ENDS, draw(what + " end", ids, len(STREET_ENDS))),
    )
    sizes = np.array([len(CITIES[name]) for name in STATES])
    if nth_city is None:
        nth_city = draw_low(what + " city", ids, sizes[state])
    city = (np.cumsum(sizes) - sizes)[state] + nth_city % sizes[state]
    names = [name for cities in CITIES.values() for name in cities]
    codes = np.array([code for cities in CITIES.values() for code in cities.values()])
    zip_code = pc.utf8_lpad(as_text(codes[city] + draw(what + " zip", ids, 9)), 5, "0")
    return {"street": street, "city": pick(names, city), "state": pick(STATES, state), "zip_code": zip_code}


def timestamps(what: str, ids: Integers, day: int) -> pa.Array:
    """For each of `ids`, a time in UTC on that day while the shop is open."""
    second = 8 * 3600 + draw(f"{what} time {day}", ids, 12 * 3600)
    clock = (pick(TWO_DIGITS, part) for part in (second // 3600, second // 60 % 60, second % 60))
    return pc.binary_join_element_wise(
        join(date_of(day).isoformat(), "T", next(clock)), next(clock), join(next(clock), "Z"), ":"
    )


def _order_weight(day: int) -> int:
    """How likely an order is on that day: it depends on month and weekday, and grows from day to day."""
    on = date_of(day)
    return MONTH_WEIGHTS[on.month - 1] * WEEKDAY_WEIGHTS[on.weekday()] * (1000 + day)


def is_closed(days: Integers) -> NDArray[np.bool_]:
    """Whether the shop is closed: on New Year's Day and on Christmas Day."""
    return np.array([(date_of(n).month, date_of(n).day) in ((1, 1), (12, 25)) for n in days])


def people(what: str, ids: Integers) -> tuple[pa.Array, pa.Array, pa.Array]:
    """First names, last names, and the start of the email addresses."""
    first = draw_low(what + " first name", ids, len(FIRST_NAMES))
    last = draw(what + " last name", ids, len(LAST_NAMES))
    mail = join(pick(email_spelling(FIRST_NAMES), first), ".", pick(email_spelling(LAST_NAMES), last), ".")
    return pick(FIRST_NAMES, first), pick(LAST_NAMES, last), mail


class Shop:
    """How large everything is at a scale, and every row of every table as a function of its number."""

    def __init__(self, scale: float) -> None:
        self.fourth_root = max(1, isqrt(isqrt(int(scale))))
        self.stores, self.products = 3 * self.fourth_root, 300 * self.fourth_root
        self.staffs = 1 + 3 * self.stores
        self.customers, self.orders = max(200, round(1500 * scale)), max(200, round(1600 * scale))
        self.new_customers, self.moved_customers = max(3, round(2 * scale)), max(3, round(1.5 * scale))

        # Orders are numbered in the order in which they are placed: order_bound[n] of them by the evening of day n.
        days = np.arange(CLOSED + 8, dtype=np.int64)
        weights = np.array([_order_weight(int(day)) for day in days], dtype=np.int64) * (85 + draw("weather", days, 31))
        weights[is_closed(days)] = 0
        so_far = np.cumsum(weights[: CLOSED + 1])
        old = (so_far // 1000) * self.orders // (int(so_far[-1]) // 1000)
        old[-1] = self.orders
        daily = np.maximum(weights[CLOSED + 1 :] * self.orders // int(so_far[-1]), 5)
        daily[0] = 0  # New Year's Day
        self.order_bound = np.concatenate([old, self.orders + np.cumsum(daily)])
        # How many of the new customers have joined by the evening of each day.
        joined = np.zeros(len(days), dtype=np.int64)
        joined[[CLOSED + day for day in DAYS_WITH_NEW_CUSTOMERS]] = self.new_customers
        self.joined_by_day = np.cumsum(joined)

        # Orders that arrive late in the files, with the day on which each was placed and the day on which it arrives.
        self.late_orders = {
            int(self.order_bound[CLOSED + placed]): (CLOSED + placed, CLOSED + arrives)
            for placed, arrives in ((3, 5), (6, 7))
        }
        first_on_the_6th = int(self.order_bound[CLOSED + 5]) + 1
        self.anonymous_order, self.order_of_unknown_customer = first_on_the_6th, first_on_the_6th + 1

        self.cents = self._prices(np.arange(1, self.products + 3, dtype=np.int64))
        self.stock = self._stock()

    def new_orders(self, day: int) -> tuple[int, int]:
        """The first and the last number of the orders that are placed on that day."""
        return int(self.order_bound[day - 1]) + 1, int(self.order_bound[day])

    def order_day(self, ids: Integers) -> Integers:
        """The day number on which each order is placed."""
        return np.searchsorted(self.order_bound, ids - 1, side="right")

    # products

    def _model(self, ids: Integers) -> tuple[Integers, Integers]:
        """The model year and the category (0 to 6) of each product."""
        year = np.searchsorted(self.products * np.array([25, 60, 100]) // 100, ids - 1, side="right") + 2023
        category = np.zeros(len(ids), dtype=np.int64)
        for of_year, weights in CATEGORY_WEIGHTS.items():
            is_of_year = year == of_year
            category[is_of_year] = draw_weighted("category", ids[is_of_year], weights)
        return year, category

    def _prices(self, ids: Integers) -> Integers:
        """List prices in the full load, in cents."""
        low, span = CATEGORY_PRICES[self._model(ids)[1]].T
        dollars: Integers = low + draw_low("price", ids, span)
        return dollars // 10 * 1000 + 999

    def product_rows(self, ids: Integers) -> Table:
        """The rows of these products, at their current prices."""
        year, category = self._model(ids)
        size = pick(SIZES, draw_low("size", ids, len(SIZES)))
        child_size = pick(CHILD_SIZES, draw("size", ids, len(CHILD_SIZES)))
        brand = draw_weighted("brand", ids, (14, 8, 10, 18, 6, 12, 9, 8, 15))
        name = join(pick(BRANDS, brand), " ", pick(MODELS, draw("model", ids, len(MODELS))))
        return {
            "product_id": pa.array(ids),
            "product_name": join(name, where(category == 0, child_size, size), " - ", as_text(year)),
            "brand_id": pa.array(brand + 1),
            "category_id": pa.array(category + 1),
            "model_year": pa.array(year),
            "list_price": money(self.cents[ids - 1]),
        }

    # stores, staffs, stocks

    def store_rows(self, ids: Integers) -> Table:
        """The rows of these stores."""
        address = addresses("store", ids, (ids - 1) % 3, (ids - 1) // 3)
        names = join(address["city"], " ", pick(["Bikes", "Wheel Works", "Cycles"], (ids - 1) % 3))
        mail = pa.array([f"{name}@example.com" for name in email_spelling(names.to_pylist())])
        phone = phone_numbers("store phone", ids)
        return {"store_id": pa.array(ids), "store_name": names, "phone": phone, "email": mail} | address

    def staff_rows(self, ids: Integers) -> Table:
        """The rows of these employees. Number 1 leads the first of the three in each store, who leads the other two."""
        first, last, mail = people("staff", ids)
        leads = (ids - 2) % 3 == 0
        manager = where(ids == 1, "NULL", as_text(np.where(leads, 1, ids - (ids - 2) % 3)))
        return {
            "staff_id": pa.array(ids),
            "first_name": first,
            "last_name": last,
            "email": join(mail, as_text(ids), "@example.com"),
            "phone": phone_numbers("staff phone", ids),
            "active": pa.array(np.where(ids % 10 == 7, 0, 1)),
            "store_id": pa.array(np.where(ids == 1, 1, (ids - 2) // 3 + 1)),
            "manager_id": manager,
        }

    def _stock(self) -> Integers:
        """Quantity by store and product in the full load; none of the two products that are added later."""
        codes = np.arange(self.stores * (self.products + 2), dtype=np.int64)
        stock = np.where(draw("sold out", codes, 15) == 0, 0, draw("stock", codes, 31))
        stock = stock.reshape(self.stores, self.products + 2)
        stock[:, self.products :] = 0
        return stock

    # customers

    def home_store(self, ids: Integers) -> Integers:
        """The store near each customer's home."""
        return 1 + draw_weighted("home state", ids, STATE_WEIGHTS) + 3 * draw("home store", ids, self.fourth_root)

    def customer_rows(self, ids: Integers, moved: int = 0) -> Table:
        """The rows of these customers. `moved` is the day of their last move, which gives them another address."""
        first, last, mail = people("customer", ids)
        last = where(ids == CUSTOMER_CALLED_NULL, "Null", where(ids == CUSTOMER_WITH_APOSTROPHE, "O'Brien", last))
        host = pick(["@example.com", "@example.com", "@example.org"], draw("host", ids, 3))
        state = (self.home_store(ids) - 1) % 3
        if moved:
            state = np.where(draw(f"leaves {moved}", ids, 4) == 0, draw(f"to {moved}", ids, 3), state)
        address = addresses(f"customer {moved}" if moved else "customer", ids, state)
        two_lines = join("12 Mill Lane\nBuilding ", as_text(1 + ids % 9))
        street = where(np.isin(ids, CUSTOMERS_WITH_TWO_LINES), two_lines, address["street"])
        address["street"] = where(draw("no street", ids, 90) == 0, "", street)
        return {
            "customer_id": pa.array(ids),
            "first_name": first,
            "last_name": last,
            "phone": where(draw("no phone", ids, 100) < 38, "NULL", phone_numbers("phone", ids)),
            "email": where(draw("no email", ids, 100) < 3, "", join(mail, as_text(ids), host)),
        } | address

    # orders

    def _buyers(self, ids: Integers, day: Integers) -> Integers:
        """The customer of each order: most buy once or never, a few often. New ones place a third of the new orders."""
        habit = draw("habit", ids, 10)
        rank = np.where(habit < 4, draw("buyer", ids, self.customers), draw_low("buyer", ids, self.customers))
        rank = np.where(habit == 9, draw_low("regular", ids, np.maximum(rank, 1)), rank)
        buyer = (
            rank * 2_147_483_647 + 12_345
        ) % self.customers + 1  # so that good customers do not all have low numbers
        new = self.joined_by_day[day]
        return np.where(
            (new > 0) & (draw("new buyer", ids, 3) == 0),
            self.customers + 1 + draw("which", ids, np.maximum(new, 1)),
            buyer,
        )

    def placed(self, ids: Integers) -> tuple[Integers, Integers, Integers]:
        """The day of each order, its customer, and its store, which is mostly the one near the customer's home."""
        day = self.order_day(ids)
        buyer = self._buyers(ids, day)
        elsewhere = 1 + draw("other store", ids, self.stores)
        return day, buyer, np.where(draw("elsewhere", ids, 25) == 0, elsewhere, self.home_store(buyer))

    def _shipping(self, ids: Integers, day: Integers, store: Integers) -> Integers:
        """The day on which each order leaves the store: later in the third store, in December, and by chance."""
        delay = 1 + draw_weighted("delay", ids, (34, 38, 18, 10))
        delay += np.where(store % 3 == 0, draw("slow store", ids, 3), 0)
        delay += np.where(MONTH_OF_DAY[day] == 12, draw("december", ids, 3), 0)
        return day + delay + np.where(draw("long", ids, 40) == 0, 3, 0)

    def status(self, ids: Integers, as_of: int | Integers) -> Integers:
        """The status of each order on the evening of the day `as_of`."""
        day, _, store = self.placed(ids)
        return self._status(ids, day, self._shipping(ids, day, store), as_of)

    def _status(self, ids: Integers, day: Integers, ships: Integers, as_of: int | Integers) -> Integers:
        rejected = draw("rejected", ids, 100) < 3
        return np.where(day >= as_of, 1, np.where(rejected, 3, np.where(ships <= as_of, 4, 2)))

    def order_rows(self, ids: Integers, as_of: int | Integers) -> Table:
        """The rows of these orders as they are on the evening of the day `as_of`."""
        day, buyer, store = self.placed(ids)
        ships = self._shipping(ids, day, store)
        status = self._status(ids, day, ships, as_of)
        buyer = np.where(ids == self.order_of_unknown_customer, UNKNOWN_ID, buyer)
        seller = 2 + 3 * (store - 1) + draw_weighted("seller", ids, (20, 45, 35))
        return {
            "order_id": pa.array(ids),
            "customer_id": pa.array(buyer, mask=ids == self.anonymous_order),
            "order_status": pa.array(status),
            "order_date": pick(DATE_TEXTS, day),
            "required_date": pick(DATE_TEXTS, day + 3 + draw("required", ids, 4)),
            "shipped_date": where(status == 4, pick(DATE_TEXTS, ships), pa.scalar("NULL")),
            "store_id": pa.array(store),
            "staff_id": pa.array(seller),
        }

    # order lines

    def line_keys(self, order_ids: Integers) -> tuple[Integers, Integers]:
        """The order number and the item number of every line of these orders."""
        counts = 1 + draw_weighted("lines", order_ids, (20, 20, 22, 20, 18))
        orders = np.repeat(order_ids, counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        return orders, np.arange(len(orders)) - first + 1

    def line_values(self, orders: Integers, items: Integers) -> tuple[Integers, Integers]:
        """The product and the quantity of each order line."""
        line = orders * 16 + items
        # Only products that exist by then, mostly new ones. The products of an order differ in the remainder by 5.
        groups = np.where(self.order_day(orders) < 366, self.products * 60 // 100, self.products) // 5
        newest = groups - 1 - draw_low("new product", line, groups)
        group = np.where(draw("any product", line, 2) == 0, newest, draw("product", line, groups))
        product = 5 * group + (draw("remainder", orders, 5) + items) % 5 + 1
        return product, 1 + draw_weighted("quantity", line, (68, 28, 4))

    def line_rows(self, orders: Integers, items: Integers) -> Table:
        """The rows of these order lines."""
        line = orders * 16 + items
        product, quantity = self.line_values(orders, items)
        sale = np.isin(MONTH_OF_DAY[self.order_day(orders)], (11, 1))
        usual = draw_weighted("discount", line, USUAL_DISCOUNT_WEIGHTS)
        reduced = draw_weighted("discount", line, SALE_DISCOUNT_WEIGHTS)
        return {
            "order_id": pa.array(orders),
            "item_id": pa.array(items),
            "product_id": pa.array(product),
            "quantity": pa.array(quantity),
            "list_price": pick(money(self.cents), product - 1),
            "discount": pick(DISCOUNTS, np.where(sale, reduced, usual)),
        }
