"""The command line: parse, call one function, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from distill import __version__, errors

if TYPE_CHECKING:
    from distill.rundir import RunDir
    from distill.specs import Recipe

app = typer.Typer(
    name="distill",
    help="Turns a large reasoning teacher into small students: generate, filter, train, evaluate, quantize.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Settings = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; may be given several times."),
]
Out = Annotated[Optional[Path], typer.Option("--out", metavar="RUN", help="Run directory (default: runs/NAME).")]  # noqa: UP045
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def _allow_unsandboxed(given: bool) -> None:
    if given:
        from distill.verify.sandbox import ALLOW_VARIABLE

        os.environ[ALLOW_VARIABLE] = "1"  # for this command and its worker processes; a recipe cannot ask for it


Unsandboxed = Annotated[
    bool,
    typer.Option(
        "--allow-unsandboxed",
        callback=_allow_unsandboxed,
        help="Run programs of answers even where there is no sandbox: they can do what you can do.",
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]

_debug = False


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    global _debug
    _debug = debug
    if version:
        typer.echo(f"distill {__version__}")
        raise typer.Exit


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")],
    out: Out = None,
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="Start here, again even if it is done.")] = "",
    last: Annotated[str, typer.Option("--until", metavar="STAGE", help="End with this stage.")] = "",
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and leave.")] = False,
    unsandboxed: Unsandboxed = False,
    as_json: Json = False,
) -> None:
    """The whole way, from prompts to a report. Goes on where an earlier start of it ended.

    Example: distill run quickstart --set student=tiny-llama --out runs/llama
    """
    from distill import compose, pipeline, specs

    chosen = specs.recipe(recipe, specs.overrides(settings or []))
    place = compose.run_dir(out, chosen.name)
    begin, end = first or specs.STAGES[0], last or specs.STAGES[-1]
    if dry_run:
        states = pipeline.plan(chosen, place, begin, end)
        _print(
            {"run": str(place.path), "stages": states}, [f"{name}: {state}" for name, state in states.items()], as_json
        )
        return
    _run(chosen, place, as_json, first=begin, last=end, force=bool(first))


@app.command()
def generate(
    prompts: Annotated[
        str, typer.Option(metavar="SOURCE|FILE", help="A prompt source, or a JSONL, Parquet or CSV file.")
    ],
    teacher: Annotated[str, typer.Option(metavar="SPEC|URL", help="A teacher spec, or an OpenAI-compatible server.")],
    model: Annotated[Optional[str], typer.Option(help="The model's name at the server.")] = None,  # noqa: UP045
    samples: Annotated[int, typer.Option(help="Samples per prompt.")] = 1,
    limit: Annotated[Optional[int], typer.Option(help="At most this many prompts.")] = None,  # noqa: UP045
    max_tokens: Annotated[Optional[int], typer.Option(help="Tokens per reply (default: the teacher's).")] = None,  # noqa: UP045
    url: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="URL", help="A server of the teacher; repeatable, the first may stand in --teacher."),
    ] = None,
    endpoints: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="A JSON file of servers, followed while it changes."),
    ] = None,
    concurrency: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Requests in flight at each server to begin with."),
    ] = None,
    until_correct: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="K", min=1, help="Ask again only while fewer than K answers of a prompt are right."),
    ] = None,
    slice_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="Long replies in durable slices of N tokens."),
    ] = None,
    continue_truncated: Annotated[
        bool, typer.Option("--continue-truncated", help="Go on with replies that a lower limit cut.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask for samples that failed, and nothing else.")
    ] = False,
    shard: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="I/N", help="Only the I-th of N parts of the prompts; `distill merge` joins them."),
    ] = None,
    max_tokens_total: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="Stop before the run has paid for more tokens than this."),
    ] = None,
    max_cost: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="X", help="Stop before it has cost more, by the teacher's price."),
    ] = None,
    max_hours: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="H", help="Ask for nothing new after H hours."),
    ] = None,
    reuse: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(metavar="RUN", help="Take over traces of another run that apply; repeatable."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every stored trace first; damaged files are put aside.")
    ] = False,
    out: Out = None,
    settings: Settings = None,
    unsandboxed: Unsandboxed = False,
    as_json: Json = False,
) -> None:
    """Sample a teacher. The same command again asks only for what is missing.

    Example: distill generate --prompts arithmetic --teacher tiny-r1 --samples 2 --limit 100 --out runs/mine
    """
    from distill import compose, pipeline
    from distill.generate.before import put_aside_damage, take_over

    how = {
        "endpoints": endpoints,
        "concurrency": concurrency,
        "until_correct": until_correct,
        "slice_tokens": slice_tokens,
        "continue_truncated": continue_truncated or None,
        "retry_failed": retry_failed or None,
        "shard": shard,
        "max_tokens_total": max_tokens_total,
        "max_cost": max_cost,
        "max_hours": max_hours,
    }
    chosen = compose.generate_recipe(
        prompts,
        teacher,
        model=model,
        samples=samples,
        limit=limit,
        max_tokens=max_tokens,
        settings=settings or [],
        out=out,
        urls=url or [],
        how=how,
    )
    place = compose.run_dir(out, Path(prompts).stem)
    if verify:
        put_aside_damage(place)
    if reuse:
        pipeline.run_recipe(chosen, place, last="prompts")
        take_over(reuse, place, chosen)
    _run(chosen, place, as_json, last="generate")


@app.command(name="import")
def import_(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE|DATASET...", help="Files, folders, or a dataset's id on the Hub.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Run directory; a second import adds to it.")],
    layout: Annotated[
        str | None, typer.Option(metavar="NAME", help="Form of the rows (default: seen by their columns).")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who wrote the traces, whatever the set says.")
    ] = None,
    config: Annotated[Optional[str], typer.Option(help="The dataset's configuration.")] = None,  # noqa: UP045
    split: Annotated[Optional[str], typer.Option(help="One split of the dataset (default: all).")] = None,  # noqa: UP045
    revision: Annotated[Optional[str], typer.Option(help="Commit or branch of a dataset on the Hub.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(min=1, help="At most this many rows.")] = None,  # noqa: UP045
    keep_tool_output: Annotated[
        bool, typer.Option("--keep-tool-output", help="Also traces with code and its output inside.")
    ] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Take published or exported traces over into a run; filter and train then need no teacher.

    Layouts: see docs/traces.md. Example: distill import open-r1/OpenR1-Math-220k --limit 1000 --out runs/openr1
    """
    from distill import compose, pipeline
    from distill.exchange.dataset_files import files_of
    from distill.exchange.importing import Options, import_places
    from distill.rundir import RunDir
    from distill.show import closing_lines

    place = RunDir(out)
    base = compose.import_base(place)
    compose.import_recipe(place, base, {}, settings or [])  # a wrong setting shows before anything is read
    files = files_of(sources, config=config, split=split, revision=revision)
    found = import_places(place, files, Options(layout, teacher, limit, keep_tool_output))
    chosen = compose.import_recipe(place, base, found.teachers, settings or [])
    compose.keep_recipe(place, chosen)
    pipeline.run_recipe(chosen, place, last="generate")
    manifest = json.loads(place.manifest.read_text(encoding="utf-8"))
    lines = [*found.lines(place), *closing_lines(place, ("generate",))]
    _print({"run": str(place.path), "import": found.counts(), **manifest}, lines, as_json)


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs of one recipe, such as its shards.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The run that they become; they stay as they are.")],
    as_json: Json = False,
) -> None:
    """Make one run of several that share a recipe: what several machines sampled. Says what is still missing.

    Example: distill merge runs/a runs/b --out runs/all
    """
    from distill.pipeline import merge as merge_runs
    from distill.rundir import RunDir

    merged = merge_runs([RunDir(path) for path in runs], RunDir(out))
    _print({"run": str(out), **merged.counts()}, list(merged.lines()), as_json)


