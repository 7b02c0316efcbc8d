"""`python -m lakehouse_utils.lake`: SQL that opens the lake in another DuckDB, such as its command line.

The SQL has no keys: DuckDB's command line takes them from the environment, with getenv.
"""

from collections.abc import Iterator

import click
from deltalake.exceptions import DeltaError

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake, TableRef, compatibility
from lakehouse_utils.lake.lake import extension_file

_NAMES_OF_DUCKDB = {"main", "temp", "system", "memory", "information_schema", "pg_catalog"}


@click.command()
@click.option("--lake", "lake_uri", metavar="s3://...", help="Address of the tables.  [default: as for the job]")
def main(lake_uri: str | None) -> None:
    """Print SQL for DuckDB's command line: it loads the extensions and creates a view for each table of the lake."""
    try:
        click.echo("\n".join(statements(Lake.open(lake_uri))))
    except LakehouseError as error:
        raise click.ClickException(str(error)) from None


def statements(lake: Lake) -> Iterator[str]:
    """The statements, in order. Raises StorageError if the lake cannot be listed."""
    for name in ("httpfs", "delta"):
        file = extension_file(name)
        yield f"LOAD {_quoted(file)};" if file else f"INSTALL {name}; LOAD {name};"
    scheme, _, host = lake.endpoint.partition("://")
    yield "SET TimeZone = 'UTC';"
    yield (
        f"CREATE SECRET lake (TYPE s3, SCOPE {_quoted(f's3://{lake.bucket}')}, KEY_ID getenv('AWS_ACCESS_KEY_ID'),"
        " SECRET getenv('AWS_SECRET_ACCESS_KEY'), SESSION_TOKEN getenv('AWS_SESSION_TOKEN'),"
        f" REGION {_quoted(lake.region)}, ENDPOINT {_quoted(host)}, URL_STYLE 'path', USE_SSL {scheme == 'https'});"
    )
    names = set[str]()
    for ref in lake.tables():
        if problem := _why_no_view(ref, names):
            yield f"-- {ref.uri} has no view: {problem}"
            continue
        layer, table = (f'"{name.replace(chr(34), chr(34) * 2)}"' for name in ref.names)
        yield f"CREATE SCHEMA IF NOT EXISTS {layer};"
        yield f"CREATE VIEW {layer}.{table} AS FROM delta_scan({_quoted(ref.uri)});"


def _why_no_view(ref: TableRef, names: set[str]) -> str | None:
    """Why a view would fail, and DuckDB would then ignore the rest of the file; None if it would not."""
    if ref.label.lower() in names or ref.names[0].lower() in _NAMES_OF_DUCKDB:
        return "DuckDB has this name already"
    try:
        if (table := ref.open()) is not None and (problem := compatibility.check(table, "duckdb")):
            return problem.cause
    except LakehouseError as error:
        return " ".join(str(error).split())
    except DeltaError as error:
        return str(error).splitlines()[0]
    names.add(ref.label.lower())
    return None


def _quoted(value: object) -> str:
    text = str(value).replace("'", "''")
    return f"'{text}'"


if __name__ == "__main__":
    main(prog_name="python -m lakehouse_utils.lake")
