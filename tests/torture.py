"""The whole job under disturbance, many times over: `make torture`, or `make torture ARGS="kill --rounds 12"`.

Each round delivers a small shop to an empty lake in two parts, disturbs the job in each part, and then runs it once
more. The tables must be as `support/expected.py` computes them, and a further run must find nothing to do.

    kill        the job is killed three times in each part, each time before a write chosen at random
    server      the S3 server is killed while the job runs
    faults      a share of the requests (--rate) gets no answer, a cut-off answer, or an error that passes
    concurrent  three jobs run at the same time
    conflicts   another writer commits just before one of every two commits of the job: a commit without rows, a
                compaction, or, once a part, a complete job
    restore     between the parts, four tables are restored to an earlier version

A round that fails prints its number and the difference; `--seed` repeats it. These rounds take too long for `make
test-all`, which has a few of each kind.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support import crashes, expected, faults, lakes
from support.s3_proxy import proxy_to

from lakehouse_utils import embedded_s3, sample_data
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import sources

SCALE = 0.05
COMMIT_PATH = re.compile(r"(?P<table>[^/]+/[^/]+)/_delta_log/(?P<version>\d{20})\.json$")


class Round:
    """One lake and the deliveries to it. `disturbances` counts what was done to the job."""

    def __init__(self, folder: Path, shop: Path, seed: int, rate: float) -> None:
        self.random = random.Random(seed)
        self.rate = rate
        self.shop = shop
        self.state_dir = folder / "server"
        self.server = embedded_s3.ensure(self.state_dir)
        self.lake = lakes.at(f"{self.server.uri}/{uuid.uuid4().hex}", self.state_dir)
        self.landing = folder / "landing"
        self.output = folder / "output"
        self.report = folder / "report.json"
        self.disturbances: Counter[str] = Counter()

    @property
    def arguments(self) -> list[str]:
        return list(map(str, ["--lake", self.lake.root, "--landing", self.landing, "--quiet", "--report", self.report]))

    @property
    def keys(self) -> dict[str, str]:
        """See the function."""
        return lakes.environment_with_keys(self.server, self.state_dir)

    def run(self, disturb: Callable[["Round"], None]) -> str:
        """Returns what is wrong at the end; empty if nothing is."""
        days = sorted(path.name for path in self.shop.iterdir())
        split = self.random.randint(1, len(days) - 1)
        shutil.rmtree(self.landing, ignore_errors=True)
        for part in (days[:split], days[split:]):
            for day in part:
                shutil.copytree(self.shop / day, self.landing / day)
            disturb(self)
            if code := crashes.run(self.arguments, lakes.environment(self.state_dir), self.output):
                return f"the last run ended with {code}: {self.output.read_text()[-500:]}"
        if different := lakes.unlike(self.lake, expected.tables(self.landing, sources.SHOP)):
            return f"not as expected at {self.lake.root}: {different}"
        before = lakes.versions(self.lake)
        crashes.run(self.arguments, lakes.environment(self.state_dir), self.output)
        return "" if lakes.versions(self.lake) == before else "a further run made commits"

    def require(self, code: int) -> None:
        if code:
            raise AssertionError(f"a job ended with {code}: {self.output.read_text()[-500:]}")


def kill(round_: Round) -> None:
    with crashes.Proxy.to(round_.server.endpoint) as proxy:
        for _ in range(3):
            at = round_.random.randint(1, 40)
            code = proxy.run(at, round_.arguments, round_.keys, round_.output)
            round_.disturbances["kills" if code == -9 else "finished before"] += 1


def kill_server(round_: Round) -> None:
    environment = lakes.environment(round_.state_dir)
    process = crashes.start(round_.arguments, environment, round_.output)
    time.sleep(round_.random.uniform(0.5, 4))
    if process.is_alive():
        os.kill(int((round_.state_dir / "s3" / "pid").read_text()), signal.SIGKILL)
        round_.disturbances["kills of the server"] += 1
    process.join()
    embedded_s3.ensure(round_.state_dir)
    round_.require(process.exitcode)


def faulty(round_: Round) -> None:
    with faults.proxy(round_.server.endpoint, round_.rate, round_.random.randrange(1 << 30)) as proxy:
        environment = round_.keys | {"AWS_ENDPOINT_URL": proxy.endpoint}
        round_.require(crashes.run(round_.arguments, environment, round_.output))
    round_.disturbances["faults"] += sum(proxy.counts[kind] for kind in faults.KINDS)
    added = json.loads(round_.report.read_text())["rows"]
    for label in (name for name in added if name.startswith("bronze")):
        table = round_.lake.delta(*label.split("."))
        if added[label]["version"] != table.version():
            raise AssertionError(f"the report names version {added[label]['version']} of {label}")


def run_concurrently(round_: Round) -> None:
    environment = lakes.environment(round_.state_dir)
    outputs = [round_.output.with_name(f"output{number}") for number in range(3)]
    jobs = [crashes.start(round_.arguments, environment, output) for output in outputs]
    for job, output in zip(jobs, outputs, strict=True):
        job.join()
        shutil.copy(output, round_.output)
        round_.require(job.exitcode)
    round_.disturbances["jobs"] += len(jobs)


def force_conflicts(round_: Round) -> None:
    chooser, may_run_a_job = random.Random(round_.random.random()), [True]
    competitor = lakes.at(round_.lake.root, round_.state_dir)

    def commit_first(method: str, path: str) -> None:
        match = COMMIT_PATH.search(path.partition("?")[0])
        if method != "PUT" or not match or chooser.random() < 0.5:
            return
        name, version = match["table"].split("/"), int(match["version"])
        if may_run_a_job.pop() if may_run_a_job and chooser.random() < 0.1 else False:
            output = round_.output.with_name("competitor")
            crashes.run(round_.arguments, lakes.environment(round_.state_dir), output)
        elif version:
            compete(competitor, name, compact=chooser.random() < 0.5)
        table = competitor.delta(*name)
        if table is not None and table.version() >= version:
            round_.disturbances["conflicts"] += 1

    with proxy_to(round_.server.endpoint, commit_first) as endpoint:
        round_.require(crashes.run(round_.arguments, round_.keys | {"AWS_ENDPOINT_URL": endpoint}, round_.output))


def compete(lake: Lake, name: list[str], *, compact: bool) -> None:
    table = lake.delta(*name)
    version = table.version()
    if compact:
        table.optimize.compact()
    if table.version() == version:
        table.create_write_transaction([], "append", table.schema())


def restore(round_: Round) -> None:
    names = lakes.names(round_.lake)
    for label in round_.random.sample(names, min(4, len(names))):
        table = round_.lake.delta(*label.split("."))
        if table.version() > 1:
            table.restore(round_.random.randint(0, table.version() - 1))
            round_.disturbances["restores"] += 1
    round_.require(crashes.run(round_.arguments, lakes.environment(round_.state_dir), round_.output))


KINDS = {
    "kill": kill,
    "server": kill_server,
    "faults": faulty,
    "concurrent": run_concurrently,
    "conflicts": force_conflicts,
    "restore": restore,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", default=list(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further round adds 1")
    parser.add_argument("--rate", type=float, default=0.05, help="share of the requests with a fault")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - KINDS.keys():
        parser.error(f"no kind is called {', '.join(sorted(unknown))}")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="lakehouse-torture-") as folder:
        shop = Path(folder) / "shop"
        sample_data.generate(shop, SCALE)
        try:
            for kind in arguments.kinds:
                wrong += run_rounds(kind, Path(folder), shop, arguments)
        finally:
            embedded_s3.stop(Path(folder) / "server")
    raise SystemExit(f"{wrong} rounds were wrong." if wrong else 0)


def run_rounds(kind: str, folder: Path, shop: Path, arguments: argparse.Namespace) -> int:
    done, wrong, started = Counter[str](), 0, time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        round_ = Round(folder, shop, seed, arguments.rate)
        try:
            problem = round_.run(KINDS[kind])
        except AssertionError as error:
            problem = str(error)
        done += round_.disturbances
        wrong += bool(problem)
        if problem:
            print(f"{kind}, seed {seed}: {problem}", flush=True)
    counts = ", ".join(f"{count} {name}" for name, count in done.items())
    seconds = time.monotonic() - started
    print(f"{kind}: {arguments.rounds} rounds, {counts}, {wrong} wrong, {seconds:.0f} s", flush=True)
    return wrong


if __name__ == "__main__":
    main()