@app.command(name="filter")
def filter_(
    run: Run,
    settings: Settings = None,
    unsandboxed: Unsandboxed = False,
    as_json: Json = False,
) -> None:
    """Judge a run's traces and choose what is trained on. What was judged before is not judged again.

    Example: distill filter runs/mine --set 'filter.keep=correct and not loop.fail' --set filter.select.per_prompt=4
    """
    from distill import compose
    from distill.rundir import RunDir

    place = RunDir(run)
    chosen = compose.changed_recipe(place, settings or [])
    _run(chosen, place, as_json, first="filter", last="filter", force=True)


@app.command()
def train(
    run: Run,
    student: Annotated[Optional[str], typer.Option(metavar="SPEC", help="A student spec (default: the run's).")] = None,  # noqa: UP045
    check: Annotated[
        bool, typer.Option("--check", help="Only prove the contract on real traces; train nothing.")
    ] = False,
    gpus: Annotated[Optional[int], typer.Option(min=1, help="GPUs of each machine (default: the run's).")] = None,  # noqa: UP045
    nodes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Machines; alone it prints the command for each of them."),
    ] = None,
    node_rank: Annotated[Optional[int], typer.Option(min=0, help="Which of the machines this is.")] = None,  # noqa: UP045
    master: Annotated[Optional[str], typer.Option(metavar="HOST:PORT", help="The first machine.")] = None,  # noqa: UP045
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a student on a run's kept traces. Started again after an interruption it goes on.

    Example: distill train runs/mine --student r1-distill-qwen-7b --gpus 8
    """
    from distill import compose, pipeline
    from distill.rundir import RunDir

    place = RunDir(run)
    changes = {"student": student, "train.gpus": gpus, "train.nodes": nodes}
    chosen = compose.changed_recipe(place, settings or [], {k: v for k, v in changes.items() if v is not None})
    chosen.require(("train",))  # before the check and a joining node, which run no stage, ask for its specs
    if check:
        from distill.train.check import require
        from distill.train.checking import check_run
        from distill.train.preparing import memory_line, prepare

        found = check_run(chosen, place)
        values, lines = found.values(), found.lines()
        if not found.checked.faults:  # what does not hold need not be encoded
            prepared = prepare(chosen, place)
            values["census"] = prepared.census.counts()
            lines = found.lines((*prepared.census.lines(), memory_line(prepared)))
        _print(values, lines, as_json)
        require(found.checked)
        return
    if compose.joins_a_training(node_rank, master):
        from distill.train.stage import join

        raise typer.Exit(join(place, chosen))
    if chosen.train.nodes > 1 and node_rank is None:
        from distill.train.stage import commands

        with place.lock():
            pipeline.adopt(chosen, place)  # what the nodes will read
        found_commands = commands(chosen, place)
        _print({"commands": found_commands}, ["start on each machine, with the same RUN:", *found_commands], as_json)
        return
    _run(chosen, place, as_json, first="train", last="train")


@app.command()
def evaluate(
    subject: Annotated[str, typer.Argument(metavar="RUN|MODEL|URL", help="A run, a student's folder, or a server.")],
    benchmark: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Problems (default: the run's own).")
    ] = None,
    samples: Annotated[Optional[int], typer.Option(help="Samples per problem.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(help="At most this many problems.")] = None,  # noqa: UP045
    model: Annotated[Optional[str], typer.Option(help="The model's name at the server.")] = None,  # noqa: UP045
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the score of a MODEL or URL goes (default: evaluations).")
    ] = None,
    settings: Settings = None,
    unsandboxed: Unsandboxed = False,
    as_json: Json = False,
) -> None:
    """Examine a run's models, one student, or any served model on problems with known answers.

    Example: distill evaluate runs/quickstart/student --benchmark arithmetic --samples 4 --limit 100
    """
    from distill import compose, pipeline
    from distill.evaluate import stage
    from distill.examine.scores import table
    from distill.rundir import RunDir

    if (Path(subject) / "recipe.yaml").is_file():
        if model is not None or out is not None:
            raise errors.UsageError(
                "--model and --out are for a server or a model folder; a run's scores lie in the run",
                todo=f"leave them out, or give the student's folder, {Path(subject) / 'student'}",
            )
        place = RunDir(subject)
        chosen = compose.evaluation_recipe(benchmark, samples, limit, settings or [], pipeline.recipe_of(place))
        _run(chosen, place, as_json, first="evaluate", last="evaluate", adopting=False)
        return
    chosen = compose.evaluation_recipe(benchmark, samples, limit, settings or [])
    result = stage.examine_alone(subject, model, chosen, out or Path("evaluations"))
    _print(result, table([(result["name"], result)]), as_json)


@app.command()
def quantize(
    subject: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run, or a student's folder.")],
    scheme: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="SCHEME", help="nf4, int8, gguf:bf16, gguf:q8_0 or gguf:q4_k_m; repeatable."),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Problems (default: the run's own; none for a MODEL).")
    ] = None,
    samples: Annotated[Optional[int], typer.Option(help="Samples per problem.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(help="At most this many problems.")] = None,  # noqa: UP045
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where a MODEL's files go (default: quantized/NAME).")
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Make a student's files smaller, examine each with the program it is for, and refuse what lost too much.

    Example: distill quantize runs/quickstart --scheme nf4 --scheme gguf:q4_k_m
    """
    from distill import compose, pipeline
    from distill.quantize import stage
    from distill.rundir import RunDir

    inside = (Path(subject) / "recipe.yaml").is_file()
    base = pipeline.recipe_of(RunDir(subject)) if inside else None
    chosen = compose.quantize_recipe(scheme or [], benchmark, samples, limit, settings or [], base)
    if inside:
        if out is not None:
            raise errors.UsageError("--out is for a model folder; a run's files lie in the run")
        # forced: what is whole is neither made nor examined again. Options are for this once, as in `evaluate`
        _run(chosen, RunDir(subject), as_json, first="quantize", last="quantize", force=True, adopting=False)
        return
    if benchmark is None and (samples, limit) != (None, None):
        raise errors.UsageError("--samples and --limit are of problems", todo="give --benchmark NAME|FILE as well")
    results = stage.quantize_alone(Path(subject), chosen, out or Path("quantized") / Path(subject).resolve().name)
    _print({"files": results}, stage.table(results), as_json)
    failed = [f"{name}: {reason}" for name, result in results.items() for reason in result["gates"]]
    if failed:
        raise errors.GateError("a gate did not pass: " + "; ".join(failed), todo="do not use these files")


