"""Verdicts while sampling: the filter's notion of right, given without ever holding up the event loop, and kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.engines import Reply
from distill.errors import RunError
from distill.filter import looking
from distill.filter.looking import Lens
from distill.filter_specs import FilterSettings
from distill.records import Prompt, Trace
from distill.sampling.requests import answered, failed, task_for
from distill.sampling.rightness import Rightness, told_at_once
from distill.sampling.verdict_cache import Head, VerdictCache, judged_by
from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.math import check_math
from sampling.scripted import subject

MATH = Prompt("2 + 2?", kind="math", answer="4")
RIGHT, WRONG = "<think>\nadd\n</think>\n\n\\boxed{4}", "<think>\nadd\n</think>\n\n\\boxed{5}"
UNLIKE = "<think>\nadd\n</think>\n\n\\boxed{8/2}"
"""Right, but told only by reading it."""
OBEY = "verify.hostile:obey_answer"


def trace(text: str, prompt: Prompt = MATH, *, sample: int = 0, finish: Any = "stop") -> Trace:
    reply = Reply(text, finish, "here", completion_tokens=7)
    return answered(task_for(prompt, subject(), sample), reply, subject(), 0, 1)


def told(pairs: Sequence[tuple[Prompt, Trace]], rightness: Rightness) -> list[Outcome]:
    """The outcomes of all, judged at once in one event loop."""

    async def ask() -> list[Outcome]:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in pairs]
        for (prompt, given), future in zip(pairs, futures, strict=True):
            rightness.judge(prompt, given, future.set_result)
            assert not future.done(), "never while the caller is still at it"
        return await asyncio.wait_for(asyncio.gather(*futures), 60)

    return asyncio.run(ask())


def test_right_is_what_the_filter_lets_pass() -> None:
    """Over every way to be wrong, and kinds with and without a verifier."""
    open_ = Prompt("Why?", kind="open")
    code = Prompt("Name it", kind="exact", answer="addition")
    strict, bare = replace(MATH, question="2+2"), replace(MATH, question="2 + 2 =", reasoning="none")
    texts = [
        RIGHT,
        WRONG,
        UNLIKE,
        "\\boxed{4}",
        "<think>\nadd",
        "<think>\na\n</think>\n\n",
        "<think>\n</think>\n\n4",
        "",
    ]
    pairs = [(p, trace(t, p, sample=n)) for p in (MATH, strict, bare, open_, code) for n, t in enumerate(texts)]
    pairs += [(MATH, trace(RIGHT, sample=20, finish="length")), (replace(MATH, answer=None), trace(RIGHT, sample=21))]
    pairs += [(MATH, replace(trace(RIGHT, sample=22), finish_reason="loop"))]
    settings = FilterSettings(checks=("correct",))
    looking.prepare(Lens(settings, {}, ("math", "exact")))
    looked = [looking.look(prompt, given.to_json(), settings.checks, {}, {}) for prompt, given in pairs]
    expected = [next((o for o in one.outcomes.values() if o.outcome != "pass"), one.outcomes["correct"]) for one in looked]
    with Rightness(None, workers=1) as rightness:
        assert told(pairs, rightness) == expected
    found = Counter(outcome.reason for outcome in expected)
    assert found[""] == 9, "2 + 2 of the sums with reasoning, 2 without, 3 of the open question"
    assert len(found) >= 9, found


@pytest.mark.parametrize(
    "answer", ["\\boxed{4}", "\\boxed{5}", "", None, " ", "4", "\\boxed{8/2}", "\\boxed{4", "x" * 9]
)
@pytest.mark.parametrize("gold", ["4", "", None, " ", "\\text{}", "8/2"])
def test_what_is_told_by_the_text_is_what_the_verifier_says(answer: str | None, gold: str | None) -> None:
    at_once = told_at_once("math", answer, gold)
    assert at_once is None or at_once == check_math(answer, gold)
    if answer == "\\boxed{4}" and gold == "4":
        assert at_once == PASS


def test_a_right_looking_answer_needs_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with Rightness(None, function="verify.hostile:no_such_function") as rightness:
        assert told([(MATH, trace(RIGHT)), (MATH, trace(RIGHT, finish="length"))], rightness) == [
            PASS,
            failing("truncated"),
        ]
        assert rightness._thread is None


@pytest.mark.parametrize("answer", ["\\boxed{" * 3_000, "{" * 1_000_000, "\\boxed{" + "{" * 1_000_000])
def test_hostile_answers_do_not_hold_up_the_event_loop(answer: str) -> None:
    given = replace(trace(WRONG), answer=answer)
    with Rightness(None, workers=1, seconds=1.0) as rightness:

        async def ask() -> tuple[float, Outcome]:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            rightness.judge(MATH, given, future.set_result)
            longest, last = 0.0, time.perf_counter()
            while not future.done():
                await asyncio.sleep(0.001)
                longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
            return longest, future.result()

        started = time.perf_counter()
        longest, outcome = asyncio.run(ask())
        assert outcome.outcome != "pass"
        assert longest < 0.5, f"{longest} of {time.perf_counter() - started} s"


def test_judging_goes_on_while_one_answer_takes_long() -> None:
    with Rightness(None, workers=2, seconds=2.0, function=OBEY) as rightness:
        order: list[str] = []

        async def ask() -> None:
            both = asyncio.Event()

            def tell(name: str) -> Callable[[Outcome], None]:
                def tell_it(outcome: Outcome) -> None:
                    order.append(f"{name} {outcome.reason}")
                    if len(order) == 3:
                        both.set()

                return tell_it

            slow, quick = replace(trace(WRONG), answer="hang"), replace(trace(WRONG), answer="judge")
            rightness.judge(replace(MATH, answer="0"), slow, tell("slow"))
            rightness.judge(replace(MATH, answer="1"), quick, tell("first"))
            await asyncio.sleep(0.5)
            rightness.judge(replace(MATH, answer="2"), quick, tell("second"))
            await asyncio.wait_for(both.wait(), 30)

        asyncio.run(ask())
    assert order == ["first number_1", "second number_2", "slow verifier_timeout"]


def test_leaving_does_not_wait_for_what_is_being_judged() -> None:
    async def ask(rightness: Rightness) -> None:
        rightness.judge(replace(MATH, answer="0"), replace(trace(WRONG), answer="hang"), lambda outcome: None)
        await asyncio.sleep(0.3)

    with Rightness(None, workers=1, seconds=600.0, function=OBEY) as rightness:
        asyncio.run(ask(rightness))
        left = time.perf_counter()
    assert time.perf_counter() - left < 5


def test_a_judge_that_breaks_down_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(items: object) -> object:
        raise OSError("no more processes")

    with Rightness(None) as rightness:
        monkeypatch.setattr(rightness._pool, "as_they_come", broken)
        assert told([(MATH, trace(WRONG))], rightness) == [abstaining("verifier_error")]
        with pytest.raises(RunError, match="can no longer be verified"):
            told([(MATH, trace(RIGHT))], rightness)


# --- verdicts that are kept ------------------------------------------------------------------------------------------


def kept(path: Path, given: Trace, prompt: Prompt = MATH) -> Outcome | None:
    return VerdictCache(path).find(Head.of(given), judged_by(prompt, "math"))


BARE = "\\boxed{4}"
"""Wrong by its form alone, which takes no worker to see."""
UNREASONED = failing("empty_reasoning")


def judged(path: Path) -> list[Trace]:
    traces = [trace(text, sample=number) for number, text in enumerate((RIGHT, BARE))]
    with Rightness(path, workers=1) as rightness:
        told([(MATH, given) for given in traces], rightness)
    return traces


def test_a_verdict_is_kept_for_later_starts(tmp_path: Path) -> None:
    path = tmp_path / "early-verdicts.log"
    traces = judged(path)
    assert [kept(path, given) for given in traces] == [PASS, UNREASONED]
    more = trace(RIGHT, sample=7)
    with Rightness(path) as rightness:
        told([(MATH, more)], rightness)
    assert [kept(path, given) for given in (*traces, more)] == [PASS, UNREASONED, PASS]
    assert kept(path, trace(RIGHT, sample=8)) is None
    assert VerdictCache(None).find(Head.of(more), judged_by(MATH, "math")) is None


@pytest.mark.parametrize(
    "changed",
    [{"key": "0" * 64}, {"revision": 1}, {"created": "2026-01-01"}, {"created": ""}, {"finish_reason": "loop"}],
)
def test_a_verdict_belongs_to_one_record(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "early-verdicts.log"
    right, _ = judged(path)
    assert kept(path, replace(right, **changed)) is None


@pytest.mark.parametrize("changed", [{"answer": "5"}, {"answer": None}, {"kind": "numeric"}, {"reasoning": "none"}])
def test_a_verdict_expires_with_what_the_prompt_wants(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "early-verdicts.log"
    right, _ = judged(path)
    assert kept(path, right, replace(MATH, **changed)) is None
    assert kept(path, right, replace(MATH, id="other", domain="sums")) == PASS


def test_a_verdict_expires_with_the_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.sampling import verdict_cache

    path = tmp_path / "early-verdicts.log"
    right, _ = judged(path)
    monkeypatch.setattr(verdict_cache, "fingerprint", lambda name: f"a later {name}")
    assert kept(path, right) is None


def test_a_record_without_a_time_is_judged_each_time(tmp_path: Path) -> None:
    path = tmp_path / "early-verdicts.log"
    with Rightness(path) as rightness:
        told([(MATH, replace(trace(RIGHT), created=""))], rightness)
    assert path.read_bytes() == b""


def test_a_broken_verifier_leaves_no_verdict(tmp_path: Path) -> None:
    path = tmp_path / "early-verdicts.log"
    given = trace(WRONG)
    with Rightness(path, workers=1) as rightness:
        assert told([(MATH, given)], rightness) == [failing("wrong_answer")]
    assert kept(path, given) == failing("wrong_answer")
    path.unlink()
    with Rightness(path, workers=1, function="verify.hostile:no_such_function") as rightness:
        assert told([(MATH, given)], rightness) == [abstaining("verifier_crash")]
    assert kept(path, given) is None


def test_whatever_is_left_of_the_file_is_used(tmp_path: Path) -> None:
    """Cut at every byte of its last line, and gone on with: only that line is lost."""
    path = tmp_path / "early-verdicts.log"
    right, wrong = judged(path)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        assert kept(path, right) == PASS
        assert kept(path, wrong) is None
        with VerdictCache(path) as cache:
            cache.add(Head.of(wrong), judged_by(MATH, "math"), UNREASONED)
        assert kept(path, wrong) == UNREASONED, f"after a cut at {cut}"
    path.write_bytes(b"\xff\x00 garbage\n" + whole[:20] + b"X" + whole[21:first] + b'00000000 ["a"]\n' + whole[first:])
    assert kept(path, right) is None, "an altered line is no verdict"
    assert kept(path, wrong) == UNREASONED


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Rightness(tmp_path) as rightness:  # a folder
        assert told([(MATH, trace(RIGHT)), (MATH, trace(RIGHT, sample=1))], rightness) == [PASS, PASS]
    assert capsys.readouterr().err.count("verdicts are not kept") == 1


def test_many_verdicts_are_read_soon_and_take_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    path, by = tmp_path / "early-verdicts.log", judged_by(MATH, "math")
    heads = [Head(f"{n:064x}", "", n, 0, "now", "stop") for n in range(20_000)]
    with VerdictCache(path) as cache:
        for n, head in enumerate(heads):
            cache.add(head, by, PASS if n % 3 else UNREASONED)
    cache = VerdictCache(path)
    tracemalloc.start()
    assert cache.find(heads[0], by) == UNREASONED
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 40 * len(heads)
    assert all(cache.find(head, by) == (PASS if n % 3 else UNREASONED) for n, head in enumerate(heads))
    cache.forget()
    assert cache.find(heads[1], by) == PASS, "read again"


def test_failures_are_not_right() -> None:
    given = failed(task_for(MATH, subject(), 0), subject(), "here", "HTTP 500", 0, 3)
    with Rightness(None) as rightness:
        assert told([(MATH, given)], rightness) == [failing("error")]
