"""What has to be right before the first byte is sent: stages, gates, licences, names, the token and its rights, what
lies in the repositories already, and nothing private in any file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill import wording
from distill.errors import GateError, PublishError, RunError, UsageError
from distill.publish import lineage
from distill.publish.asking import asked
from distill.publish.facts import Facts
from distill.publish.licences import Conflict
from distill.publish.publication import Part, Publication
from distill.publish.scan import leaks, needles
from distill.publish.transaction import There, Transaction, taken
from distill.rundir import RunDir, StageState
from distill.specs import Recipe

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NEEDED = {
    "student": ("prompts", "generate", "filter", "train"),
    "adapter": ("prompts", "generate", "filter", "train"),
    "traces": ("prompts", "generate", "filter"),
}
"""Part → the stages that have to be done; a quantized one needs `quantize` as well."""
LARGEST = 200 * 1000**3
"""Bytes of one file. The Hub's documentation (storage-limits) advises 50 GB and takes up to 200 GB."""
TOKENS = "https://huggingface.co/settings/tokens"


def stages_done(recipe: Recipe, run: RunDir, parts: Sequence[str]) -> None:
    """Raises RunError for a stage that is missing, unfinished, whose work builds on other files or settings than there
    are now, or whose files are not what it wrote."""
    states = run.stages()
    needed: dict[str, None] = {}
    for part in parts:
        for name in NEEDED.get(part, (*NEEDED["student"], "quantize")):
            state = states.get(name)
            if state is None or state.state != "done":
                told = "was not run" if state is None else f"is {state.state}"
                raise RunError(f"{name} {told}, and {part} comes of it", given=str(run.path), todo=_again(name, run))
            needed[name] = None
    about_student = any(part != "traces" for part in parts)
    for name in (*needed, *(["evaluate"] if "evaluate" in states and about_student else [])):
        _up_to_date(recipe, run, name, states)
    if "traces" in parts and (sealed := lineage.traces_as_sealed(run)).result != "ok":
        todo = "bring the file back from a copy; `distill generate RUN --verify` tells more"
        raise RunError("traces are not what was sealed", given=f"{run.traces}: {sealed.detail}", todo=todo)
    for name in ("prompts", "filter", "train", "evaluate", "quantize"):
        state = states.get(name)
        wrote = {
            path: digest
            for path, digest in (state.outputs if state is not None else {}).items()
            if _published(path, parts)
        }
        now = run.hashes(*(run.path / path for path in wrote))
        changed = [path for path, digest in wrote.items() if now.get(path) != digest]
        if changed:
            raise RunError(
                f"{changed[0]} is not what {name} wrote: it was changed or lost since",
                given=str(run.path),
                todo=f"{_again(name, run)}, or bring the file back",
            )


def _up_to_date(recipe: Recipe, run: RunDir, name: str, states: Mapping[str, StageState]) -> None:
    """A stage ran with the recipe that will be published, on what those before it wrote last."""
    ran_with = {key: value for key, value in states[name].settings.items() if key != "specs"}
    if ran_with != recipe.section(name):
        raise RunError(f"recipe.yaml was changed since {name} ran", given=str(run.path), todo=_again(name, run))
    for path, read in states[name].inputs.items():
        writer = next((other for other, state in states.items() if other != name and path in state.outputs), None)
        if writer is not None and states[writer].outputs[path] != read:
            raise RunError(
                f"{name} worked on an earlier {path}: {writer} ran again since",
                given=str(run.path),
                todo=_again(name, run),
            )


def _published(path: str, parts: Sequence[str]) -> bool:
    """Whether a part is made of it: its files, or the figures in its card."""
    first, _, rest = path.partition("/")
    if first == "quantized":
        return rest in parts or (rest.startswith("gguf-") and "gguf" in parts)
    if first == "evaluations":
        return rest.endswith(".json") and any(part != "traces" for part in parts)
    of = {"kept": "traces", "verdicts.parquet": "traces", "prompts.parquet": "traces"}
    return of.get(first, first) in parts


