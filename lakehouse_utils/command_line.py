"""What the command lines of the two local servers share."""

from typing import Any

import click

from lakehouse_utils.errors import LakehouseError


class CommandGroup(click.Group):
    """A group of commands that prints a LakehouseError as one line, without a traceback, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in click
        """Run the chosen command. Raises ClickException for a LakehouseError."""
        try:
            return super().invoke(ctx)
        except LakehouseError as error:
            raise click.ClickException(str(error)) from None
