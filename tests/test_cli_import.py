"""`distill import` as a user meets it: real processes, what is printed where, exit codes, and the stages after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from exchange.material import FIXTURES
from hub_server import serving
from test_cli import distill

from distill.rundir import RunDir


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "sys.argv = ['distill', 'import', '--help']\n"
        "from distill import cli\n"
        "with contextlib.suppress(SystemExit):\n"
        "    cli.main()\n"
        "heavy = ('torch', 'transformers', 'datasets', 'pyarrow', 'yaml', 'math_verify')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert "distill import open-r1/OpenR1-Math-220k" in " ".join(result.stdout.split())


def test_importing_files_here_starts_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from distill.exchange.importing import Options, import_places\n"
        "from distill.exchange.dataset_files import files_of\n"
        "from distill.rundir import RunDir\n"
        "import_places(RunDir(sys.argv[1]), files_of([sys.argv[2]]), Options())\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'math_verify') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(FIXTURES / "messages.jsonl")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_whole_way_by_commands(tmp_path: Path) -> None:
    run, file = tmp_path / "run", FIXTURES / "openr1-math.jsonl"
    told = distill("import", file, "--out", run)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0] == "23 rows read (openr1-math 23): 29 traces added, 1 there already; 18 prompts added"
    listing = run / "imported" / "unreadable.jsonl"
    assert lines[1] == f"not taken over: 2 no_reply, 1 no_question, 1 not_text; listed in {listing}"
    assert "29 imported traces of 18 prompts" in told.stdout
    again = distill("import", file, "--out", run, "--json")
    result = json.loads(again.stdout)
    assert result["import"]["traces"] == 0
    assert result["import"]["already_there"] == 30
    assert result["import"]["teachers"] == {"deepseek-ai/DeepSeek-R1": 29}
    assert result["stages"]["generate"]["counts"]["imported"] == 29
    kept = distill("filter", run)
    assert kept.returncode == 0, kept.stderr
    assert "17 of 29 traces kept" in kept.stdout
    shown = distill("show", run, "--rejected", "--reason", "truncated")
    assert shown.stdout.count("truncated") == 3
    assert "0 of 29 traces read differently now" in distill("reparse", run).stdout
    more = distill(
        "import", FIXTURES / "sharegpt.jsonl", "--out", run, "--teacher", "org/x", "--set", "filter.keep=all"
    )
    assert more.returncode == 0, more.stderr
    assert "filter" in RunDir(run).stages(), "what was done after stays, and is done again when asked for"
    assert "keep: all" in (run / "recipe.yaml").read_text()
    assert "model: 'several: deepseek-ai/DeepSeek-R1, org/x'" in (run / "recipe.yaml").read_text()


def test_a_set_is_imported_from_the_hub(tmp_path: Path) -> None:
    """By its id, from a Hub on loopback: the card names the files, the client reads them in pieces."""
    folder = tmp_path / "hub" / "open-r1" / "OpenR1-Math-220k"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- {config_name: default, data_files: [{split: train, path: data/train-*}]}\n"
        "- {config_name: extended, data_files: [{split: train, path: extended/train-*}]}\n---\n"
    )
    (folder / "data" / "train-0.jsonl").write_bytes((FIXTURES / "openr1-math.jsonl").read_bytes())
    with serving(tmp_path / "hub") as hub:
        env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        command = [sys.executable, "-m", "distill.cli", "import", "open-r1/OpenR1-Math-220k", "--out", tmp_path / "run"]
        runs = [
            subprocess.run([*command, *options], env=env, capture_output=True, text=True, check=False)
            for options in (("--config", "default"), (), ("--config", "extnded"))
        ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert "29 traces added, 1 there already; 18 prompts added" in runs[0].stdout
    assert "0 traces added, 30 there already" in runs[1].stdout, "by default the configuration that is called default"
    assert runs[2].returncode == 1
    assert "open-r1/OpenR1-Math-220k has no config 'extnded'" in runs[2].stderr
    assert "'default', 'extended'" in runs[2].stderr


def test_what_goes_wrong_says_so_and_sets_the_exit_code(tmp_path: Path) -> None:
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"colour": "red"}\n')
    cases = (
        ((odd,), 1, "no known layout has these columns"),
        ((tmp_path / "gone.jsonl",), 1, "there is no file or folder"),
        (("nobody/nothing-at-all",), 1, "the Hugging Face Hub cannot be reached for nobody/nothing-at-all"),
        ((FIXTURES / "messages.jsonl", "--layout", "sharegtp"), 2, "did you mean 'sharegpt'"),
        ((FIXTURES / "messages.jsonl", "--layout", "sharegpt"), 1, "not of the layout sharegpt"),
        ((FIXTURES / "messages.jsonl", "--split", "train"), 2, "are of a dataset"),
        ((FIXTURES / "messages.jsonl", "--set", "filter.kep=all"), 2, "did you mean"),
        ((FIXTURES / "messages.jsonl", "--limit", "0"), 2, "Invalid value for '--limit'"),
    )
    for arguments, code, told in cases:
        result = distill("import", *arguments, "--out", tmp_path / "run")
        assert result.returncode == code, result.stderr
        assert told in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
