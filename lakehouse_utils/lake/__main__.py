"""`python -m lakehouse_utils.lake`: SQL that opens the lake in another DuckDB, such as its command line.

The SQL has no keys: DuckDB's command line takes them from the environment, with getenv.
"""

from collections.abc import Iterator

import click

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.lake import extension_file


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
    for ref in lake.tables():
        layer, table = (f'"{name.replace(chr(34), chr(34) * 2)}"' for name in ref.names)
        yield f"CREATE SCHEMA IF NOT EXISTS {layer};"
        yield f"CREATE VIEW {layer}.{table} AS FROM delta_scan({_quoted(ref.uri)});"


def _quoted(value: object) -> str:
    text = str(value).replace("'", "''")
    return f"'{text}'"


if __name__ == "__main__":
    main(prog_name="python -m lakehouse_utils.lake")
