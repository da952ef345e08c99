"""Draw docs/terminal.svg and the READMEs' output from an experiment that ran here; nothing by hand.

make demo && make picture
"""

import asyncio
import re
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from datatunerx.cli.connect import settings
from datatunerx.cli.experiment import platform
from datatunerx.cli.follow import Place, Report, draw, report
from datatunerx.cli.verdict import Winner

ROOT = Path(__file__).resolve().parent.parent
SHOWN_HOME = "~/.dtx"
WIDTH = 110


async def gather(name: str) -> tuple[Report, Place]:
    """The report, with the home folder as everybody has it."""
    found = settings()
    async with platform(found) as (api, _):
        place = Place(name, "default", found.kubeconfig, embedded=True)
        told = await report(api, place)
    winner = told.winner
    if winner is not None:
        shown = [text.replace(str(found.home), SHOWN_HOME) for text in (winner.base, winner.adapter)]
        winner = Winner(*shown)
    return replace(told, winner=winner), replace(place, kubeconfig=Path(SHOWN_HOME) / "kubeconfig")


def main(name: str) -> None:
    told, place = asyncio.run(gather(name))
    console = Console(record=True, width=WIDTH, force_terminal=True, highlight=False)
    draw(told, place, console)
    text = "\n".join(line.rstrip() for line in console.export_text(clear=False).splitlines()).strip()
    # without the web fonts: a picture in a README should fetch nothing
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="make demo"), flags=re.DOTALL)
    (ROOT / "docs" / "terminal.svg").write_text(svg)
    block = f"<!-- demo begin -->\n```\n{text}\n```\n<!-- demo end -->"
    for readme in ("README.md", "README.zh-CN.md"):
        path = ROOT / readme
        before, _, rest = path.read_text().partition("<!-- demo begin -->")
        path.write_text(before + block + rest.partition("<!-- demo end -->")[2])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "support-tickets")
