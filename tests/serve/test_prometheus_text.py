"""The strict reader and the writer of Prometheus' text format."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.errors import InputError
from distill.serve.prometheus_text import Family, Sample, families, written

RECORDED = Path(__file__).parents[1] / "recorded" / "vllm-0.32"


@pytest.mark.parametrize("name", ["metrics_full.txt", "metrics_busy.txt"])
def test_a_page_of_vllm_comes_out_as_it_went_in(name: str) -> None:
    page = (RECORDED / name).read_text(encoding="utf-8")
    assert written(families(page)) == page
    assert sum(len(family.samples) for family in families(page)) == sum(
        not line.startswith("#") for line in page.splitlines()
    )


def test_samples_belong_to_their_family() -> None:
    page = families((RECORDED / "metrics_full.txt").read_text(encoding="utf-8"))
    found = {family.name: family for family in page}
    histogram = found["vllm:e2e_request_latency_seconds"]
    endings = {sample.name.removeprefix(histogram.name) for sample in histogram.samples}
    assert (histogram.type, endings) == ("histogram", {"_bucket", "_sum", "_count"})
    created = found["vllm:e2e_request_latency_seconds_created"]
    assert (created.type, len(created.samples)) == ("gauge", 1)


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        ("a 1", Sample("a", (), "1")),
        ("a 1.5e+09 1795727123972", Sample("a", (), "1.5e+09", "1795727123972")),
        ("a{} -Inf", Sample("a", (), "-Inf")),
        ("a NaN", Sample("a", (), "NaN")),
        ('a { b = "c" , d="" , } 1', Sample("a", (("b", "c"), ("d", "")), "1")),
        (r'a{b="x\"y\\z\nw,}"} 1', Sample("a", (("b", 'x"y\\z\nw,}'),), "1")),
        (r'a{b="\\n"} 1', Sample("a", (("b", r"\n"),), "1")),
    ],
)
def test_samples_are_read_and_written(line: str, sample: Sample) -> None:
    [family] = families(line + "\n")
    assert family.samples == [sample]
    [again] = families(written([family]))
    assert again.samples == [sample]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("<html>", "no name"),
        ("a", "no value"),
        ("a one", "no value"),
        ("a 1_0", "no value"),
        ("a 1 2 3", "no value"),
        ("a 1 now", "no time"),
        ("a{b=c} 1", "labels"),
        ('a{b="c" 1', "labels"),
        ('a{b="c""d"} 1', "labels"),
        ('a{b="1",b="2"} 1', "given twice"),
        ("# TYPE a hologram", "no type"),
        ("# TYPE 1a gauge", "no name"),
        ("# HELP", "no name"),
        ("fine 2\n# TYPE fine counter", "behind the samples"),
    ],
)
def test_what_is_no_prometheus_text_is_refused_with_its_line(line: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        families("ok 1\n" + line)
    assert caught.value.what.startswith(f"line {2 + line.count(chr(10))} ")
    assert caught.value.given == line.splitlines()[-1]


def test_other_comments_and_empty_lines_mean_nothing() -> None:
    assert families("\n# what a day\n#\n  \na 1\n# EOF\n") == [Family("a", samples=[Sample("a", (), "1")])]


def test_a_family_may_be_continued_later() -> None:
    page = families("# TYPE a histogram\na_sum 1\nb 2\na_count 3\n# HELP b later\nb 4\n")
    assert [(f.name, f.help, [s.value for s in f.samples]) for f in page] == [
        ("a", None, ["1", "3"]),
        ("b", "later", ["2", "4"]),
    ]
