"""The raw files of a bicycle shop: a full load and six daily batches, deterministic, at any scale.

    python -m lakehouse_utils.sample_data --scale 1 --out data/landing

Every value is a hash of what it is for and of the row's number (`_draw`), so a row can be made by itself,
in any order and in any chunk, and comes out the same on every platform, Python and numpy. Text files are the
same byte by byte; Parquet and gzip in what they hold, for their bytes depend on the library that writes them.

Scale 1 is about 1,500 customers and 1,600 orders. Customers, orders and order lines grow with the scale,
stores, staffs and products with its fourth root, stocks (stores x products) with its square root. The daily
batches' quirks are written down in one place, `_january_2` to `_january_7`.
"""

import gzip
import hashlib
import io
import json
import sys
import tempfile
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from errno import ENOSPC
from math import isfinite, isqrt
from pathlib import Path
from shutil import disk_usage
from typing import NamedTuple

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from lakehouse_utils.errors import LakehouseError

SOURCES = Path(__file__).resolve().parents[2] / "data" / "sources.toml"
START = date(2024, 1, 1)  # day 0, when the shop opened
CLOSED = 730  # day number of 2025-12-31, whose evening the full load shows; on New Year's Day the shop is closed
BATCHES = tuple(f"2026-01-0{day}" for day in range(1, 8))
CHUNK = 65_536  # rows that are in memory at a time, about
BYTES_PER_SCALE = 400_000  # on disk, about

LINE, VALUE = (
    "line",
    "value",
)  # how a row is broken: it can't be split into fields, or a field breaks its type or rule


class Quirk(NamedTuple):
    """One oddity of the daily batches, and where it is."""

    file: str  # "2026-01-02/orders.csv", or the batch where a file is missing
    line: int | None  # 1 is the file's first line (a Parquet file's first row); None: the file as a whole
    kind: str
    detail: str
    broken: str | None  # LINE or VALUE where the row must go to quarantine


class Summary(NamedTuple):
    """What `generate` wrote."""

    files: dict[str, int]  # path below `out` -> rows, the broken ones among them
    bytes: int
    quirks: list[Quirk]


Report = Callable[[str, int, int], None]  # (batch, rows written so far, rows in all, about)
Row = dict[str, object]
Table = dict[str, pa.Array]


def generate(out: Path, scale: float = 1, *, progress: Report | None = None) -> Summary:
    """Write the raw files `<out>/<batch>/<table>.<csv|csv.gz|jsonl|parquet>` and return what was written.

    `out` must be empty or not exist yet. Raises LakehouseError when it isn't, when `scale` is not a positive
    number, and when the disk is full; what this call wrote is then removed again.
    """
    out = Path(out)
    if not (isfinite(scale) and scale > 0):
        raise LakehouseError(
            f"Scale {scale} is not a number above 0. Scale 1 is about 1,600 orders; give 0.1, 1, 100 ..."
        )
    _refuse_unless_empty(out)
    needed, free = int(BYTES_PER_SCALE * scale), disk_usage(_existing(out)).free
    if needed > free:
        raise LakehouseError(
            f"Scale {scale:g} needs about {needed / 1e6:,.1f} MB in {out}, and {free / 1e6:,.1f} MB are free. "
            "Free some space, choose a smaller --scale, or another --out."
        )
    run = _Run(out, _Shop(scale), progress or (lambda batch, done, total: None))
    try:
        _full_load(run)
        for number, write_day in enumerate(DAYS, start=2):
            write_day(_Day(run, number))
    except BaseException as error:  # Ctrl-C, too: half a landing folder would pass for a whole one
        run.remove()
        if isinstance(error, OSError):
            full = "Free some space, choose a smaller --scale, or another --out."
            advice = full if error.errno == ENOSPC else "Choose another --out."
            raise LakehouseError(f"{out} can't be written: {error.strerror or error}. {advice}") from error
        raise
    return Summary(run.files, run.bytes, run.quirks)


def _refuse_unless_empty(out: Path) -> None:
    try:
        others = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
    except OSError as error:
        raise LakehouseError(f"{out} can't be used: {error.strerror}. Choose another --out.") from None
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise LakehouseError(
            f"{out} is not empty: it holds {named}. Nothing there was touched. "
            "Choose a folder that is empty or doesn't exist yet as --out, or move these away."
        )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


# --- Chance that is the same everywhere --------------------------------------------------------------------


