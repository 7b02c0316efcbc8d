"""The exercises of notebook 09: a retry loop, the orphans of a partitioned table, the commit that doubled rows."""

import json
import random
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake

_ATTEMPTS = 5
_HANDLES_PER_ATTEMPT = 2  # at most; one that reads and one that updates with a condition are right too
_LONGEST_PAUSE_S = 1.0
_SEED_OF_HIGH_NUMBERS = 459424  # the first five calls of random.random() return more than 0.9
_TIME_LIMIT_S = 30.0  # of one call
_PRODUCT, _OTHER_PRODUCT = 7, 8

Sell = Callable[..., Any]

_OLD_HANDLE = (
    "The handle was opened once, so after a refused commit it still has the old version. Open the table in each"
    " attempt."
)


@exercise("09.1", "Find the fault in a retry loop", expects=Callable)
def check_sell(answer: Sell, lake: Lake) -> Right:
    """The function sells while another writer does; it reads and updates with one handle, and gives up after five."""
    _check_simple_sales(answer, lake)
    _check_competition(answer, lake)
    _check_other_errors(answer, lake)
    _check_bound(answer, lake)
    return Right("No sale is lost, none is made without stock, and after five attempts the caller gets the error.")


def _check_simple_sales(answer: Sell, lake: Lake) -> None:
    for quantity, pieces, expected in ((10, 3, True), (10, 10, True), (2, 3, False)):
        shop = _Shop(lake, quantity)
        sold = shop.call(answer, pieces)
        left = quantity - pieces * expected
        case = f"No one else sells, and there are {quantity} pieces. A sale of {pieces}"
        if not _is(sold, expected):
            raise Wrong(f"{case} should return {expected}, but it returned {sold!r}.")
        if shop.quantity() != left:
            raise Wrong(f"{case} should leave {left} pieces; it left {shop.quantity()}.")
        if shop.quantity(_OTHER_PRODUCT) != quantity:
            raise Wrong("Your function also changed another product. What is the predicate of the update?")
        if not expected and shop.version():
            raise Wrong(f"{case} should not change the table, but your function made a commit.")


def _is(sold: object, expected: bool) -> bool:
    """Whether the learner's function returned `expected` itself, and not what only counts as true or false."""
    return isinstance(sold, bool | np.bool_) and bool(sold) is expected


def _check_other_errors(answer: Sell, lake: Lake) -> None:
    shop = _Shop(lake, 10)
    shop.forbid_sales()
    with suppress(DeltaError, Wrong):
        shop.call(answer, 3)
    if shop.pauses or shop.opened > _HANDLES_PER_ATTEMPT:
        raise Wrong(
            "A constraint of the table refuses the new quantity, and your function tries again. Catch only"
            " CommitFailedError: trying again does not help with any other error."
        )
    shop = _Shop(lake, 10, is_unreachable=True)
    try:
        shop.call(answer, 3)
    except OSError:
        return
    raise Wrong("open_table raised an OSError, and your function caught it. Catch only CommitFailedError.")


def _check_competition(answer: Sell, lake: Lake) -> None:
    for times in (1, 2):
        shop = _Shop(lake, 20, competitor_sells=5, times=times)
        if not _is(_sell_in_competition(answer, shop, times), True):
            raise Wrong("Another writer sold pieces, but enough were left. Your function should return True.")
        if shop.opened < times:
            raise Wrong(
                "Your function opened the table once. Call open_table in each attempt: here, the other writer sells"
                " at that moment."
            )
        if shop.quantity() != 17 - 5 * times:
            raise Wrong(
                f"There were 20 pieces, another writer sold {5 * times}, and you sold 3. That leaves {17 - 5 * times},"
                f" but the table says {shop.quantity()}: a sale is lost. The quantity must be read in each attempt,"
                " with the handle that updates."
            )
    shop = _Shop(lake, 10, competitor_sells=8, times=1)
    sold = _sell_in_competition(answer, shop, 1)
    if not _is(sold, False) or shop.quantity() != 2:
        raise Wrong(
            "There were 10 pieces, and another writer sold 8 before your commit. Your sale of 3 should return False,"
            f" but it returned {sold!r}, and the table says {shop.quantity()}. Check the quantity in each attempt."
        )


def _sell_in_competition(answer: Sell, shop: "_Shop", times: int) -> Any:  # noqa: ANN401 - what the function returns
    """Sell three pieces. Raises Wrong if the function raises the error of a conflict."""
    try:
        return shop.call(answer, 3)
    except CommitFailedError:
        if shop.opened == 1:
            raise Wrong(_OLD_HANDLE) from None
        raise Wrong(
            f"Another writer sold {'once' if times == 1 else 'twice'}, and your function raised the CommitFailedError"
            f" after {shop.attempts} attempts. It should make up to five."
        ) from None


