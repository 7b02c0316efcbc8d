"""All quick benchmarks in small sizes, and one table at the end: seconds, limit, ratio and goal of each.

    python benchmarks/summary.py --rows 1000000 --scale 20 --runs 3

`engines.py` and `silver_merge.py` take much longer: run them on their own.
"""

import argparse
import statistics

import csv_to_bronze
import first_load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="order lines")
    parser.add_argument("--scale", type=float, default=20, help="size of the whole job; 1 is about 1,600 orders")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    first_load.print_table(
        [
            *bronze(arguments.rows, arguments.runs),
            *first_load.measure_silver(arguments.rows, arguments.runs),
            *first_load.measure_job(arguments.scale, arguments.runs),
        ]
    )


def bronze(rows: int, runs: int) -> list[first_load.Result]:
    """CSV to bronze, against Polars."""
    figures = csv_to_bronze.compare(rows, runs)

    def median(name: str, key: str) -> float:
        return statistics.median(run[key] for run in figures[name])

    seconds, peak_mb = median("pipeline", "seconds"), median("pipeline", "peak_mb")
    return [
        first_load.Result(
            f"bronze, {rows:,} order lines: {limit}",
            seconds,
            median(limit, "seconds"),
            csv_to_bronze.median_ratio(figures, limit),
            None,
            1.0,
            peak_mb,
        )
        for limit in list(figures)[1:]
    ]


if __name__ == "__main__":
    main()