@app.command()
def publish(
    run: Run,
    repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="The student's repository; the others' begin with it.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see them (default: private).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every file, size and card; send nothing.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also with a gate that did not pass or a licence in the way.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace another run's publication, or what was changed on the Hub since.")
    ] = False,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="PART", help="student, gguf, nf4, int8, adapter, traces; repeatable (default: all)."),
    ] = None,
    without: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="PART", help="Leave this part out; repeatable."),
    ] = None,
    license: Annotated[  # noqa: A002  # the option's name
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Licence of the student (default: its base's)."),
    ] = None,
    license_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Text of the base's licence, to lie beside the weights."),
    ] = None,
    base: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ORG/NAME", help="The base's name on the Hub, where it was trained from a folder."),
    ] = None,
    prompts_license: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Licence of prompts whose own nobody tells, such as those of a file."),
    ] = None,
    teacher_license: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Licence of the teacher's outputs, where its spec does not tell it."),
    ] = None,
    old_versions: Annotated[
        bool, typer.Option("--old-versions", help="With --public: earlier private versions may be seen too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a run to the Hugging Face Hub: student, quantized files, adapter, traces; started again it goes on.

    Example: distill publish runs/mine --repo me/my-student --dry-run
    """
    from distill import pipeline
    from distill.publish import publishing
    from distill.rundir import RunDir

    place = RunDir(run)
    chosen = pipeline.recipe_of(place)
    asked = publishing.Asked(
        repo,
        public=public,
        anyway=anyway,
        replace=replace,
        only=tuple(only or ()),
        without=tuple(without or ()),
        license=license,
        license_file=license_file,
        base=base,
        old_versions=old_versions,
        prompts_license=prompts_license,
        teacher_license=teacher_license,
    )
    if dry_run:
        plan = publishing.planned(chosen, place, asked)
        _print(plan.values(), list(plan.lines()), as_json)
        return
    published = publishing.publish(chosen, place, asked)
    _print(*publishing.told(published, public=public), as_json)


@app.command()
def lineage(
    place: Annotated[Path, typer.Argument(metavar="FILE|RUN", help="A run, something inside one, a published folder.")],
    as_json: Json = False,
) -> None:
    """Walk from a weight file back to traces, verdicts, teacher, recipe and code, and look at every hash again.

    Exit code 3: a hash does not hold. Example: distill lineage runs/mine/quantized/gguf-q4_k_m
    """
    from distill.publish.lineage import lineage as walked

    found = walked(place)
    _print(found.to_json(), list(found.lines()), as_json)
    if found.broken:
        raise errors.GateError(
            "the lineage does not hold: " + "; ".join(found.broken[:5]), todo="see the lines marked ✗"
        )


@app.command()
def report(run: Run, as_json: Json = False) -> None:
    """Write the page about a run, whatever it has come to: RUN/report.html.

    Example: distill report runs/quickstart
    """
    from distill import pipeline
    from distill.rundir import RunDir

    place = RunDir(run)
    _run(pipeline.recipe_of(place), place, as_json, first="report", last="report", force=True, adopting=False)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="SCORE_A", help="A score: RUN/evaluations/NAME.json.")],
    b: Annotated[Path, typer.Argument(metavar="SCORE_B", help="Another, measured alike.")],
    as_json: Json = False,
) -> None:
    """The paired difference of two scores; refuses those that were measured differently.

    Example: distill compare runs/a/evaluations/student.json runs/b/evaluations/student.json
    """
    from distill.examine.scores import compare as compare_scores

    _print(*compare_scores(a, b), as_json)


@app.command()
def reparse(run: Run, settings: Settings = None, as_json: Json = False) -> None:
    """Derive reasoning and answer again from the raw replies, after the teacher's spec was corrected.

    Example: distill reparse runs/mine --set teacher_overrides.reasoning_format=plain
    """
    from distill import compose, pipeline
    from distill.generate.reparse import reparse as reparse_run
    from distill.rundir import RunDir

    place = RunDir(run)
    chosen = compose.changed_recipe(place, settings or [])
    with place.lock():
        pipeline.adopt(chosen, place)
        looked, changed = reparse_run(chosen, place)
    _print({"traces": looked, "changed": changed}, [f"{changed} of {looked} traces read differently now"], as_json)


@app.command()
def export(
    run: Run,
    format: Annotated[  # noqa: A002  # the option's name
        str,
        typer.Option("--format", metavar="messages|jsonl|parquet", help="Rows to train on, everything, or Parquet."),
    ] = "messages",
    tool: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--for", metavar="trl|axolotl|llama-factory", help="A folder with this tool's configuration."),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", metavar="FOLDER|FILE", help="Where it goes (default: in RUN/exports)."),
    ] = None,
    split: Annotated[Optional[str], typer.Option(metavar="train|heldout|all", help="Which of the kept rows.")] = None,  # noqa: UP045
    student: Annotated[Optional[str], typer.Option(metavar="SPEC", help="Whose texts (default: the run's).")] = None,  # noqa: UP045
    as_json: Json = False,
) -> None:
    """Hand a run's traces to another tool: rows and configuration to train with, or everything as JSONL.

    Example: distill export runs/quickstart --for trl --out for-trl
    """
    from distill import pipeline
    from distill.exchange import exporting
    from distill.rundir import RunDir

    place = RunDir(run)
    chosen = pipeline.recipe_of(place)
    made = exporting.export(chosen, place, format, tool=tool, out=out, split=split, student=student)
    _print({"out": str(made.out), **made.counts}, list(made.lines), as_json)


@app.command()
def show(
    what: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[KIND|NAME|PATH]", help="teachers, students, data, recipes; a name; a run or a file."),
    ] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="The traces of a run that failed a check.")] = False,
    reason: Annotated[Optional[str], typer.Option(help="Only those rejected for this reason.")] = None,  # noqa: UP045
    as_json: Json = False,
) -> None:
    """Shipped specs, one spec, a run's state, its rejected traces, a model folder, a score.

    Example: distill show runs/quickstart --rejected --reason wrong_answer
    """
    from distill.show import show as shown

    _print(*shown(what, rejected=rejected, reason=reason), as_json)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a model folder, a .gguf file, or a server.")],
    question: Annotated[Optional[str], typer.Argument(help="Answer this and leave.")] = None,  # noqa: UP045
    name: Annotated[Optional[str], typer.Option("--model", help="The model's name at the server.")] = None,  # noqa: UP045
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.001, max=1.0, help="Sample from this share of the likeliest.")] = 0.95,
    max_tokens: Annotated[Optional[int], typer.Option(min=1, help="Tokens per reply (default: no limit).")] = None,  # noqa: UP045
    context: Annotated[int, typer.Option(min=16, help="Tokens of conversation and reply, but for servers.")] = 32_768,
    seed: Annotated[Optional[int], typer.Option(min=0, help="The same replies again.")] = None,  # noqa: UP045
    system: Annotated[Optional[str], typer.Option(metavar="TEXT", help="A system prompt; R1 advises none.")] = None,  # noqa: UP045
    kind: Annotated[str, typer.Option(help="Kind of question, whose instruction is added, such as math.")] = "open",
    as_json: Json = False,
) -> None:
    """Talk with a student, a quantized student or a served model, by R1's sampling; the reasoning is dimmed.

    Questions from a pipe are answered one a line. Example: distill chat runs/quickstart "What is 2 + 2?"
    """
    from distill import chat as chatting

    options = chatting.Options(temperature, top_p, max_tokens, context, seed, system, kind, name, as_json)
    said = chatting.chat(model, question, options)
    if said is not None and as_json:
        _print(said, [], as_json)


@app.command()
def serve(
    teacher: Annotated[
        str, typer.Argument(metavar="TEACHER|RUN|FOLDER", help="A teacher spec, a run (its teacher), a model's folder.")
    ],
    hardware: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="8xH200", help="GPUs to lay it out on: 8xH200, 2x8xH100, cpu, auto (default: auto)."),
    ] = None,
    replicas: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Servers, each whole by itself (default: as many as fit)."),
    ] = None,
    launcher: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="local|ray", help="On this machine, or on a Ray cluster (default: local)."),
    ] = None,
    ray_address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="HOST:PORT", help="Of the Ray cluster (default: the one that this machine belongs to)."),
    ] = None,
    python: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="PATH", help="Interpreter of vLLM's environment."),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FOLDER", help="Where the weights lie (default: the spec's folder, the Hub's cache)."),
    ] = None,
    host: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Address to listen at; any but loopback makes a key that clients need."),
    ] = None,
    port: Annotated[Optional[int], typer.Option(help="Of the first replica (default: free ones).")] = None,  # noqa: UP045
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", metavar="DIR", help="endpoints.json, logs and metrics (default: services/TEACHER)."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only look whether this machine is ready; start nothing.")
    ] = False,
    slurm: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Write a Slurm job file that serves on a Ray cluster; start nothing."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the layout and every node's command.")] = False,
    skip: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="CHECK", help="Leave a check out, such as hashes; may be given several times."),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Serve a teacher with vLLM and keep it alive; `generate --endpoints DIR/endpoints.json` follows its replicas.

    Settings: --set serve.KEY=VALUE (docs/serve.md). Example: distill serve deepseek-r1 --hardware 8xH200 --dry-run
    """
    from distill.serve import starting

    options = {
        "hardware": hardware,
        "replicas": replicas,
        "launcher": launcher,
        "ray_address": ray_address,
        "python": python,
        "model": model,
        "host": host,
        "port": port,
        "skip": skip,
    }
    asked = starting.asked(teacher, settings or [], options, out)
    if slurm is not None:
        words = starting.job_words(teacher, settings or [], options, out)
        _print({"job": str(slurm)}, starting.write_job(asked, slurm, words), as_json)
    elif dry_run:
        chosen = starting.planned(asked)
        _print(chosen.values(), [*chosen.lines(), "", *chosen.command_lines()], as_json)
    elif check:
        _print(*starting.check(asked), as_json)
    else:
        starting.serve(asked)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can do, what is missing, the exact command that mends it. Exit code 1: the main job cannot run.

    Example: distill doctor --json
    """
    from distill.doctor import examine, shown

    diagnosis = examine()
    _print(*shown(diagnosis), as_json)
    if not diagnosis.healthy:
        raise typer.Exit(errors.FAILED)


def _run(recipe: Recipe, run: RunDir, as_json: bool, *, last: str, **how: Any) -> None:
    """Runs stages and prints how they ended, also when a gate did not pass."""
    from distill import pipeline, specs
    from distill.show import closing_lines

    stages = pipeline.between(how.get("first", specs.STAGES[0]), last)
    try:
        pipeline.run_recipe(recipe, run, last=last, **how)
        failed = None
    except errors.GateError as gate:
        failed = gate
    manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
    _print({"run": str(run.path), **manifest}, list(closing_lines(run, stages)), as_json)
    if failed is not None:
        raise failed


def _print(values: dict[str, Any], lines: list[str], as_json: bool) -> None:
    typer.echo(json.dumps(values) if as_json else "\n".join(lines))


def main() -> NoReturn:
    """The console script: an expected error is printed as cause and remedy, and sets the exit code."""
    try:
        app(standalone_mode=True)
    except errors.DistillError as error:
        if _debug:
            raise
        _fail(str(error), error.exit_code)
    except SystemExit as leaving:
        if leaving.code == errors.INTERRUPTED:  # typer's answer to Ctrl-C where nothing of ours caught it
            _fail("interrupted; what was saved is kept, the same command goes on", errors.INTERRUPTED)
        raise
    except OSError as error:
        if _debug:
            raise
        _fail(f"{error.strerror or type(error).__name__}: {error.filename or error}", errors.FAILED)
    sys.exit(errors.DONE)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"distill: {text}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
