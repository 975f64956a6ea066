"""Draws the README's pictures from a finished run: the end of the command with a chat, and the report's first screen.

python benchmarks/pictures.py --run runs/quickstart      # `make pictures`, needs Chromium (`make browser`)
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from distill import specs
from distill.prompts.stage import evaluation_problems
from distill.rundir import RunDir
from distill.show import closing_lines

IMAGES = Path("docs/images")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1_280, 1_060


def terminal(run: RunDir) -> str:
    """An SVG of what the command printed at its end, and of one question to the student."""
    console = Console(record=True, width=118, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print("[bold green]$[/] make quickstart")
    console.print("[dim]…[/]")
    for line in closing_lines(run, specs.STAGES):
        console.print(Text(line))
    question = evaluation_problems(specs.recipe("quickstart"), ())[0].text
    console.print(f'[bold green]$[/] distill chat {run.path} "{question}"')
    command = [sys.executable, "-m", "distill.cli", "chat", str(run.path), question, "--seed", "1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    reasoning, _, answer = said.partition("</think>")
    console.print(Text(reasoning + "</think>", style="dim"))
    console.print(Text(answer.strip()))
    svg = console.export_svg(title="distill", clear=False)
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no font from the net: any monospace will do


def screenshot(report: Path, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        raise SystemExit("no Chromium here: `make browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.resolve().as_uri())
        page.screenshot(path=out)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    run = RunDir(parser.parse_args().run)
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / "terminal.svg").write_text(terminal(run), encoding="utf-8")
    screenshot(run.report, IMAGES / "report.png")
    print(f"{IMAGES / 'terminal.svg'} and {IMAGES / 'report.png'}")


if __name__ == "__main__":
    main()
