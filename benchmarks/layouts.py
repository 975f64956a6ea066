"""Writes the table of layouts into docs/serve.md: every shipped teacher with known weights on usual machines.

python benchmarks/layouts.py           # writes it
python benchmarks/layouts.py --check   # exit code 1 when it is not current
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from distill import specs
from distill.accelerators import parse_hardware
from distill.errors import UsageError
from distill.serve.layout import Layout, choose, length_of
from distill.serve_specs import ServeSettings
from distill.teacher_sizes import ServedSizes

DOC = Path(__file__).resolve().parent.parent / "docs" / "serve.md"
BEGIN, END = "<!-- layouts: written by benchmarks/layouts.py -->\n", "<!-- end of layouts -->"
MACHINES = ("8xH200", "2x8xH100", "8xH100", "4xB200", "1xH100", "1xRTX4090")


def cell(layout: Layout) -> str:
    split = layout.split
    parts = (("T", split.tensor), ("P", split.pipeline), ("D", split.data))
    words = "".join(f"{name}{count}" for name, count in parts if count > 1) + ("E" if split.expert_parallel else "")
    return f"{layout.replicas} × {words or '1 GPU'}, {layout.total_tokens / 1e6:.2g}M"


def table() -> str:
    lines = [f"| teacher | GB | KV B/token | {' | '.join(MACHINES)} |", "|---" * (3 + len(MACHINES)) + "|"]
    for name in specs.names("teachers"):
        spec = specs.teacher(name)
        if spec.architecture is None:
            continue
        sizes, found = ServedSizes.of(spec), []
        for text in MACHINES:
            hardware, settings = parse_hardware(text), ServeSettings()
            assert hardware is not None
            length = length_of(settings, spec.max_tokens, spec.context_length, name)
            try:
                found.append(cell(choose(name, sizes, hardware, settings, length)))
            except UsageError:
                found.append("–")
        weights = f"{sizes.file_bytes / 1e9:.1f}"
        lines.append(f"| {name} | {weights} | {sizes.kv_bytes_per_token():,} | {' | '.join(found)} |")
    lines.append("\nT tensor, P pipeline, D data, E expert parallel; –: does not fit.")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = DOC.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}{table()}{END}{after}"
    if options.check:
        if wanted != text:
            print("docs/serve.md is not current: run python benchmarks/layouts.py")
        return int(wanted != text)
    DOC.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
