"""The parameters that several commands share, as typer reads them."""

from __future__ import annotations

from typing import Annotated

import typer

Models = Annotated[
    list[str] | None, typer.Argument(metavar="[MODEL]...", help="name[:tag], id:PREFIX, 'glob*', - or @file.")
]
SomeModels = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="name[:tag], id:PREFIX, 'glob*', - or @file.")
]
OneModel = Annotated[str, typer.Argument(metavar="MODEL", help="name[:tag] or id:PREFIX.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would happen.")]
On = Annotated[str, typer.Option("--on", metavar="PLACE", help="In which place: host, gpu, gpu:N or gpu:UUID.")]
Filter = Annotated[
    list[str] | None, typer.Option("--filter", metavar="EXPR", help="Only those that pass, like size>1GiB; repeatable.")
]
Sort = Annotated[str | None, typer.Option("--sort", metavar="KEY[:desc]", help="Order by a column.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", help="At most so many.")]
