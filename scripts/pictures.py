"""Makes the README's pictures from a finished run: the report (with a Chromium on the PATH) and the live progress.

python scripts/pictures.py runs/demo
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from mmsearch.cli.progress import Plan, render
from mmsearch.search.journal import read_events

DOCS = Path(__file__).parents[1] / "docs"
SHARE = 0.35
"""The moment of the run that the progress shows, as a share of its events."""


def progress(run: Path) -> None:
    events = read_events(run)
    moment = events[: int(SHARE * len(events))]
    plan = Plan.of(run)
    plan = Plan(f"runs/{run.name}", plan.trials, plan.seeds, plan.time_budget)
    console = Console(record=True, width=104, file=io.StringIO())
    console.print(render(moment, plan, now=moment[-1]["time"]))
    svg = console.export_svg(title="python -m mmsearch.sweep --dataset demo")
    # rich names fonts on a server; a picture asks nobody for anything.
    (DOCS / "progress.svg").write_text(re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL))


def report(run: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("error: the picture of the report needs chromium on the PATH")
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
        target = DOCS / "report.png"
        page = Path(profile) / "report.html"
        page.write_text((run / "report.html").read_text().replace(str(run.absolute()), f"runs/{run.name}"))
        command = [browser, *flags, f"--user-data-dir={profile}", "--window-size=1280,1500", f"--screenshot={target}"]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    DOCS.mkdir(exist_ok=True)
    progress(run)
    report(run)
    print(f"{DOCS / 'progress.svg'}\n{DOCS / 'report.png'}")


if __name__ == "__main__":
    main()
