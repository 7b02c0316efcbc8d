"""A year of operation: a batch every day, maintenance every week, and what goes wrong in a year.

The shop gets 365 batches. The job runs twice a week, so that the test ends in time, and finds three or four batches. On
some days it is killed, a table is restored to an earlier version, a corrected file is replayed, and a person is
removed. At the end the tables are as computed from the raw files in plain Python, there are few files, and a run costs
what is new, not what is old.
"""

import csv
import datetime as dt
import io
import random
import shutil
from pathlib import Path

import pytest
from support import crashes, expected, lakes
from support.operators import Operator
from support.s3_proxy import proxy_to

from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.run import LAYERS

DAYS = 365
RUN_ON = (0, 4)  # Monday and Friday
FIRST = dt.date(2026, 1, 1)
KILLED, RESTORED, CORRECTED, REMOVED = (40, 170, 300), 100, 200, 250
FIRST_MEASURED = 16  # a Saturday, with one new batch
BAD = 180  # the day whose file is corrected on the day CORRECTED
MOVED = REMOVED - 30  # the day on which the person who is removed gets an address that is easy to find
PERSON = "forgotten.person@example.com"
_ORDER = "order_id,customer_id,order_status,order_date,required_date,shipped_date,store_id,staff_id"
_LINE = "order_id,item_id,product_id,quantity,list_price,discount"


class Year:
    """The raw files, day by day, and the lake that is built from them."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.lake = operator.lake
        self.landing = operator.landing
        self.random = random.Random(1)
        full = self.landing / FIRST.isoformat()
        self.header, *self.customers = _rows(full / "customers.csv")
        self.products = [row[0] for row in _rows(full / "products.csv")[1:]]
        self.last_order = 1_000_000

    def deliver(self, day: int) -> None:
        """The files of a day: new orders, a change to one of yesterday, a customer who moved, sometimes a bad row."""
        date = FIRST + dt.timedelta(day)
        orders, lines = [], []
        for _ in range(3):
            self.last_order += 1
            customer = self.random.choice(self.customers)[0]
            orders.append([self.last_order, customer, 1, date, date + dt.timedelta(2), "", 1, 1])
            price = self.random.randint(100, 9000)
            lines.append([self.last_order, 1, self.random.choice(self.products), 1 + day % 3, f"{price}.50", "0.1"])
        if day > 1:
            yesterday = self.last_order - 4
            orders.append([yesterday, self.random.choice(self.customers)[0], 4, date, date, date, 1, 1])
        if day % 30 == 0:
            orders.append([self.last_order + 500_000, 1, 1, "someday", "", "", 1, 1])
        customer = list(self.random.choice(self.customers))
        customer[self.header.index("street")] = f"{day} New Street"
        if day == MOVED:
            customer[self.header.index("email")] = PERSON
            self.person = customer[0]
        if "updated_at" in self.header:
            customer[self.header.index("updated_at")] = f"{date}T08:00:00Z"
        _write(self.landing / str(date) / "orders.csv", _ORDER.split(","), orders)
        _write(self.landing / str(date) / "order_items.csv", _LINE.split(","), lines)
        _write(self.landing / str(date) / "customers.csv", self.header, [customer])

    def run(self, *, gold: bool = True) -> None:
        """A run of the job. Gold follows once a week, so that the test ends in time."""
        lakes.job(self.lake, self.landing, layers=LAYERS if gold else LAYERS[:2])

    def kill(self) -> None:
        """Kill the job before one of its writes, three times; the run after it goes on."""
        environment = self.operator.environment
        with crashes.Proxy.to(environment["AWS_ENDPOINT_URL"]) as proxy:
            for _ in range(3):
                proxy.run(self.random.randint(1, 12), ["--quiet"], environment, self.operator.folder / "output")

    def correct(self, day: int) -> None:
        """Deliver the file of an earlier day again, with the bad date corrected."""
        file = self.landing / str(FIRST + dt.timedelta(day)) / "orders.csv"
        corrected = self.operator.folder / "corrected" / "orders.csv"
        corrected.parent.mkdir()
        corrected.write_text(file.read_text().replace("someday", str(FIRST)))
        shutil.copy(corrected, file)

    def forget(self) -> None:
        """The recipe for removing a person."""
        self.operator.run("forget lines", self.person, PERSON)
        self.operator.run("forget tables")
        self.operator.run("forget run")
        self.operator.run("forget proof", PERSON)
        self.customers = [row for row in self.customers if row[0] != self.person]

    def maintain(self) -> None:
        self._job(self.operator.environment, "--maintain")

    def _job(self, environment: dict[str, str], *arguments: str) -> None:
        output = self.operator.folder / "output"
        code = crashes.run(["--quiet", *arguments], environment, output)
        assert code == 0, output.read_text()

    def requests_of_a_run(self) -> int:
        """The requests of a run on tables that have just got a checkpoint.

        Otherwise the numbers of commits after the last checkpoints, up to ten for each table, would differ by chance.
        """
        for _, table in lakes.opened(self.lake):
            table.create_checkpoint()
        requests: list[str] = []
        with proxy_to(
            self.operator.environment["AWS_ENDPOINT_URL"], lambda method, _: requests.append(method)
        ) as endpoint:
            self._job(self.operator.environment | {"AWS_ENDPOINT_URL": endpoint})
        return len(requests)


def _rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def _write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_year_of_daily_batches(lake, small, keys, tmp_path):
    """After a year with kills, a restore, a replay and a removal, the tables are right, few files, and cheap to run."""
    landing = tmp_path / "landing"
    shutil.copytree(small / FIRST.isoformat(), landing / FIRST.isoformat())
    year = Year(Operator(tmp_path / "checkout", lake, landing, keys))
    year.run()
    early_requests = None
    for day in range(1, DAYS):
        year.deliver(day)
        if day in KILLED:
            year.kill()
        if day == RESTORED:
            table = lake.delta("silver", "orders")
            table.restore(table.version() - 20)
        if day == CORRECTED:
            year.correct(BAD)
        if day == REMOVED:
            year.forget()
        if day == FIRST_MEASURED:
            early_requests = year.requests_of_a_run()
        weekday = (FIRST + dt.timedelta(day)).weekday()
        if weekday in RUN_ON:
            year.run(gold=weekday == RUN_ON[-1])
        if day % 7 == 0:
            year.maintain()
    year.run()

    wanted = expected.tables(landing, sources.SHOP)
    different = lakes.unlike(lake, {name: rows for name, rows in wanted.items() if "quarantine" not in name})
    assert different == {}
    open_problems = {(row["_source_file"], row["_source_line"]) for row in wanted["quarantine.orders"]}
    quarantined = lakes.rows(lake.delta("quarantine", "orders"))
    unresolved = {(row["_source_file"], row["_source_line"]) for row in quarantined if row["resolved_at"] is None}
    assert unresolved == open_problems and len(quarantined) == len(open_problems) + 1
    assert "No problems" in year.operator.run("check")

    files = {name: len(table.file_uris()) for name, table in lakes.opened(lake)}
    assert max(files.values()) <= 40, files
    year.deliver(DAYS)
    late_requests = year.requests_of_a_run()
    assert late_requests <= 1.5 * early_requests, (early_requests, late_requests)
    assert year.requests_of_a_run() <= 100
