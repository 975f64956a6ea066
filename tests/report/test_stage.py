"""The page itself, without a browser: from any run, the same bytes again, hostile texts stay text, small."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ledger_material import write_all

from distill import specs
from distill.errors import DiskFullError
from distill.report import stage
from distill.rundir import RunDir
from report import material

SECTIONS = {
    "overview", "funnel", "rejections", "lengths", "loss", "accuracy", "sizes", "time", "traces", "provenance",
}  # fmt: skip


class Page(HTMLParser):
    """Tags and their attributes, and the text; entities resolved."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> list[str]:
        return [value for _, attributes in self.tags for name, value in attributes.items() if name == "id" and value]


def written(run: RunDir, recipe: specs.Recipe = material.RECIPE) -> tuple[str, Page]:
    report = stage.run(recipe, run)
    (path,) = report.outputs
    assert path == run.path / "report.html"
    assert str(path) in report.lines[0]
    source = path.read_bytes().decode("utf-8")
    return source, Page(source)


def test_a_whole_run_gives_a_whole_page(tmp_path: Path) -> None:
    run, items = material.finished(tmp_path / "run")
    source, page = written(run)
    assert source.startswith('<!doctype html>\n<html lang="en">')
    assert set(page.ids()) >= SECTIONS
    assert len(page.ids()) == len(set(page.ids())), "an id stands once"
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == {f"#{name}" for name in SECTIONS}
    words = " ".join(page.text.split())
    for told in (
        "tiny has learned from", "wise → tiny", "1 gate did not pass", "nf4: it loses 5.0 points", "86.0%", "97.0%",
        "Q4_K 79%, Q6_K 21%, F32 0.3%", "−5.0 (−7.0 to −3.0)", "not passed", "200 × 2", "300 × 4", "wrong_answer",
        "1 h 06 min", "700 B", "gguf-q4_k_m", "0.0001 at its peak",
    ):  # fmt: skip
        assert told in words, told
    assert source.count("<svg ") == 5
    assert source.count("data-empty") == 0
    fates = [attributes.get("data-fate") for tag, attributes in page.tags if tag == "details"]
    assert fates.count("kept") == 20
    assert fates.count("rejected") == 20
    assert "/home/somebody" not in source, "whose machine it was is nobody's business"
    answered = next(a for _, a in page.tags if a.get("data-step") == "Traces answered")
    assert answered["data-number"] == str(len(items))


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run")
    assert written(run)[0] == written(run)[0]


def test_a_run_that_has_not_come_far_says_so(tmp_path: Path) -> None:
    run, _ = material.sampled(tmp_path / "traces")
    source, page = written(run)
    assert "traces of wise, not filtered yet" in page.text
    assert "The filter has not run yet" in page.text
    assert "Not judged yet" in page.text
    assert {name for name in ("loss", "accuracy", "time") if f'data-empty="{name}"' in source} == {
        "loss", "accuracy", "time",
    }  # fmt: skip
    alone = RunDir(tmp_path / "training")
    material.log(alone, {"step": 10, "steps": 10, "loss": 1.0, "lr": 1e-3})
    source, page = written(alone)
    assert "the traces it learned from are not in this run" in page.text
    assert source.count("<svg ") == 1
    source, page = written(RunDir(tmp_path / "nothing"), specs.Recipe(name="bare"))
    assert "Nothing has been sampled yet" in page.text
    assert source.count("<svg ") == 0
    assert set(page.ids()) >= SECTIONS


