from __future__ import annotations
from typing import Annotated
import typer
def command(directory: Annotated[str, typer.Argument(metavar="[DIR]", help="bla")] = ".", json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, n: Annotated[int, typer.Option(metavar="N", help="count")] = 3) -> int:
    """List recordings in this directory or any other that you can name
    and then go on.

    \b
    Examples:
      vmrec ls
      vmrec ls --json
    """
    return 1