def _hash(what: str, ids: np.ndarray) -> np.ndarray:
    """64 well mixed bits for each of `ids`, other ones for every `what`: splitmix64."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "little"))
    bits = np.asarray(ids).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + seed
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _draw(what: str, ids: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """For each of `ids` a number from 0 to `count` - 1, all equally likely."""
    return (((_hash(what, ids) >> np.uint64(32)) * _u64(count)) >> np.uint64(32)).astype(np.int64)


def _draw_low(what: str, ids: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """As `_draw`, but the low numbers are far more likely: it is a product of two chances."""
    bits = _hash(what, ids)
    product = ((bits >> np.uint64(32)) * (bits & np.uint64(0xFFFFFFFF))) >> np.uint64(32)
    return ((product * _u64(count)) >> np.uint64(32)).astype(np.int64)


def _u64(count: int | np.ndarray) -> np.ndarray:
    return np.asarray(count).astype(np.uint64)


def _weighted(what: str, ids: np.ndarray, weights: Iterable[int]) -> np.ndarray:
    """For each of `ids` a number from 0 to len(weights) - 1, as likely as its weight says."""
    bounds = np.cumsum(np.array(list(weights), dtype=np.int64))
    return np.searchsorted(bounds, _draw(what, ids, int(bounds[-1])), side="right")


def _words(text: str) -> list[str]:
    return text.split()


# --- Words -------------------------------------------------------------------------------------------------

FIRST_NAMES = _words(
    """
    Ada Aiko Alan Alma Amara Amir Ana Anton Astrid Aylin Beatriz Ben Bruno Camila Carla Carmen Cedric Chen
    Chloé Clara Dario Deborah Diego Dolores Edith Elena Elias Emeka Emma Eva Fatima Felix Fiona Frida Gabriel
    Gina Grace Hannah Hassan Hugo Ida Ines Irene Isaac Ivan Jada Jakob Jamal Jana João Joel Jorge José Judith
    Juan Kai Karin Kenji Lars Laura Lea Leon Lina Luca Lucía Luis Maja Malik Marcus Maria Marta Max Mei Mia
    Miguel Mila Mona Nadia Nina Noah Nora Olga Omar Oscar Paula Pedro Priya Rafael Rania Renée Rosa Ruth
    Samir Sara Selma Silas Sofia Søren Tara Theo Thomas Uma Valeria Vera Viktor Walter Yara Yusuf Zoë
    """
)

LAST_NAMES = _words(
    """
    Abbott Abreu Adeyemi Ahmed Almeida Andersson Araújo Baker Barros Becker Bell Bennett Berg Blanc Boateng
    Brandt Brown Bustamante Caldwell Campos Castillo Chang Costa Cruz D'Angelo Dalton Das Díaz Dubois Eriksen
    Esposito Farouk Ferreira Fischer Flores Fontaine Foster García Gomes Graves Gupta Haddad Hansen Hayes
    Herrera Hoffman Holm Hughes Ibarra Ito Jensen Johnson Kapoor Keller Khan Kim Kowalski Lang Larsen Lee
    Lopes Lund MacLeod Marsh Martínez Mbeki Meyer Mills Moreau Morgan Moura Müller Nakamura Navarro Nguyen
    Nielsen Novak Nuñez O'Brien O'Neill Okafor Olsen Ortiz Parker Patel Pérez Peters Petrov Pinto Ramos Reed
    Ribeiro Rossi Roth Ruiz Sanders Santos Sato Schmidt Sharma Silva Singh Souza Steiner Suzuki Tanaka Taylor
    Torres Turner Vance Vargas Vasquez Vogel Walker Weber White Wong Yamada Yılmaz Young Zhang Zimmermann
    """
)

STREETS = _words(
    """
    Acorn Alder Almond Bay Beacon Birch Bridge Brook Canal Cedar Chapel Cherry Church Clay Clover Copper
    Cypress Depot Eagle East Elm Fern Ferry Field Forest Garden Glen Grove Harbor Hazel Heron Hickory High
    Hill Juniper King Lake Laurel Liberty Lincoln Linden Main Maple Market Meadow Mill Mission Moss North Oak
    Olive Orchard Park Peach Pine Poplar Prairie Quarry Railroad Ridge River Rose Sage School Sierra South
    Spring Spruce Station Stone Summit Sunset Sycamore Union Valley View Walnut Water West Willow Wren
    """
)
STREET_KINDS = _words("Street Street Street Avenue Avenue Road Road Lane Drive Court Way Boulevard")
STREET_ENDS = [""] * 88 + [
    ", Apt 1",
    ", Apt 2",
    ", Apt 3",
    ", Apt 12",
    ", Suite 300",
    ' "Rear"',
    " #2",
    " #5",
]

CITIES = {  # state -> its cities and where their postal codes begin
    state: {city: int(code) for city, _, code in (text.strip().rpartition(" ") for text in cities.split(","))}
    for state, cities in {
        "CA": """Santa Brisa 93110, San José del Mar 92680, Alder Bay 94720, Port Marlow 95430, Mirador 92270,
            Orchard Flats 95120, Los Pinos 91880, Redwood Point 95560, São Lucas 93930, Vista Dorada 92090""",
        "NY": """Harlow Falls 14300, Kingsbridge Landing 12400, Saint-Émile 12950, East Pelham 11730,
            Maplecrest 10590, New Utrecht Mills 11220, Fisher's Rest 06390, Oneida Springs 13420,
            Stony Harbor 11790, Whitcombe 14850, Port Lorraine 11050, Amity Corners 14030""",
        "TX": """Rio Seco 78840, Peñasco 79840, Bluebonnet 75450, Cedar Wells 76430, Llano Alto 78640,
            Port Esperanza 77970, Sweetgrass 79550, Mesquite Bend 75150""",
    }.items()
}
STATES = list(CITIES)
STATE_WEIGHTS = (31, 50, 19)  # the three first stores are of different size, and so is their trade

BRANDS = ["Coyote", "Halden", "Ironwood", "Kestrel", "Müritz", "Northwind", "Pampa", "Sørli", "Volta"]
CATEGORIES = ["Children Bicycles", "Comfort Bicycles", "Cruisers Bicycles", "Cyclocross Bicycles"]
CATEGORIES += ["Electric Bikes", "Mountain Bikes", "Road Bikes"]
CATEGORY_PRICES = np.array(  # dollars: from, range
    [(150, 300), (400, 500), (320, 600), (1300, 2200), (1600, 2900), (550, 3400), (750, 5200)], np.int64
)
CATEGORY_WEIGHTS = {  # electric bikes come up, model year by model year
    2023: (20, 12, 26, 4, 4, 20, 14),
    2024: (19, 11, 24, 4, 10, 19, 13),
    2025: (18, 10, 21, 4, 17, 18, 12),
    2026: (18, 10, 18, 4, 24, 16, 10),
}
MODELS = _words(
    """
    Arroyo Badger Bolt Breeze Canyon Cinder Comet Dash Drift Echo Ember Falcon Fjord Glide Harrier Juniper
    Lark Lupine Mesa Mistral Nomad Otter Pebble Pioneer Quill Ranger Ripple Rook Sable Scout Sierra Sparrow
    Strand Swift Tempo Terra Trace Vega Wander Zephyr
    """
)
SIZES = ["", ' 29"', " Disc", " Step-Thru", ' 27.5"', " Pro", ", 3-Speed", " EQ"]
CHILD_SIZES = [' 12"', ' 16"', ' 20"', ' 24"']

# Two customers to trip over, and two whose address has a second line
NOT_MISSING, APOSTROPHE, TWO_LINES = 17, 27, (33, 148)

MONTHS = (60, 70, 95, 122, 138, 142, 130, 116, 102, 86, 76, 84)  # a bicycle shop's year
WEEK = (88, 82, 84, 90, 106, 138, 112)  # Monday to Sunday
DISCOUNTS = ["0.00", "0.05", "0.07", "0.10", "0.20"]
USUAL_DISCOUNTS, SALE_DISCOUNTS = (
    (42, 22, 16, 14, 6),
    (18, 18, 20, 24, 20),
)  # how likely; sales: November, January


def _day(number: int) -> date:
    return START + timedelta(days=int(number))


MONTH_OF_DAY = np.array([_day(number).month for number in range(CLOSED + 60)], dtype=np.int64)
DAY_WORDS = pa.array([_day(number).isoformat() for number in range(CLOSED + 60)])
TWO_DIGITS = pa.array([f"{number:02d}" for number in range(100)])
FOUR_DIGITS = pa.array([f"{number:04d}" for number in range(10_000)])


def _pick(words: list[str] | pa.Array, positions: np.ndarray) -> pa.Array:
    return (words if isinstance(words, pa.Array) else pa.array(words)).take(pa.array(positions))


def _text(numbers: np.ndarray) -> pa.Array:
    return pa.array(numbers).cast(pa.string())


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _where(mask: np.ndarray, yes: pa.Array | str, no: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(mask), yes, no)


def _money(cents: np.ndarray) -> pa.Array:
    return _join(_text(cents // 100), ".", _pick(TWO_DIGITS, cents % 100))


def _phone(what: str, ids: np.ndarray) -> pa.Array:
    """Numbers that nobody has: (555) 010-0000 to (555) 019-9999."""
    return _join("(555) 01", _text(_draw(what + " area", ids, 10)), "-", _pick(FOUR_DIGITS, _draw(what, ids, 10_000)))


def _fold(words: list[str]) -> list[str]:
    """As an email address spells them."""
    plain = [unicodedata.normalize("NFKD", word.lower()).replace("ø", "o").replace("ı", "i") for word in words]
    return ["".join(letter for letter in word if letter.isascii() and letter.isalpha()) for word in plain]


def _address(what: str, ids: np.ndarray, state: np.ndarray, nth_city: np.ndarray | None = None) -> Table:
    street = _join(
        _text(1 + _draw_low(what + " number", ids, 990)),
        " ",
        _pick(STREETS, _draw(what + " street", ids, len(STREETS))),
        " ",
        _pick(STREET_KINDS, _draw(what + " kind", ids, len(STREET_KINDS))),
        _pick(STREET_ENDS, _draw(what + " end", ids, len(STREET_ENDS))),
    )
    sizes = np.array([len(CITIES[name]) for name in STATES])
    if nth_city is None:
        nth_city = _draw_low(what + " city", ids, sizes[state])
    city = (np.cumsum(sizes) - sizes)[state] + nth_city % sizes[state]
    names = [name for cities in CITIES.values() for name in cities]
    codes = np.array([code for cities in CITIES.values() for code in cities.values()])
    zip_code = pc.utf8_lpad(_text(codes[city] + _draw(what + " zip", ids, 9)), 5, "0")
    return {"street": street, "city": _pick(names, city), "state": _pick(STATES, state), "zip_code": zip_code}


def _stamp(what: str, ids: np.ndarray, day: int) -> pa.Array:
    """A time of that day while the shop is open, in UTC."""
    second = 8 * 3600 + _draw(f"{what} time {day}", ids, 12 * 3600)
    clock = (_pick(TWO_DIGITS, part) for part in (second // 3600, second // 60 % 60, second % 60))
    return pc.binary_join_element_wise(
        _join(_day(day).isoformat(), "T", next(clock)), next(clock), _join(next(clock), "Z"), ":"
    )


# --- The shop ----------------------------------------------------------------------------------------------


class _Shop:
    """How large everything is at a scale, and every row of every table as a function of its number."""

    def __init__(self, scale: float):
        self.slow = max(1, isqrt(isqrt(int(scale))))
        self.stores, self.products = 3 * self.slow, 300 * self.slow
        self.staffs = 1 + 3 * self.stores
        self.customers, self.orders = max(200, round(1500 * scale)), max(200, round(1600 * scale))
        self.new_customers, self.moved_customers = max(3, round(2 * scale)), max(3, round(1.5 * scale))

        # orders are numbered as they come: order_bound[n] of them came before the evening of day n
        days = np.arange(CLOSED + 8, dtype=np.int64)
        weights = np.array(
            [MONTHS[_day(n).month - 1] * WEEK[_day(n).weekday()] * (1000 + int(n)) for n in days],
            dtype=np.int64,
        )
        weights = weights * (85 + _draw("weather", days, 31))
        weights[_closed(days)] = 0
        so_far = np.cumsum(weights[: CLOSED + 1])
        old = (so_far // 1000) * self.orders // (int(so_far[-1]) // 1000)
        old[-1] = self.orders
        daily = np.maximum(weights[CLOSED + 1 :] * self.orders // int(so_far[-1]), 5)
        daily[0] = 0  # New Year's Day
        self.order_bound = np.concatenate([old, self.orders + np.cumsum(daily)])
        # of the new customers, how many are known by each day
        joined = np.zeros(len(days), dtype=np.int64)
        joined[[CLOSED + day for day in DAYS_WITH_NEW_CUSTOMERS]] = self.new_customers
        self.known_new = np.cumsum(joined)

        # orders that come to the files late: order -> (day on which it was placed, day on which it arrives)
        self.late = {
            int(self.order_bound[CLOSED + placed]): (CLOSED + placed, CLOSED + arrives)
            for placed, arrives in ((3, 5), (6, 7))
        }
        first_on_the_6th = int(self.order_bound[CLOSED + 5]) + 1
        self.walk_in, self.stranger = first_on_the_6th, first_on_the_6th + 1

        self.cents = self._prices(np.arange(1, self.products + 3, dtype=np.int64))
        self.stock = self._stock()

    def new_orders(self, day: int) -> tuple[int, int]:
        """The first and the last number of the orders that were placed on that day."""
        return int(self.order_bound[day - 1]) + 1, int(self.order_bound[day])

    def order_day(self, ids: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.order_bound, ids - 1, side="right")

    # products

    def _model(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Model year and category (0 to 6)."""
        year = np.searchsorted(self.products * np.array([25, 60, 100]) // 100, ids - 1, side="right") + 2023
        category = np.zeros(len(ids), dtype=np.int64)
        for of_year, weights in CATEGORY_WEIGHTS.items():
            here = year == of_year
            category[here] = _weighted("category", ids[here], weights)
        return year, category

    def _prices(self, ids: np.ndarray) -> np.ndarray:
        """In cents, of the full load."""
        low, span = CATEGORY_PRICES[self._model(ids)[1]].T
        return (low + _draw_low("price", ids, span)) // 10 * 1000 + 999

    def product_rows(self, ids: np.ndarray) -> Table:
        year, category = self._model(ids)
        size = _pick(SIZES, _draw_low("size", ids, len(SIZES)))
        child_size = _pick(CHILD_SIZES, _draw("size", ids, len(CHILD_SIZES)))
        brand = _weighted("brand", ids, (14, 8, 10, 18, 6, 12, 9, 8, 15))
        name = _join(_pick(BRANDS, brand), " ", _pick(MODELS, _draw("model", ids, len(MODELS))))
        return {
            "product_id": pa.array(ids),
            "product_name": _join(name, _where(category == 0, child_size, size), " - ", _text(year)),
            "brand_id": pa.array(brand + 1),
            "category_id": pa.array(category + 1),
            "model_year": pa.array(year),
            "list_price": _money(self.cents[ids - 1]),
        }

    # stores, staffs, stocks

    def store_rows(self, ids: np.ndarray) -> Table:
        address = _address("store", ids, (ids - 1) % 3, (ids - 1) // 3)
        names = _join(address["city"], " ", _pick(["Bikes", "Wheel Works", "Cycles"], (ids - 1) % 3))
        mail = pa.array([f"{name}@example.com" for name in _fold(names.to_pylist())])
        phone = _phone("store phone", ids)
        return {"store_id": pa.array(ids), "store_name": names, "phone": phone, "email": mail} | address

    def staff_rows(self, ids: np.ndarray) -> Table:
        first, last, mail = _people("staff", ids)
        leads = (ids - 2) % 3 == 0  # of the three in each store the first leads, and staff 1 leads these
        manager = _where(ids == 1, "NULL", _text(np.where(leads, 1, ids - (ids - 2) % 3)))
        return {
            "staff_id": pa.array(ids),
            "first_name": first,
            "last_name": last,
            "email": _join(mail, _text(ids), "@example.com"),
            "phone": _phone("staff phone", ids),
            "active": pa.array(np.where(ids % 10 == 7, 0, 1)),
            "store_id": pa.array(np.where(ids == 1, 1, (ids - 2) // 3 + 1)),
            "manager_id": manager,
        }

    def _stock(self) -> np.ndarray:
        """Quantity by store and product in the full load; the two products that come later have none yet."""
        codes = np.arange(self.stores * (self.products + 2), dtype=np.int64)
        stock = np.where(_draw("sold out", codes, 15) == 0, 0, _draw("stock", codes, 31))
        stock = stock.reshape(self.stores, self.products + 2)
        stock[:, self.products :] = 0
        return stock

    # customers

    def home_store(self, ids: np.ndarray) -> np.ndarray:
        return 1 + _weighted("home state", ids, STATE_WEIGHTS) + 3 * _draw("home store", ids, self.slow)

    def customer_rows(self, ids: np.ndarray, moved: int = 0) -> Table:
        """`moved`: the day of the last move, for another address."""
        first, last, mail = _people("customer", ids)
        last = _where(ids == NOT_MISSING, "Null", _where(ids == APOSTROPHE, "O'Brien", last))
        host = _pick(["@example.com", "@example.com", "@example.org"], _draw("host", ids, 3))
        state = (self.home_store(ids) - 1) % 3
        if moved:
            state = np.where(_draw(f"leaves {moved}", ids, 4) == 0, _draw(f"to {moved}", ids, 3), state)
        address = _address(f"customer {moved}" if moved else "customer", ids, state)
        two_lines = _join("12 Mill Lane\nBuilding ", _text(1 + ids % 9))
        street = _where(np.isin(ids, TWO_LINES), two_lines, address["street"])
        address["street"] = _where(_draw("no street", ids, 90) == 0, "", street)
        return {
            "customer_id": pa.array(ids),
            "first_name": first,
            "last_name": last,
            "phone": _where(_draw("no phone", ids, 100) < 38, "NULL", _phone("phone", ids)),
            "email": _where(_draw("no email", ids, 100) < 3, "", _join(mail, _text(ids), host)),
        } | address

    # orders

    def _buyers(self, ids: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Most customers buy once or never, a few again and again; a third of new orders is of new ones."""
        habit = _draw("habit", ids, 10)
        rank = np.where(habit < 4, _draw("buyer", ids, self.customers), _draw_low("buyer", ids, self.customers))
        rank = np.where(habit == 9, _draw_low("regular", ids, np.maximum(rank, 1)), rank)
        buyer = (rank * 2_147_483_647 + 12_345) % self.customers + 1  # the good ones are not the ones with low numbers
        new = self.known_new[day]
        return np.where(
            (new > 0) & (_draw("new buyer", ids, 3) == 0),
            self.customers + 1 + _draw("which", ids, np.maximum(new, 1)),
            buyer,
        )

    def placed(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The day of each order, its customer and its store, mostly the one near the customer's home."""
        day = self.order_day(ids)
        buyer = self._buyers(ids, day)
        elsewhere = 1 + _draw("other store", ids, self.stores)
        return day, buyer, np.where(_draw("elsewhere", ids, 25) == 0, elsewhere, self.home_store(buyer))

    def _shipping(self, ids: np.ndarray, day: np.ndarray, store: np.ndarray) -> np.ndarray:
        """The day on which each leaves the store: later in the third store, in December, and now and then."""
        delay = 1 + _weighted("delay", ids, (34, 38, 18, 10))
        delay += np.where(store % 3 == 0, _draw("slow store", ids, 3), 0)
        delay += np.where(MONTH_OF_DAY[day] == 12, _draw("december", ids, 3), 0)
        return day + delay + np.where(_draw("long", ids, 40) == 0, 3, 0)

    def status(self, ids: np.ndarray, as_of: int | np.ndarray) -> np.ndarray:
        """The orders' status on the evening of the day `as_of`."""
        day, _, store = self.placed(ids)
        return self._status(ids, day, self._shipping(ids, day, store), as_of)

    def _status(self, ids: np.ndarray, day: np.ndarray, ships: np.ndarray, as_of: int | np.ndarray) -> np.ndarray:
        rejected = _draw("rejected", ids, 100) < 3
        return np.where(day >= as_of, 1, np.where(rejected, 3, np.where(ships <= as_of, 4, 2)))

    def order_rows(self, ids: np.ndarray, as_of: int | np.ndarray) -> Table:
        day, buyer, store = self.placed(ids)
        ships = self._shipping(ids, day, store)
        status = self._status(ids, day, ships, as_of)
        buyer = np.where(ids == self.stranger, 999_999_999, buyer)
        seller = 2 + 3 * (store - 1) + _weighted("seller", ids, (20, 45, 35))
        return {
            "order_id": pa.array(ids),
            "customer_id": pa.array(buyer, mask=ids == self.walk_in),
            "order_status": pa.array(status),
            "order_date": _pick(DAY_WORDS, day),
            "required_date": _pick(DAY_WORDS, day + 3 + _draw("required", ids, 4)),
            "shipped_date": _where(status == 4, _pick(DAY_WORDS, ships), pa.scalar("NULL")),
            "store_id": pa.array(store),
            "staff_id": pa.array(seller),
        }

    # order lines

    def line_keys(self, order_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = 1 + _weighted("lines", order_ids, (20, 20, 22, 20, 18))
        orders = np.repeat(order_ids, counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        return orders, np.arange(len(orders)) - first + 1

    def line_values(self, orders: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Product and quantity of each line."""
        line = orders * 16 + items
        # only models that are out by then, the newest most; an order's lines differ in the remainder by 5
        out = np.where(self.order_day(orders) < 366, self.products * 60 // 100, self.products) // 5
        newest = out - 1 - _draw_low("new product", line, out)
        group = np.where(_draw("any product", line, 2) == 0, newest, _draw("product", line, out))
        product = 5 * group + (_draw("remainder", orders, 5) + items) % 5 + 1
        return product, 1 + _weighted("quantity", line, (68, 28, 4))

    def line_rows(self, orders: np.ndarray, items: np.ndarray) -> Table:
        line = orders * 16 + items
        product, quantity = self.line_values(orders, items)
        sale = np.isin(MONTH_OF_DAY[self.order_day(orders)], (11, 1))
        usual = _weighted("discount", line, USUAL_DISCOUNTS)
        reduced = _weighted("discount", line, SALE_DISCOUNTS)
        return {
            "order_id": pa.array(orders),
            "item_id": pa.array(items),
            "product_id": pa.array(product),
            "quantity": pa.array(quantity),
            "list_price": _pick(_money(self.cents), product - 1),
            "discount": _pick(DISCOUNTS, np.where(sale, reduced, usual)),
        }


def _closed(days: np.ndarray) -> np.ndarray:
    return np.array([(_day(n).month, _day(n).day) in ((1, 1), (12, 25)) for n in days])


def _people(what: str, ids: np.ndarray) -> tuple[pa.Array, pa.Array, pa.Array]:
    """First name, last name, and how their email address begins."""
    first = _draw_low(what + " first name", ids, len(FIRST_NAMES))
    last = _draw(what + " last name", ids, len(LAST_NAMES))
    mail = _join(_pick(_fold(FIRST_NAMES), first), ".", _pick(_fold(LAST_NAMES), last), ".")
    return _pick(FIRST_NAMES, first), _pick(LAST_NAMES, last), mail


# --- Writing -----------------------------------------------------------------------------------------------


class _Run:
    """One call of `generate`: where it writes, and what it has written."""

    def __init__(self, out: Path, shop: _Shop, report: Report):
        self.out, self.shop, self.report = out, shop, report
        self.files: dict[str, int] = {}
        self.quirks: list[Quirk] = []
        self.bytes = 0
        self.rows = 0
        self.made: list[Path] = []  # in the order of making
        self.total = shop.customers + 4 * shop.orders + int(shop.stock.size)

    def folder(self, path: Path) -> None:
        if not path.exists():
            self.folder(path.parent)
            path.mkdir()
            self.made.append(path)

    def remove(self) -> None:
        for path in reversed(self.made):
            with suppress(OSError):  # what hinders this must not hide what went wrong before
                path.rmdir() if path.is_dir() else path.unlink()

    def wrote(self, name: str, rows: int) -> None:
        self.files[name] = self.files.get(name, 0) + rows
        self.rows += rows
        if rows != 1 or self.rows % 1000 == 0:
            self.report(name.partition("/")[0], self.rows, max(self.rows, self.total))

    @contextmanager
    def file(self, name: str, columns: Iterable[str], *, bom: bool = False, end: str = "\n") -> Iterator["_File"]:
        """The file to write rows to; by its ending CSV, gzipped CSV or JSON lines."""
        path = self.out / name
        self.folder(path.parent)
        self.made.append(path)
        self.wrote(name, 0)
        with path.open("wb") as disk:
            if name.endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", fileobj=disk, mtime=0) as packed:
                    yield _File(self, name, packed, list(columns), bom, end)
            else:
                yield _File(self, name, disk, list(columns), bom, end)
        self.bytes += path.stat().st_size


class _File:
    def __init__(self, run: _Run, name: str, stream: io.RawIOBase, columns: list[str], bom: bool, end: str):
        self.run, self.name, self.stream, self.columns, self.end = run, name, stream, columns, end
        self.json = name.endswith(".jsonl")
        self.next_line = 1
        self.noted: dict[str, int] = {}
        if bom:
            stream.write(b"\xef\xbb\xbf")
        if not self.json:
            self._write((",".join(columns) + end).encode())

    def block(self, table: Table) -> None:
        """Write many rows at once."""
        *first, last = (_csv_text(table[name]) for name in self.columns)
        lines = pc.binary_join_element_wise(*first, _join(last, self.end), ",")
        # the strings of an Arrow array lie one after the other: together they are the text of the file
        _, ends, text = lines.buffers()
        self.stream.write(memoryview(text)[: np.frombuffer(ends, np.int32)[len(lines)]])
        self.run.wrote(self.name, len(lines))

    def rows(
        self,
        rows: Iterable[Row],
        kind: str = "",
        detail: str = "",
        broken: str | None = None,
        **changed: object,
    ) -> None:
        """Write these rows, `changed` in some values, and note them as a quirk of this kind."""
        for row in rows:
            row = row | changed
            self.row(row, kind, detail.format_map(row), broken)

    def row(self, row: Row, kind: str = "", detail: str = "", broken: str | None = None) -> None:
        values = [row.get(name) for name in self.columns]
        if self.json:
            known = {
                name: None if value in ("NULL", "") else value for name, value in zip(self.columns, values, strict=True)
            }
            text = json.dumps(known, ensure_ascii=False)
        else:
            text = _csv_line(values)
        self.raw(text, kind, detail, broken)

    def raw(self, text: str | bytes, kind: str = "", detail: str = "", broken: str | None = None) -> None:
        """Write a row as it is, and where it is odd note the oddity with its line."""
        self.noted[kind] = self.noted.get(kind, 0) + 1
        if kind and (broken or self.noted[kind] <= MOST_NOTES):
            self.run.quirks.append(Quirk(self.name, self.next_line, kind, detail, broken))
        self._write((text.encode() if isinstance(text, str) else text) + self.end.encode())
        self.run.wrote(self.name, 1)

    def note(self, kind: str, detail: str) -> None:
        """Something about the file as a whole."""
        self.run.quirks.append(Quirk(self.name, None, kind, detail, None))

    def _write(self, data: bytes) -> None:
        self.stream.write(data)
        self.next_line += data.count(b"\n")


def _csv_field(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in '",\r\n') else text


def _csv_line(values: Iterable[object]) -> str:
    return ",".join(map(_csv_field, values))


def _csv_text(column: pa.Array) -> pa.Array:
    """The same as `_csv_field`, for a whole column."""
    if not pa.types.is_string(column.type):
        return column.cast(pa.string()).fill_null("")
    odd = pc.match_substring_regex(column, '[",\r\n]')
    if not pc.any(odd).as_py():
        return column
    return pc.if_else(odd, _join('"', pc.replace_substring(column, '"', '""'), '"'), column)


def _chunks(first: int, last: int, rows_each: int = 1) -> Iterator[np.ndarray]:
    """The numbers from `first` to `last`, so many at a time that they make about CHUNK rows."""
    size = max(1, CHUNK // rows_each)
    for start in range(first, last + 1, size):
        yield np.arange(start, min(start + size, last + 1), dtype=np.int64)


def _rows(table: Table) -> Iterator[Row]:
    names = list(table)
    for values in zip(*(column.to_pylist() for column in table.values()), strict=True):
        yield dict(zip(names, values, strict=True))


# --- The full load -----------------------------------------------------------------------------------------


def _full_load(run: _Run) -> None:
    """Everything as it was on the evening of 2025-12-31: clean, and with exactly the contract's columns."""
    shop = run.shop

    def write(name: str, last: int, rows_of: Callable[[np.ndarray], Table], rows_each: int = 1) -> None:
        with run.file(f"{BATCHES[0]}/{name}.csv", rows_of(np.arange(1, 2, dtype=np.int64))) as file:
            for ids in _chunks(1, last, rows_each):
                file.block(rows_of(ids))

    def stock_rows(codes: np.ndarray) -> Table:
        store, product = (codes - 1) // shop.products, (codes - 1) % shop.products
        quantity = shop.stock[store, product]
        return {
            "store_id": pa.array(store + 1),
            "product_id": pa.array(product + 1),
            "quantity": pa.array(quantity),
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


def _brand_rows(ids: np.ndarray) -> Table:
    return {"brand_id": pa.array(ids), "brand_name": _pick(BRANDS, ids - 1)}


def _category_rows(ids: np.ndarray) -> Table:
    return {"category_id": pa.array(ids), "category_name": _pick(CATEGORIES, ids - 1)}


# --- The daily batches -------------------------------------------------------------------------------------

CATEGORY_COLUMNS = _words("category_id category_name updated_at")
CUSTOMER_COLUMNS = _words("customer_id first_name last_name phone email street city state zip_code updated_at")
PRODUCT_COLUMNS = _words("product_id product_name brand_id category_id model_year list_price updated_at")
ORDER_COLUMNS = _words(
    "order_id customer_id order_status order_date required_date shipped_date store_id staff_id updated_at"
)
LINE_COLUMNS = _words("order_id item_id product_id quantity list_price discount updated_at")
DAYS_WITH_NEW_CUSTOMERS = (2, 3, 4, 7)
NOBODY = 999_999_999  # a number that no order, product or customer has
MOST_NOTES = 10  # of the rows in a file that are odd in the same way, but good; the broken ones are all noted

MOVED = "a customer who moved", "customer {customer_id}"
NEW_PRICE = "a price change", "product {product_id} costs {list_price} now"
LATE = ("a row that arrives late",)
OLDER = ("an older version that arrives after the newer",)


class _Day:
    """What happens in the shop on one day of January 2026, as rows for the day's files."""

    def __init__(self, run: _Run, number: int):
        self.run, self.shop = run, run.shop
        self.day = CLOSED + number
        self.batch = BATCHES[number - 1]
        self.columns_of_orders = ORDER_COLUMNS + (["channel"] if number >= 5 else [])

    def file(self, name: str, columns: Iterable[str], **how):
        return self.run.file(f"{self.batch}/{name}", columns, **how)

    def missing(self, name: str) -> None:
        self.run.quirks.append(Quirk(self.batch, None, "no file at all", f"{name}: nothing came that day", None))

    def stamped(self, what: str, table: Table, ids: np.ndarray, day: int | None = None) -> Iterator[Row]:
        return _rows(table | {"updated_at": _stamp(what, ids, day or self.day)})

    # customers

    def customers(self, ids: Iterable[int], *, moved: bool = True, day: int | None = None) -> Iterator[Row]:
        """Rows of these customers, written on this `day`; with another address when they have `moved`."""
        ids = np.fromiter(ids, dtype=np.int64)
        day = day or self.day
        return self.stamped("customer", self.shop.customer_rows(ids, day if moved else 0), ids, day)

    def new_customers(self) -> Iterator[Row]:
        first = self.shop.customers + int(self.shop.known_new[self.day - 1]) + 1
        for ids in _chunks(first, self.shop.customers + int(self.shop.known_new[self.day])):
            yield from self.customers(ids, moved=False)

    def moved_customers(self) -> Iterator[Row]:
        """Each day some; those below 150 are left to the quirks."""
        for ranks in _chunks(1, self.shop.moved_customers):
            yield from self.customers(150 + np.unique(_draw(f"moves {self.day}", ranks, self.shop.customers - 149)))

    # orders

    def orders(self, ids: Iterable[int], *, day: int | None = None) -> Iterator[Row]:
        """Rows of these orders as of the evening of `day`."""
        ids = np.fromiter(ids, dtype=np.int64)
        day = day or self.day
        channel = _where(
            self.shop.order_day(ids) < CLOSED + 5,
            "",
            _pick(["store", "store", "web"], _draw("channel", ids, 3)),
        )
        return self.stamped("order", self.shop.order_rows(ids, day) | {"channel": channel}, ids, day)

    def new_orders(self) -> Iterator[Row]:
        """Those placed today, without the ones that arrive late."""
        for ids in _chunks(*self.shop.new_orders(self.day)):
            yield from self.orders(ids[~np.isin(ids, list(self.shop.late))])

    def changed_orders(self) -> Iterator[Row]:
        """Earlier ones whose status is another than in the batch before."""
        for ids in _chunks(int(self.shop.order_bound[self.day - 15]) + 1, int(self.shop.order_bound[self.day - 1])):
            before = np.full(len(ids), CLOSED if self.day == CLOSED + 2 else self.day - 1)
            for order, (placed, arrives) in self.shop.late.items():
                if arrives == self.day:
                    before[ids == order] = placed
                elif arrives > self.day:
                    ids, before = ids[ids != order], before[ids != order]
            yield from self.orders(ids[self.shop.status(ids, before) != self.shop.status(ids, self.day)])

    def late_order(self) -> int:
        return next(order for order, (_, arrives) in self.shop.late.items() if arrives == self.day)

    # order lines

    def lines(self, orders: Iterable[int], *, day: int | None = None) -> Iterator[Row]:
        keys = self.shop.line_keys(np.fromiter(orders, dtype=np.int64))
        return self.stamped("line", self.shop.line_rows(*keys), keys[0], day)

    def new_lines(self, without: int = 0) -> Iterator[Row]:
        for ids in _chunks(*self.shop.new_orders(self.day), 3):
            yield from self.lines(ids[ids != without])

    def spoilt_lines(self) -> Iterator[Row]:
        """Lines to spoil, with a number that their orders have not."""
        first = self.shop.new_orders(self.day)[0]
        for order in range(first, first + self.shop.slow):
            yield next(self.lines([order])) | {"item_id": 9}

    # products and stocks

    def products(self, ids: Iterable[int]) -> Iterator[Row]:
        ids = np.fromiter(ids, dtype=np.int64)
        return self.stamped("product", self.shop.product_rows(ids), ids)

    def new_price(self, product: int, per_cent: int) -> None:
        cents = self.shop.cents
        cents[product - 1] = cents[product - 1] * per_cent // 100 // 100 * 100 + 99

    def write_stocks(self, spoil: bool = False) -> None:
        """What changed today, as a Parquet file: less what was sold, filled up where there was too little."""
        shop, sold = self.shop, np.zeros_like(self.shop.stock)
        for ids in _chunks(*shop.new_orders(self.day), 3):
            orders, items = shop.line_keys(ids)
            product, quantity = shop.line_values(orders, items)
            _, _, store = shop.placed(orders)
            np.add.at(sold, (store - 1, product - 1), quantity)
        store, product = np.nonzero(sold)
        left = shop.stock - sold
        shop.stock = np.where(left < 0, left + (-left + 19) // 20 * 20, left)
        quantity = shop.stock[store, product]
        name = f"{self.batch}/stocks.parquet"
        if spoil:
            store, product, quantity = np.append(store, 0), np.append(product, 0), np.append(quantity, -3)
            self.run.quirks.append(Quirk(name, len(store), "a value below its minimum", "quantity -3", VALUE))
        table = pa.table({"store_id": store + 1, "product_id": product + 1, "quantity": quantity})
        path = self.run.out / name
        self.run.made.append(path)
        pq.write_table(table, path, row_group_size=CHUNK)
        self.run.bytes += path.stat().st_size
        self.run.wrote(name, len(store))

    def each(self, start: int, step: int = 200) -> list[int]:
        """The numbers of the rows that a quirk spoils: one at scale 1, more at larger ones."""
        return [start + step * nth for nth in range(self.shop.slow)]


def _without_zone(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        yield row | {"updated_at": str(row["updated_at"]).replace("T", " ").removesuffix("Z")}


def _january_2(day: _Day) -> None:
    """New and changed orders, customers who moved, new customers; from now on rows carry updated_at."""
    first = day.shop.new_orders(day.day)[0]
    with day.file("customers.csv", CUSTOMER_COLUMNS) as file:
        file.rows(day.new_customers())
        file.rows(day.moved_customers(), *MOVED)

    with day.file("orders.csv", ORDER_COLUMNS) as file:
        file.rows(day.changed_orders(), "a changed order", "order {order_id} has status {order_status} now")
        date_ = "an impossible date", "order {order_id}: shipped_date 2026-02-30", VALUE
        file.rows(day.orders(day.each(11)), *date_, shipped_date="2026-02-30")
        file.rows(day.new_orders())
        number = "text in a number", "order {order_id}: order_status done", VALUE
        file.rows(day.orders(day.each(12)), *number, order_status="done")
        file.rows(day.orders([first]), "the same row twice", "order {order_id}, in one file")

    with day.file("order_items.csv", LINE_COLUMNS) as file:
        number = "text in a number", "line 9 of order {order_id}: quantity two", VALUE
        file.rows(day.spoilt_lines(), *number, quantity="two")
        file.rows(day.new_lines())
        file.rows(day.lines([first]), "the same row twice", "line {item_id} of order {order_id}, in one file")

    day.write_stocks()


def _january_3(day: _Day) -> None:
    """A category renamed; price changes, in a file with BOM and CRLF; two versions of a row in one batch."""
    with day.file("categories.csv", CATEGORY_COLUMNS) as file:
        ids = np.array([3], dtype=np.int64)
        renamed = "a category renamed", "category 3, until now Cruisers Bicycles"
        file.rows(day.stamped("category", _category_rows(ids), ids), *renamed, category_name="Cruisers")

    with day.file("products.csv", PRODUCT_COLUMNS, bom=True, end="\r\n") as file:
        file.note("a file with BOM and CRLF line ends", "and its times name no zone, as Windows tools write them")
        ids = sorted({8, *day.each(40, 60), *day.each(95, 60), *day.each(121, 60)})
        for nth, product in enumerate(ids):
            day.new_price(product, (108, 95, 112, 90)[nth % 4])
        file.rows(_without_zone(day.products(ids)), *NEW_PRICE)
        number = "text in a number", "product 41: list_price 1.299,00", VALUE
        file.rows(_without_zone(day.products([41])), *number, list_price="1.299,00")

    with day.file("customers.csv", CUSTOMER_COLUMNS) as file:
        file.rows(day.new_customers())
        two_lines = day.customers(TWO_LINES[:1], moved=False)
        file.rows(two_lines, "a line end inside a field", "customer {customer_id}: street")
        older, newer = day.customers([21], day=day.day - 1), day.customers([21])
        both = "two versions of one row", "customer 21, who moved twice, at {updated_at}"
        file.rows(newer, *both, updated_at=f"{day.batch}T16:40:05Z")
        file.rows(older, *both, updated_at=f"{day.batch}T09:12:44Z")
        for row in day.customers(day.each(31)):
            file.raw(_csv_line(list(row.values())[:6]), "too few fields", f"customer {row['customer_id']}", LINE)
        for row in day.customers(day.each(32)):
            more = _csv_line([*row.values(), "x", "y"])
            file.raw(more, "too many fields", f"customer {row['customer_id']}", LINE)
        file.rows(day.customers(day.each(34)), "an empty key", "customer_id", VALUE, customer_id="")
        file.rows(day.customers(day.each(37)), "a NULL key", "customer_id", VALUE, customer_id="NULL")
        file.rows(day.moved_customers(), *MOVED)

    with day.file("orders.csv", ORDER_COLUMNS) as file:
        file.rows(day.changed_orders())
        file.rows(day.new_orders())

    with day.file("order_items.csv", LINE_COLUMNS) as file:
        file.rows(day.new_lines(without=day.shop.new_orders(day.day)[1]))

    day.write_stocks()


def _january_4(day: _Day) -> None:
    """Orders switch from CSV to JSON lines; order lines come as a gzip file."""
    with day.file("customers.csv", CUSTOMER_COLUMNS) as file:
        file.rows(day.new_customers())
        file.rows(day.customers([24]), MOVED[0], "customer 24, whose older version comes on 2026-01-07")
        file.rows(day.moved_customers(), *MOVED)

    with day.file("orders.jsonl", ORDER_COLUMNS) as file:
        file.note("the source switches from CSV to JSON lines", "orders, from this day on")
        file.rows(day.changed_orders())
        for row in day.orders(day.each(13)):
            file.raw(json.dumps(row)[:57], "a line that is cut off", f"order {row['order_id']}", LINE)
        file.rows(day.new_orders())
        file.raw('["order", 14]', "not an object", "a list", LINE)
        number = "text in a number", "order {order_id}: order_status completed", VALUE
        file.rows(day.orders(day.each(15)), *number, order_status="completed")

    with day.file("order_items.csv.gz", LINE_COLUMNS) as file:
        file.note("a gzip file", "order_items, on this day only; its lines are those of the unpacked file")
        changed = list(day.lines([day.shop.orders]))[:1]
        file.rows(changed, "a changed order line", "line 1 of order {order_id}: quantity 4 now", quantity=4)
        low = "a value below its minimum", "line 9 of order {order_id}: quantity 0", VALUE
        file.rows(day.spoilt_lines(), *low, quantity=0)
        file.rows(day.new_lines())
        for row in day.spoilt_lines():
            few = "too few fields", f"line 9 of order {row['order_id']}", LINE
            file.raw(_csv_line(list(row.values())[:3]), *few)

    day.write_stocks()


def _january_5(day: _Day) -> None:
    """A new column, orders.channel; an order of two days ago; lines of an unknown order; an empty file."""
    late = day.late_order()
    with day.file("customers.csv", CUSTOMER_COLUMNS) as file:
        file.note("a file with a header and no rows", "customers")

    with day.file("orders.jsonl", day.columns_of_orders) as file:
        file.note("a new column from one day on", "orders.channel")
        file.rows(day.orders([late], day=day.day - 2), *LATE, "order {order_id}, placed two days ago")
        file.rows(day.changed_orders())
        file.rows(day.new_orders())
        channel = "a value that is not allowed", "order {order_id}: channel phone", VALUE
        file.rows(day.orders(day.each(16)), *channel, channel="phone")

    with day.file("order_items.csv", LINE_COLUMNS) as file:
        file.rows(day.lines([late], day=day.day - 2), *LATE, "line {item_id} of order {order_id}")
        file.rows(day.new_lines())
        again = day.lines([day.shop.new_orders(day.day - 1)[0]], day=day.day - 1)
        file.rows(again, "the same row twice", "line {item_id} of order {order_id}, as in the batch before")
        low = "a value below its minimum", "line 9 of order {order_id}: quantity -1", VALUE
        file.rows(day.spoilt_lines(), *low, quantity=-1)
        high = "a value above its maximum", "line 9 of order {order_id}: discount 1.5", VALUE
        file.rows(day.spoilt_lines(), *high, discount="1.5")
        for nth, row in enumerate(day.spoilt_lines()):
            lost = "a line whose order is unknown", "order {order_id}"
            file.rows([row], *lost, order_id=NOBODY - nth, item_id=1)
            lost = "a line whose product is unknown", "line 8 of order {order_id}: product {product_id}"
            file.rows([row], *lost, item_id=8, product_id=NOBODY)

    day.write_stocks()


def _january_6(day: _Day) -> None:
    """New products, more new prices; an order's older version after the newer; no customers at all."""
    shop = day.shop
    day.missing("customers")
    with day.file("products.csv", PRODUCT_COLUMNS) as file:
        day.new_price(8, 94)
        day.new_price(77, 106)
        file.rows(day.products([8, 77]), *NEW_PRICE)
        file.rows(day.products([shop.products + 1, shop.products + 2]), "a new product", "product {product_id}")
        low = "a value below its minimum", "product 42: list_price -10.00", VALUE
        file.rows(day.products([42]), *low, list_price="-10.00")
        missing = "a required value is missing", "product 43: product_name", VALUE
        file.rows(day.products([43]), *missing, product_name="")

    with day.file("orders.jsonl", day.columns_of_orders) as file:
        older = "order {order_id} with status 1; its version of 2026-01-02 is newer and must stay"
        file.rows(day.orders([shop.orders], day=CLOSED), *OLDER, older, updated_at="2026-01-01T18:00:00Z")
        file.rows(day.changed_orders())
        for row in day.new_orders():
            if row["order_id"] == shop.walk_in:
                file.rows([row], "an order without a customer", "order {order_id}: a sale without an account")
            elif row["order_id"] == shop.stranger:
                file.rows([row], "an order whose customer is unknown", "order {order_id}: customer {customer_id}")
            else:
                file.row(row)
        status = "a value that is not allowed", "order {order_id}: order_status 7", VALUE
        file.rows(day.orders(day.each(18)), *status, order_status=7)

    with day.file("order_items.csv", LINE_COLUMNS) as file:
        early = shop.new_orders(day.day)[1]
        file.rows(day.new_lines(without=early))
        before = (
            "a line that arrives before its order",
            "line {item_id} of order {order_id}, which comes the next day",
        )
        file.rows(day.lines([early]), *before)

    day.write_stocks(spoil=True)


def _january_7(day: _Day) -> None:
    """A customer's older version comes after the newer; bytes that are not UTF-8; an unclosed quote."""
    with day.file("customers.csv", CUSTOMER_COLUMNS) as file:
        file.rows(day.new_customers())
        older = "customer 24 as of 2026-01-03; its version of 2026-01-04 is newer and must stay"
        file.rows(day.customers([24], day=day.day - 4), *OLDER, older)
        for row in day.customers(day.each(35)):
            latin = _csv_line((row | {"last_name": "Müller"}).values()).encode("latin-1", "replace")
            detail = f"customer {row['customer_id']}: Müller in Latin-1"
            file.raw(latin, "a byte that is not UTF-8", detail, LINE)
        file.rows(day.moved_customers(), *MOVED)
        (row,) = day.customers([36])  # in the last line: all that follows an unclosed quote belongs to its field
        open_quote = _csv_line((row | {"street": "1 Oak Lane"}).values()).replace("1 Oak Lane", '"1 Oak Lane')
        file.raw(open_quote, "an unclosed quote", "customer 36: street", LINE)

    with day.file("orders.jsonl", day.columns_of_orders) as file:
        late = "order {order_id}, placed the day before; its lines came then"
        file.rows(day.orders([day.late_order()], day=day.day - 1), *LATE, late)
        file.rows(day.changed_orders())
        file.rows(day.new_orders())

    with day.file("order_items.csv", LINE_COLUMNS) as file:
        file.rows(day.new_lines())
        missing = "a required value is missing", "line 9 of order {order_id}: list_price", VALUE
        file.rows(day.spoilt_lines(), *missing, list_price="")

    day.write_stocks()


DAYS = (_january_2, _january_3, _january_4, _january_5, _january_6, _january_7)


# --- data/README.md ----------------------------------------------------------------------------------------


def dictionary(sources: Path = SOURCES) -> str:
    """The tables that the file `sources` describes, as Markdown."""
    tables = tomllib.loads(sources.read_text(encoding="utf-8"))
    parts = []
    for name, table in tables.items():
        facts = ["Key: " + ", ".join(f"`{column}`" for column in table["key"])]
        facts.append(f"order: `{table['order_by']}`" if "order_by" in table else "order: the later batch wins")
        facts.append("history: every version is kept" if table.get("history") else "history: none")
        lines = [f"### {name}", "", table["description"] + " " + "; ".join(facts) + ".", ""]
        lines += ["| column | type | rules | meaning |", "|---|---|---|---|"]
        for column, about in table["columns"].items():
            lines.append(f"| `{column}` | {about['type']} | {_rules(column, table)} | {about['description']} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _rules(column: str, table: dict) -> str:
    about = table["columns"][column]
    rules = ["key"] if column in table["key"] else ["required"] if about.get("required") else []
    rules += [f"{sign} {about[name]}" for name, sign in (("min", "at least"), ("max", "at most")) if name in about]
    if "allowed" in about:
        rules.append("one of " + ", ".join(map(str, about["allowed"])))
    if "references" in about:
        rules.append(f"refers to `{about['references']}`")
    return ", ".join(rules)


def batches(summary: Summary) -> str:
    """What happens on which day, and in which files, as Markdown."""
    lines = ["| batch | what happens in it | files (rows) |", "|---|---|---|"]
    for batch, write in zip(BATCHES, (_full_load, *DAYS), strict=True):
        files = [
            f"{name.partition('/')[2]} ({n:,})" for name, n in summary.files.items() if name.startswith(batch + "/")
        ]
        lines.append(f"| {batch} | {write.__doc__} | {', '.join(files)} |")
    return "\n".join(lines)


def quirks(summary: Summary) -> str:
    """Each quirk and where it is, as Markdown."""
    lines = ["| file | line | what | which | to quarantine |", "|---|---|---|---|---|"]
    for quirk in summary.quirks:
        where = {LINE: "yes: the line", VALUE: "yes: a value", None: ""}[quirk.broken]
        lines.append(f"| {quirk.file} | {quirk.line or ''} | {quirk.kind} | {quirk.detail} | {where} |")
    return "\n".join(lines)


def refresh(text: str) -> str:
    """The `text` of data/README.md with its three derived parts, between their marks, as they are now."""
    with tempfile.TemporaryDirectory() as folder:
        summary = generate(Path(folder))
    parts = {"dictionary": dictionary(), "batches": batches(summary), "quirks": quirks(summary)}
    for name, part in parts.items():
        begin, end = f"<!-- {name}: derived -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, also_found, after = rest.partition(end)
        if not (found and also_found):
            raise LakehouseError(f"The marks {begin} and {end} are missing. Put them back around the {name}.")
        text = f"{before}{begin}\n\n{part}\n\n{end}{after}"
    return text


# --- The command line --------------------------------------------------------------------------------------


@click.command()
@click.option("--scale", type=float, default=1, show_default=True, help="How large: 1 is about 1,600 orders.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write to: empty, or not there yet.")
@click.option(
    "--readme",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Instead: bring this README up to date.",
)
def main(scale: float, out: Path | None, readme: Path | None) -> None:
    """Write the raw files of a bicycle shop: a full load and six daily batches."""
    try:
        if readme:
            readme.write_text(refresh(readme.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
            click.echo(f"{readme} is up to date.")
            return
        if not out:
            raise click.UsageError("Say where to write: --out FOLDER.")
        with _shown() as progress:
            summary = generate(out, scale, progress=progress)
    except LakehouseError as error:
        raise click.ClickException(str(error)) from None
    rows = sum(summary.files.values())
    click.echo(f"Wrote {rows:,} rows in {len(summary.files)} files, {summary.bytes / 1e6:,.1f} MB, to {out}.")


@contextmanager
def _shown() -> Iterator[Report]:
    """A bar in a terminal, a line for each batch in a pipe."""
    if not sys.stderr.isatty():
        seen = set()

        def line(batch: str, done: int, total: int) -> None:
            if batch not in seen:
                seen.add(batch)
                click.echo(f"writing {batch}", err=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda batch, done, total: bar.update(task, description=batch, completed=done, total=total)


if __name__ == "__main__":
    main()