def _again(name: str, run: RunDir) -> str:
    verb = {"prompts": "generate", "report": "report"}.get(name, name)
    return (
        f"run `distill {verb} {run.path}`"
        if verb != "generate"
        else "run `distill run RECIPE --out RUN` or `distill generate`"
    )


def gates(facts: Facts, parts: Sequence[str], files: Sequence[Any]) -> list[str]:
    """Quality gates that did not pass, of what is to be published."""
    found: list[str] = list(map(str, facts.count("filter", "_failed_gates") or ()))
    if any(part != "traces" for part in parts):
        evaluated = facts.states.get("evaluate")
        if evaluated is None or evaluated.state != "done" or facts.score("student") is None:
            found.append("evaluate: nobody examined the student")
        if facts.unnamed_base:
            found.append("base: it was trained from a folder, and nobody can tell of what (--base ORG/NAME)")
        for stage in ("train", "evaluate"):
            found += map(str, facts.count(stage, "_failed_gates") or ())
    for file in files:
        if file.part in parts and file.status == "not examined":
            found.append(f"{file.scheme}: nobody examined it")
        if file.part in parts and file.status == "not passed":
            folder = file.scheme.replace(":", "-")
            reasons = facts.comparisons[folder].gates if folder in facts.comparisons else ()
            found.append(f"{file.scheme}: {'; '.join(reasons) or 'it did not pass'}")
    return found


def refuse(failed_gates: Sequence[str], conflicts: Sequence[Conflict], *, anyway: bool) -> None:
    """Raises GateError for gates and licences that stand in the way; `anyway` lets all of them pass."""
    if anyway or not (failed_gates or conflicts):
        return
    told = [f"gate: {gate}" for gate in failed_gates] + [f"licence: {conflict}" for conflict in conflicts]
    raise GateError(
        "not published: " + "; ".join(told),
        todo="mend it, or publish all the same with --anyway: the card then says what did not pass",
    )


def adapter_has_base(facts: Facts, parts: Sequence[str]) -> None:
    """Raises UsageError for an adapter whose base is not on the Hub: nobody could load it."""
    if "adapter" in parts and facts.base is None:
        raise UsageError(
            "the adapter's base has no name on the Hub, so that nobody could load it",
            todo="give it with --base ORG/NAME, or leave the adapter out: --without adapter",
        )