def _check_bound(answer: Sell, lake: Lake) -> None:
    first, second = (_pauses_until_error(answer, lake) for _ in range(2))
    if first == second:
        raise Wrong(
            "Two calls made exactly the same pauses. Two writers that collided once would collide again: take a random"
            " number of seconds."
        )
    state = random.getstate()
    random.seed(_SEED_OF_HIGH_NUMBERS)  # so that pauses that can be too long are too long
    try:
        _pauses_until_error(answer, lake)
    finally:
        random.setstate(state)


def _pauses_until_error(answer: Sell, lake: Lake) -> list[float]:
    """The pauses of a call that is always refused, in seconds. Raises Wrong if there are too few, or if one is long."""
    shop = _Shop(lake, 100, competitor_sells=1, times=3 * _ATTEMPTS)
    try:
        shop.call(answer, 1)
    except CommitFailedError:
        pass
    else:
        raise Wrong(
            "Another writer is always faster. After the fifth attempt your function should raise the"
            " CommitFailedError, so that its caller knows that nothing was sold; it returned instead."
        )
    if shop.attempts != _ATTEMPTS:
        raise Wrong(f"Another writer is always faster. Your function made {shop.attempts} attempts instead of five.")
    if len(shop.pauses) != _ATTEMPTS - 1:
        raise Wrong(
            f"Five attempts have four pauses between them; your function made {len(shop.pauses)}. There is nothing"
            " to wait for after the last attempt."
        )
    if min(shop.pauses) < 0:
        raise Wrong(f"A pause cannot be shorter than 0 seconds; one was {min(shop.pauses):g} seconds.")
    if max(shop.pauses) > _LONGEST_PAUSE_S:
        raise Wrong(f"A pause should be up to 1 second; the longest was {max(shop.pauses):g} seconds.")
    return shop.pauses


class _EndlessLoop(BaseException):
    """Ends a function that catches every Exception and never gives up."""


class _Shop:
    """A new table with two products, and another writer that sells after each of the first `times` opens.

    If it `is_unreachable`, the first open raises an OSError.
    """

    def __init__(
        self, lake: Lake, quantity: int, *, competitor_sells: int = 0, times: int = 0, is_unreachable: bool = False
    ) -> None:
        self.opened = 0
        self.pauses: list[float] = []
        self._opened_at: set[int] = set()  # the number of pauses before each open
        self._lake, self._names = lake, ("exercises", f"stock-{secrets.token_hex(4)}")
        self._competitor_sells, self._times = competitor_sells, times
        self._is_unreachable = is_unreachable
        self._is_over = False
        rows = pa.table({"product_id": [_PRODUCT, _OTHER_PRODUCT], "quantity": [quantity, quantity]})
        write_deltalake(lake.uri(*self._names), rows, storage_options=lake.storage_options)

    @property
    def attempts(self) -> int:
        """How often the learner's function tried: all that it opens between two pauses is one attempt."""
        return len(self._opened_at) if self.pauses else self.opened

    def call(self, sell: Sell, pieces: int) -> Any:  # noqa: ANN401 - what the learner's function returns
        """Call the learner's function. Raises what it raises, and Wrong if it does not end.

        It runs in a thread, because a function that catches everything cannot be ended from outside: it is left behind.
        """
        returned, raised = list[Any](), list[BaseException]()

        def run() -> None:
            try:
                returned.append(sell(self.open, self.pause, _PRODUCT, pieces))
            except BaseException as error:  # noqa: BLE001 - it is raised again
                raised.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(_TIME_LIMIT_S)
        self._is_over = True
        if returned:
            return returned[0]
        if raised and not isinstance(raised[0], _EndlessLoop):
            raise raised[0]
        if self.opened == 1 and self._times:
            raise Wrong(_OLD_HANDLE)
        raise Wrong("Your function does not end. It should make five attempts at most.")

    def forbid_sales(self) -> None:
        """Add a constraint that every sale breaks."""
        open_table(self._lake, *self._names).alter.add_constraint({"not_for_sale": "quantity >= 10"})

    def open(self) -> DeltaTable:
        """What the learner's function gets as `open_table`."""
        self._require_time_left()
        self.opened += 1
        self._opened_at.add(len(self.pauses))
        if self.opened > 3 * _ATTEMPTS:
            raise _EndlessLoop
        if self._is_unreachable and self.opened == 1:
            raise OSError("the storage cannot be reached")
        table = open_table(self._lake, *self._names)
        if self.opened <= self._times:
            sold = {"quantity": f"quantity - {self._competitor_sells}"}
            open_table(self._lake, *self._names).update(sold, predicate=f"product_id = {_PRODUCT}")
        return table

    def pause(self, seconds: float) -> None:
        """What the learner's function gets as `pause`."""
        self._require_time_left()
        self.pauses.append(seconds)
        if len(self.pauses) > 3 * _ATTEMPTS:
            raise _EndlessLoop

    def _require_time_left(self) -> None:
        """Stop the thread of a function that has not ended in time: it sleeps from now on."""
        if self._is_over:
            threading.Event().wait()

    def version(self) -> int:
        """The newest version of the table; 0 if there was no sale."""
        return open_table(self._lake, *self._names).version()

    def quantity(self, product: int = _PRODUCT) -> int | None:
        """The pieces that the table says are left."""
        rows = open_table(self._lake, *self._names).to_pyarrow_table().to_pylist()
        return next((int(row["quantity"]) for row in rows if row["product_id"] == product), None)