def test_a_failed_stage_and_one_on_old_inputs_are_named(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run", 5)
    material.stage(run, "train", {}, outputs={"student": "new"})
    material.stage(
        run,
        "evaluate",
        {"error": "the <b>server</b> died\n  given: /home/somebody/models/x\n  to do: mend it"},
        state="failed",
        inputs={"student": "old"},
    )
    source, page = written(run)
    assert "evaluate failed" in page.text
    assert "the <b>server</b> died" in page.text
    assert "/home/somebody" not in source, "only what happened is told, not where"
    assert "evaluate worked on an earlier state of student" in " ".join(page.text.split())
    assert "<b>" not in source


def test_an_error_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    text = "/home/somebody/run/a b/x.json and '/root/m' at http://host/v1/models cannot be read, and/or 3 tokens/s"
    material.stage(run, "train", {"error": text}, state="failed")
    source, page = written(run)
    assert "/home" not in source
    assert "'m' at http://host/v1/models cannot be read, and/or 3 tokens/s" in page.text


def quantize(**changed: Any) -> specs.Recipe:
    return material.RECIPE.model_copy(update={"quantize": specs.QuantizeSettings(**changed)})


NO_BAR: dict[str, Any] = {"min_difference": None, "min_four_bit_share": None}


@pytest.mark.parametrize(
    ("recipe", "files", "words"),
    [
        (quantize(), (), "no gate set"),
        (quantize(**NO_BAR, schemes=("nf4",)), ("nf4",), "no gate set"),
        (quantize(schemes=("nf4",)), ("nf4",), "gates passed"),
        (quantize(min_difference=None), ("nf4",), "gates passed"),
    ],
)
def test_gates_passed_only_where_there_was_one(
    tmp_path: Path, recipe: specs.Recipe, files: tuple[str, ...], words: str
) -> None:
    run = RunDir(tmp_path / "run")
    for name in ("evaluate", "quantize"):
        material.stage(run, name, {file: {"gates": [], "difference": 0.0} for file in files})
    assert words in written(run, recipe)[1].text
    if words == "gates passed":
        material.stage(run, "train", {}, outputs={"student": "new"})
        material.stage(run, "quantize", {file: {"gates": []} for file in files}, inputs={"student": "old"})
        assert "gates not reached" in written(run, recipe)[1].text, "that was another student"


def test_the_gate_of_each_file_and_the_smallest_are_told_by_status(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run", 5)
    counts = {
        "nf4": {"difference": -0.05, "gates": [], "status": "no bar"},
        "gguf-q4_k_m": {"difference": -0.05, "gates": ["it loses 5 points"], "status": "not passed"},
        "int8": {"gates": [], "status": "not examined"},
    }
    material.quantized(run, "int8", "int8", 900, {"INT8": 10})
    material.stage(run, "quantize", counts)
    source, page = written(run)
    assert '<span class="muted">no bar</span>' in source
    assert '<span class="badge bad">not passed</span>' in source
    assert "int8, not examined" in page.text, "it has no row among the scores"
    figures = " ".join(page.text.split())
    assert "Smallest file 600 B nf4, " in " ".join(re.sub(r"<[^>]*>", " ", source).split())
    assert "bits per weight, no bar" in figures
    counts["int8"] = {"difference": 0.0, "gates": [], "status": "passed"}
    material.score(run, "student-int8", 0.86)
    material.stage(run, "quantize", counts)
    source, _ = written(run)
    assert '<span class="badge good">passed</span>' in source
    assert "Smallest passing file 900 B int8" in " ".join(re.sub(r"<[^>]*>", " ", source).split())


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run", 5)
    material.quantized(run, "nf4", "nf4", 600, {"NF4": 10}, source="of another")
    source, page = written(run)
    assert "quantized/nf4 was made of an earlier student and is left out; run `distill quantize RUN`" in page.text
    assert "student-nf4" not in source


def test_nothing_that_a_teacher_writes_becomes_markup(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run")
    source, page = written(run)
    forbidden = {"script", "img", "iframe", "object", "link", "base", "form"}
    assert not forbidden & {tag for tag, _ in page.tags}
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "window.injected = 1; alert(1)" in page.text, "it is shown, as text"
    assert "{{ 7 * 7 }}" in page.text
    assert "你好，世界" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", source)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.mark.parametrize("letter", ["x", "你", "<"])
def test_long_texts_do_not_make_a_large_page(tmp_path: Path, letter: str) -> None:
    run = RunDir(tmp_path)
    long = letter * 60_000
    asked = material.prompts(45)
    write_all(run.traces, [material.trace(p, 0, raw=long, reasoning=long, answer=long) for p in asked])
    source, page = written(run)
    assert "characters left out here" in page.text
    assert len(source.encode()) < 1.5e6 / 2, "twenty of forty"


def test_a_full_disk_leaves_the_page_before(tiny_disk: Path, tmp_path: Path) -> None:
    run, _ = material.sampled(tmp_path / "run", 5)
    (tiny_disk / "report.html").write_text("before")
    (tiny_disk / "filler").write_bytes(bytes(230_000))
    small: Any = RunDir(tiny_disk)
    small.traces, small.prompts = run.traces, run.prompts
    with pytest.raises(DiskFullError):
        stage.run(material.RECIPE, small)
    assert (tiny_disk / "report.html").read_text() == "before"