def names(publication: Publication, base: str | None = None) -> None:
    """Raises UsageError for names that the Hub does not take, and files that are too large for it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    asked = [("--repo", part.repo) for part in publication.parts] + ([("--base", base)] if base is not None else [])
    for option, name in asked:
        if name.count("/") != 1:
            raise UsageError(
                f"{option} {name}: not ORG/NAME", todo=f"give the namespace too, such as {option} me/my-student"
            )
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise UsageError(
                f"{name} is no name that the Hub takes", given=str(error), todo=f"choose another {option}"
            ) from error
    for part in publication.parts:
        for file in part.files:
            if file.size > LARGEST:
                what = f"{file.path} has {wording.size(file.size)}, the Hub takes {wording.size(LARGEST)} a file"
                raise PublishError(what, todo="save it in shards")


def cards(api: HfApi, publication: Publication, pause: Callable[[float], None]) -> None:
    """Has the Hub look at every card before anything is made there, as the client does at each commit: a card that it
    does not take would be found half-way. Raises PublishError with what it says."""
    for part in publication.parts:

        def looked(part: Part = part) -> str | None:
            try:
                api._validate_yaml(part.card, repo_type=part.kind)
            except ValueError as error:
                return str(error)
            return None

        said = asked(f"having the card of {part.repo} looked at", looked, pause)
        if said is not None:
            what = f"the Hub does not take the card of {part.repo}"
            raise PublishError(what, given=said, todo="report this with the card, which --dry-run shows")


def private(publication: Publication, token: str | None, run: RunDir) -> None:
    """Raises PublishError naming the files that hold something of this machine or a key, never what it is."""
    looked_for = needles(token, run.path)
    found = [leak for part in publication.parts for leak in leaks(part, looked_for)]
    if found:
        listed = "\n         ".join(str(leak) for leak in found[:10])
        raise PublishError(
            "not published: something that must not leave this machine is in "
            + _some(len({leak.file for leak in found}), "file"),
            given=listed,
            todo="take it out of the run (another recipe, `filter.keep` with secrets), or leave it out: --without",
        )


def _some(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def owner(api: HfApi, publication: Publication, pause: Callable[[float], None]) -> str:
    """Name of the account whose token it is.

    Raises PublishError without a token, with one that may not write, and for a namespace that is not its own.
    """
    if not api.token:
        raise PublishError(
            "there is no token of the Hub", todo=f"log in with `hf auth login`, or set HF_TOKEN ({TOKENS})"
        )
    who = asked("asking the Hub who you are", api.whoami, pause)
    name = str(who.get("name"))
    token = who.get("auth", {}).get("accessToken", {})
    role = str(token.get("role", "unknown"))
    for part in publication.parts:
        _may_write(part, name, who, token, role)
    return name


def _may_write(part: Part, name: str, who: Mapping[str, Any], token: Mapping[str, Any], role: str) -> None:
    namespace = part.repo.partition("/")[0]
    roles = {str(org.get("name")): str(org.get("roleInOrg", "unknown")) for org in who.get("orgs", [])}
    if namespace != name and namespace not in roles:
        known = ", ".join([name, *sorted(roles)])
        raise PublishError(
            f"you may not publish as {namespace}", given=f"your token is {name}'s", todo=f"--repo with one of: {known}"
        )
    if role == "read" or roles.get(namespace) == "read":
        what = "your token only reads" if role == "read" else f"you only read in {namespace}"
        raise PublishError(f"{what}: nothing can be published with it", todo=f"make one that writes: {TOKENS}")
    if role == "fineGrained" and not _scoped(token, namespace, part.repo):
        what = f"your token has no right repo.write on {namespace}"
        raise PublishError(what, todo=f"give it `Write access to contents/settings of repos` there: {TOKENS}")


def _scoped(token: Mapping[str, Any], namespace: str, repo: str) -> bool:
    scopes = token.get("fineGrained", {}).get("scoped", [])
    return any(
        scope.get("entity", {}).get("name") in (namespace, repo) and "repo.write" in scope.get("permissions", [])
        for scope in scopes
    )


def there(transaction: Transaction, *, public: bool, replace: bool, old_versions: bool = False) -> dict[str, There]:
    """What lies in each repository.

    Raises PublishError for files that are not ours and, without `replace`, for another run's and for changes that were
    made on the Hub since; without `old_versions` for private versions that would be seen too; UsageError for a public
    repository that nobody asked to publish to.
    """
    found = {}
    for part in transaction.publication.parts:
        seen = found[part.repo] = transaction.look(part)
        if seen.run not in (None, transaction.publication.run) and not replace:
            raise PublishError(
                f"{part.repo} holds another run's publication",
                given=f"{seen.run}, and this is {transaction.publication.run}",
                todo="choose another name with --repo, or replace it with --replace: its tag keeps what it was",
            )
        if seen.foreign and not seen.holds(part) and not (replace and seen.run is not None):
            raise taken(part, seen)
        if seen.exists and not seen.private and not public:
            raise UsageError(f"{part.repo} is public already", todo="say --public to publish there")
        versions = seen.earlier if seen.holds(part) else tuple(sorted({*seen.earlier, *_version_of_main(seen)}))
        if public and seen.exists and seen.private and versions and not old_versions:
            raise PublishError(
                f"with --public everybody sees the earlier versions of {part.repo} too, which were private",
                given=", ".join(versions),
                todo="look at them on the Hub and say --old-versions, or publish under another name",
            )
    return found


def _version_of_main(seen: There) -> tuple[str, ...]:
    tag = seen.tag_of_main()
    return (tag,) if tag is not None else ()