@exercise("09.2", "List the orphans of a partitioned table", expects=(list, tuple))
def check_orphans(answer: list[Any], lake: Lake) -> Right:
    """The keys below shop/deliveries of the data files that no commit names, sorted."""
    folder = lake.key("shop", "deliveries", "")
    stored = {entry["Key"].removeprefix(folder): entry["Key"] for entry in lake.objects(folder)}
    logs = {name for name in stored if name.startswith("_delta_log/")}
    named = set()
    for name in logs:
        commit = lake.s3.get_object(Bucket=lake.bucket, Key=stored[name])["Body"].read().decode()
        for action in map(json.loads, commit.splitlines()):
            named |= {unquote(action[kind]["path"]) for kind in ("add", "remove") if kind in action}
    orphans, given = sorted(stored.keys() - logs - named), list(answer)
    if not all(isinstance(name, str) for name in given):
        raise Wrong("The list should contain keys as text, such as city=Porto/part-1.parquet.")
    if given == orphans:
        return Right(f"No commit names {', '.join(orphans)}.")
    _explain_orphans(given, orphans, stored.keys(), logs, set(open_table(lake, "shop", "deliveries").file_uris()))
    raise Wrong("The orphans are right, but the list should be sorted, with each of them once.")


def _explain_orphans(given: list[Any], orphans: list[str], stored: Any, logs: set[str], live: set[str]) -> None:  # noqa: ANN401
    if any(str(name).startswith("s3://") or "deliveries" in str(name) for name in given):
        raise Wrong("The keys should begin below the table's folder, as in city=Porto/part-1.parquet.")
    if logs & set(given):
        raise Wrong("The log's own files are in your list. They are not data files.")
    if nonexistent := sorted(set(given) - set(stored)):
        raise Wrong(f"The table's folder has no object {nonexistent[0]!r}. List the keys as S3 returns them.")
    if surplus := sorted(set(given) - set(orphans)):
        in_use = [name for name in surplus if any(uri.endswith(name.rpartition("/")[2]) for uri in live)]
        if in_use and all("%" in name for name in in_use):
            raise Wrong(
                "A live file is in your list: deleting it would lose rows. The log writes the path of New York in"
                " another way than the listing: it is URL-encoded, so decode it once. `file_uris()` is decoded already."
            )
        if in_use:
            raise Wrong(
                "A live file is in your list: deleting it would lose rows. Collect the paths of `add` actions too."
            )
        raise Wrong("A file in your list was removed by a later commit. Old versions need it, so it is not an orphan.")
    if missing := sorted(set(orphans) - set(given)):
        place = "in the table's folder itself" if "/" not in missing[0] else f"in {missing[0].partition('/')[0]}/"
        raise Wrong(f"{len(missing)} orphan{'s are' if len(missing) > 1 else ' is'} missing, one of them {place}.")


@exercise("09.3", "Find the commit that made a table wrong", expects=dict)
def check_wrong_commit(answer: dict[str, Any], lake: Lake) -> Right:
    """The version of the second compaction, and the surplus rows of the newest version."""
    if answer.keys() != {"version", "surplus"}:
        raise Wrong("The keys of the dict should be version and surplus.")
    if any(isinstance(value, str) for value in answer.values()):
        raise Wrong("Both values of the dict should be numbers.")
    newest = open_table(lake, "shop", "payments").version()
    ids = [_payment_ids(lake, version) for version in range(newest + 1)]
    surplus = [len(rows) - len(set(rows)) for rows in ids]
    # More than one, if the cell that makes the table was run again.
    wrong = [later for later in range(1, newest + 1) if surplus[later] > 0 == surplus[later - 1]]
    version, count = answer["version"], answer["surplus"]
    if version in wrong and count == surplus[-1]:
        return Right(
            f"Version {version} was based on version {version - 2}. Of its {surplus[version]} copies, {count} are left."
        )
    if version + 1 in wrong:
        raise Wrong(f"Version {version} is a compaction that is right: it changed no row. Count the rows after it.")
    if version not in wrong:
        raise Wrong("That is not the first version with a payment twice. Go through the versions from the start.")
    if count == surplus[version]:
        raise Wrong(
            f"{count} is the surplus in version {version}. A later commit deleted rows: count the newest version."
        )
    if count == len(ids[-1]):
        raise Wrong("That is the number of all rows. The surplus is the rows minus the distinct payments.")
    if count == 2 * surplus[-1]:
        raise Wrong("Those are all rows of payments that are there twice. One row of each is right.")
    raise Wrong("The version is right. The surplus is the rows minus the distinct payments, in the newest version.")


def _payment_ids(lake: Lake, version: int) -> list[int]:
    rows = open_table(lake, "shop", "payments", version=version).to_pyarrow_table()["payment_id"].to_pylist()
    return [int(id) for id in rows]
