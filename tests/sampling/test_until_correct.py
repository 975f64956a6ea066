"""Which samples are asked for: of every prompt the fewest that can do, in an order that is fair wherever it stops."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engines import Reply
from distill.errors import RunError, SpecError
from distill.ledger import Ledger
from distill.records import Prompt, Trace
from distill.sampling import until_correct as module
from distill.sampling.requests import Task, answered, failed, task_for
from distill.sampling.rightness import Done, Rightness
from distill.sampling.tasks import LATER, TaskSource
from distill.sampling.until_correct import UntilCorrect
from distill.sampling.verdict_cache import Head
from sampling.scripted import subject

WHO = subject()
Oracle = Sequence[Sequence[str]]
"""Per prompt and sample: `right`, `wrong` or `error`."""


def prompts(count: int, **changed: Any) -> list[Prompt]:
    return [Prompt(f"question {n}", id=f"p{n}", kind="math", answer="4", **changed) for n in range(count)]


def record(task: Task, what: str, tokens: int | None = 10) -> Trace:
    if what == "error":
        return failed(task, WHO, "here", "HTTP 500", 0, 3)
    text = "<think>\nadd\n</think>\n\n\\boxed{4}" if what == "right" else "\\boxed{4}"
    return answered(task, Reply(text, "stop", "here", completion_tokens=tokens), WHO, 0, 1)


class Held(Rightness):
    """Judges as it does, but not before it is let: what waits can be let through in any order."""

    def __init__(self, cache: Path | None = None) -> None:
        super().__init__(cache)
        self.held: list[tuple[Prompt, Trace, Done]] = []

    def judge(self, prompt: Prompt, trace: Trace, done: Done) -> None:
        self.held.append((prompt, trace, done))

    async def let(self, place: int) -> Trace:
        prompt, trace, done = self.held.pop(place)
        told: asyncio.Event = asyncio.Event()

        def both(outcome: Any) -> None:
            done(outcome)
            told.set()

        super().judge(prompt, trace, both)
        await told.wait()
        return trace


@dataclass
class Run:
    """A ledger as a list, what was asked for in order, and a job over it that can be started again and again."""

    asked_of: list[Prompt]
    oracle: Oracle
    right: int
    samples: int
    records: list[Trace] = field(default_factory=list)
    taken: list[tuple[int, int]] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def source(self, rightness: Rightness, **changed: Any) -> UntilCorrect:
        options = {"existing": [Head.of(trace) for trace in self.records], "reread": lambda: list(self.records)}
        fetch = self.asked_of.__getitem__
        return UntilCorrect(
            self.asked_of, fetch, WHO, rightness, right=self.right, samples=self.samples, **{**options, **changed}
        )

    def note(self, task: Task) -> int:
        assert task.key not in {trace.key for trace in self.records}, "bought twice"
        row = int(task.prompt_id[1:])
        self.taken.append((row, task.sample))
        return row

    def what(self, task: Task) -> str:
        return self.oracle[int(task.prompt_id[1:])][task.sample]

    def needed(self) -> set[tuple[int, int]]:
        """Of each prompt the samples up to the one with which enough are right, or all."""
        found = set()
        for row, script in enumerate(self.oracle):
            right = 0
            for sample in range(self.samples * (self.asked_of[row].repeats or 1)):
                if right < self.right:
                    found.add((row, sample))
                right += script[sample] == "right"
        return found

    def recorded(self) -> list[tuple[int, int]]:
        return sorted((int(trace.prompt_id[1:]), trace.sample) for trace in self.records)


async def go(run: Run, rng: random.Random, steps: int | None, cache: Path | None = None) -> None:
    """Takes, answers and judges in a random order until nothing is left, or for some steps: then it is cut off."""
    woken = 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    with Held(cache) as rightness, run.source(rightness) as source:
        source.wake = wake
        flying: list[Task] = []
        later_since: int | None = None
        while steps is None or steps > 0:
            steps = None if steps is None else steps - 1
            choices = ["take"] + ["settle"] * bool(flying) + ["judge"] * bool(rightness.held)
            choice = rng.choice(choices)
            if choice == "settle":
                task = flying.pop(rng.randrange(len(flying)))
                trace = record(task, run.what(task))
                run.records.append(trace)
                source.settled(task, trace)
            elif choice == "judge":
                await rightness.let(rng.randrange(len(rightness.held)))
            else:
                task_ = source.take()
                if task_ is None:
                    assert not flying
                    assert not rightness.held
                    break
                if task_ is LATER:
                    later_since = woken
                    await asyncio.sleep(0)  # the thread that reads again may have something
                    continue
                if later_since is not None:
                    assert woken > later_since, "nobody said that there was something to take"
                    later_since = None
                assert isinstance(task_, Task)
                row = run.note(task_)
                flying.append(task_)
                out = [t for t in flying if t.prompt_id == task_.prompt_id]
                waiting = [t for p, t, _ in rightness.held if p.id == task_.prompt_id]
                seen = [t for t in run.records if t.prompt_id == task_.prompt_id and t not in waiting]
                right = sum(run.oracle[row][t.sample] == "right" for t in seen)
                assert right + len(out) + len(waiting) <= run.right, "more than can be needed"


@st.composite
def runs(draw: st.DrawFn) -> Run:
    right, samples = draw(st.sampled_from([(1, 1), (1, 3), (2, 3), (2, 5), (3, 4)]))
    repeats = draw(st.lists(st.sampled_from([None, 1, 2]), min_size=1, max_size=5))
    asked_of = [replace(p, repeats=n) for p, n in zip(prompts(len(repeats)), repeats, strict=True)]
    kinds = st.sampled_from(["right", "wrong", "wrong", "error"])
    oracle = [draw(st.lists(kinds, min_size=samples * 2, max_size=samples * 2)) for _ in repeats]
    return Run(asked_of, oracle, right, samples)


@settings(deadline=None, max_examples=60)
@given(runs(), st.integers(0, 2**32), st.lists(st.integers(1, 30), max_size=4), st.booleans())
def test_exactly_the_fewest_are_asked_for_wherever_it_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, run: Run, seed: int, cuts: list[int], keeps: bool
) -> None:
    cache = tmp_path_factory.mktemp("run") / "early-verdicts.log" if keeps else None
    rng = random.Random(seed)
    for cut in cuts:
        asyncio.run(go(run, rng, cut, cache))
    asyncio.run(go(run, rng, None, cache))
    assert run.recorded() == sorted(run.needed())


def in_turn(run: Run, **changed: Any) -> tuple[list[tuple[int, int]], UntilCorrect]:
    """Each sample answered and judged before the next is taken; the order in which they were asked for."""

    async def all_of_it() -> UntilCorrect:
        with Held() as rightness, run.source(rightness, **changed) as source:
            while (task := source.take()) is not None:
                assert isinstance(task, Task)
                run.note(task)
                run.records.append(record(task, run.what(task)))
                source.settled(task, run.records[-1])
                if rightness.held:
                    await rightness.let(0)
            return source

    return run.taken, asyncio.run(all_of_it())


def test_first_samples_of_all_come_before_further_ones() -> None:
    oracle = [["wrong", "wrong", "right"], ["right"], ["wrong", "right"], ["error", "wrong", "wrong"]]
    taken, source = in_turn(Run(prompts(4), oracle, 1, 3))
    assert taken == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (2, 1), (3, 1), (0, 2), (3, 2)]
    found = source.saved()
    assert (found.prompts, found.solved, found.exhausted, found.asked, found.right) == (4, 3, 1, 9, 3)
    assert (found.failed, found.broken, found.samples_saved) == (1, 0, 3)


def test_further_samples_come_in_the_order_of_verdicts() -> None:
    async def ask() -> list[int]:
        run = Run(prompts(4), [["wrong"] * 2] * 4, 1, 2)
        with Held() as rightness, run.source(rightness) as source:
            first = [source.take() for _ in range(4)]
            assert source.take() is LATER
            for place in (2, 0, 3, 1):
                task = first[place]
                assert isinstance(task, Task)
                source.settled(task, record(task, "wrong"))
                await rightness.let(0)
            again = [source.take() for _ in range(4)]
            return [int(task.prompt_id[1:]) for task in again if isinstance(task, Task)]

    assert asyncio.run(ask()) == [2, 0, 3, 1]


def test_two_right_answers_wanted_are_two_samples_at_once_and_still_breadth_first() -> None:
    run = Run(prompts(2), [["right"] * 5] * 2, 2, 5)
    with Rightness(None) as rightness, run.source(rightness) as source:
        taken = []
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        for _ in range(4):
            task = source.take()
            assert isinstance(task, Task)
            taken.append((task.prompt_id, task.sample))
        assert taken == [("p0", 0), ("p1", 0), ("p0", 1), ("p1", 1)]
        assert source.take() is LATER


def test_what_is_saved_is_counted_and_estimated() -> None:
    """Tokens by the prompt's own mean, by the mean of all where a prompt has none."""
    run = Run(prompts(3), [["right"], ["wrong", "right"], ["wrong", "wrong", "wrong", "wrong"]], 1, 4)
    tokens = {(0, 0): None, (1, 0): 100, (1, 1): 300, **{(2, n): 50 for n in range(4)}}

    async def ask() -> UntilCorrect:
        with Held() as rightness, run.source(rightness) as source:
            while isinstance(task := source.take(), Task):
                row = run.note(task)
                source.settled(task, record(task, run.what(task), tokens[row, task.sample]))
                await rightness.let(0)
            return source

    source = asyncio.run(ask())
    found = source.saved()
    overall = (100 + 300 + 4 * 50) / 6
    assert found.samples_saved == 3 + 2
    assert found.tokens_saved == round(3 * overall + 2 * 200)
    assert (found.solved, found.exhausted) == (2, 1)
    outlook = source.outlook()
    assert (outlook.settled, outlook.most, outlook.spared, outlook.right, outlook.solved) == (7, 12, 5, 2, 2)


def test_a_sample_that_is_given_up_without_a_record_is_for_the_next_start() -> None:
    async def ask() -> list[object]:
        run = Run(prompts(2), [["wrong"] * 3] * 2, 1, 3)
        with Held() as rightness, run.source(rightness) as source:
            one, other = source.take(), source.take()
            assert isinstance(one, Task)
            assert isinstance(other, Task)
            woken: list[bool] = []
            source.wake = lambda: woken.append(True)
            source.settled(one, None)
            assert source.take() is LATER
            assert not woken
            source.settled(other, None)
            assert woken
            return [source.take()]

    assert asyncio.run(ask()) == [None]


def test_a_verifier_that_breaks_buys_nothing_in_its_place() -> None:
    async def ask() -> UntilCorrect:
        run = Run(prompts(2), [["wrong"] * 3] * 2, 1, 3)
        with (
            Rightness(None, workers=1, function="verify.hostile:no_such_function") as rightness,
            run.source(rightness) as source,
        ):
            moved = asyncio.Event()
            source.wake = moved.set
            while (task := source.take()) is not None:
                if isinstance(task, Task):
                    text = "<think>\nadd\n</think>\n\n\\boxed{5}"
                    source.settled(task, answered(task, Reply(text, "stop", "here"), WHO, 0, 1))
                else:
                    await asyncio.wait_for(moved.wait(), 60)
                    moved.clear()
            return source

    found = asyncio.run(ask()).saved()
    assert (found.asked, found.broken, found.solved, found.exhausted) == (2, 2, 0, 0)


def test_answers_waiting_for_a_verdict_hold_back_further_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNJUDGED", 3)

    async def ask() -> None:
        run = Run(prompts(9), [["right"]] * 9, 1, 1)
        woken: list[bool] = []
        with Held() as rightness, run.source(rightness) as source:
            source.wake = lambda: woken.append(True)
            for _ in range(3):
                task = source.take()
                assert isinstance(task, Task)
                source.settled(task, record(task, "right"))
            assert source.take() is LATER
            assert not woken
            await rightness.let(1)
            assert woken
            assert isinstance(source.take(), Task)

    asyncio.run(ask())


def test_a_verifier_that_cannot_judge_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(SpecError, match="there is no module 'nowhere'"):
        Run(prompts(2), [], 1, 1).source(Rightness(None, chosen={"math": "nowhere:judge"}))


# --- earlier starts --------------------------------------------------------------------------------------------------


def earlier(run: Run, *which: tuple[int, int], who: Any = WHO) -> None:
    for row, sample in which:
        task = task_for(run.asked_of[row], who, sample)
        run.records.append(record(task, run.oracle[row][sample]))


def test_what_an_earlier_start_bought_counts() -> None:
    """Prompts without traces come first; gaps that an interruption left are filled before further samples."""
    oracle = [["wrong"] * 4, ["right"] * 4, ["wrong", "wrong", "right", "wrong"], ["right"] * 4]
    run = Run(prompts(4), oracle, 1, 4)
    earlier(run, (0, 0), (0, 2), (1, 0), (1, 1), (2, 1))

    async def ask() -> list[tuple[int, int]]:
        with Held() as rightness, run.source(rightness) as source:
            first = source.take()
            assert isinstance(first, Task)
            run.note(first)
            while len(rightness.held) < 5:
                assert source.take() is LATER, "their verdicts decide"
                await asyncio.sleep(0.001)
            source.settled(first, record(first, "right"))
            while True:
                while rightness.held:
                    await rightness.let(0)
                task = source.take()
                if task is None:
                    found = source.saved()
                    assert (found.asked, found.solved, found.exhausted) == (5 + 5, 3, 1)
                    assert found.samples_saved == 2 + 1 + 3
                    return run.taken
                assert isinstance(task, Task)
                run.note(task)
                source.settled(task, record(task, run.what(task)))

    taken = asyncio.run(ask())
    assert taken[0] == (3, 0)
    assert sorted(taken[1:]) == [(0, 1), (0, 3), (2, 0), (2, 2)]


def test_verdicts_that_are_kept_need_no_text(tmp_path: Path) -> None:
    run = Run(prompts(3), [["wrong", "right"], ["right", "right"], ["error", "right"]], 1, 2)
    earlier(run, (0, 0), (1, 0), (2, 0))
    cache = tmp_path / "early-verdicts.log"

    async def judge_all() -> None:
        with Held(cache) as rightness:
            for trace in run.records[:2]:
                rightness.judge(run.asked_of[0], trace, lambda outcome: None)
                await rightness.let(0)

    def never() -> Iterator[Trace]:
        raise AssertionError("nothing to read")

    asyncio.run(judge_all())
    with Rightness(cache) as rightness, run.source(rightness, reread=never) as source:
        taken = [source.take() for _ in range(3)]
        assert [(t.prompt_id, t.sample) for t in taken if isinstance(t, Task)] == [("p0", 1), ("p2", 1)]
        assert taken[2] is LATER
        assert rightness.cache._known is None, "given back"


def test_records_of_another_recipe_do_not_count() -> None:
    run = Run(prompts(2), [["right"] * 9] * 2, 1, 2)
    earlier(run, (0, 0), who=subject(sampling=replace(WHO.sampling, temperature=1.0)))
    earlier(run, (0, 5))
    run.records.append(replace(run.records[-1], asked="ab" * 32))
    heads = [Head.of(trace) for trace in run.records]
    with Rightness(None) as rightness, run.source(rightness, existing=[*heads, heads[1]]) as source:
        taken = [source.take(), source.take()]
        assert [(t.prompt_id, t.sample) for t in taken if isinstance(t, Task)] == [("p0", 0), ("p1", 0)]
        assert source.outlook().settled == 0


def test_a_record_that_is_told_twice_counts_once() -> None:
    run = Run(prompts(1), [["error"] * 3], 1, 3)
    earlier(run, (0, 1), (0, 0), (0, 1))
    with Rightness(None) as rightness, run.source(rightness) as source:
        assert source.outlook().settled == 2
        task = source.take()
        assert isinstance(task, Task)
        assert task.sample == 2


def unread(run: Run, reread: Callable[[], Any]) -> None:
    async def ask() -> None:
        with Held() as rightness, run.source(rightness, reread=reread) as source:
            moved = asyncio.Event()
            source.wake = moved.set
            assert source.take() is LATER
            await asyncio.wait_for(moved.wait(), 10)
            source.take()

    asyncio.run(ask())


def test_a_ledger_that_cannot_be_read_ends_it() -> None:
    def torn() -> Iterator[Trace]:
        yield from ()
        raise RunError("part-00000.parquet cannot be read")

    run = Run(prompts(1), [["wrong"] * 3], 1, 3)
    earlier(run, (0, 0))
    with pytest.raises(RunError, match="part-00000"):
        unread(run, torn)
    with pytest.raises(RunError, match="1 traces of this run have vanished"):
        unread(run, list)
    with pytest.raises(TypeError):
        unread(run, lambda: None)


def test_leaving_ends_the_thread_that_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.sampling import backlog

    monkeypatch.setattr(backlog, "AT_ONCE", 2)
    run = Run(prompts(9), [["wrong"] * 3] * 9, 1, 3)
    earlier(run, *((n, 0) for n in range(9)))

    async def ask() -> None:
        with Held() as rightness, run.source(rightness) as source:
            assert source.take() is LATER
            for _ in range(50):
                await asyncio.sleep(0.002)
            assert len(rightness.held) == 2, "no more than that wait for their verdict at a time"
            await rightness.let(0)
            await asyncio.sleep(0.1)
            assert len(rightness.held) == 2

    asyncio.run(asyncio.wait_for(ask(), 20))


def test_it_goes_through_a_real_ledger_and_a_real_verifier(tmp_path: Path) -> None:
    """Twice over the same run: what the first start bought and judged, the second neither buys nor reads."""
    asked_of = prompts(6)
    answers = {0: "\\boxed{4}", 1: "\\boxed{8/2}", 2: "\\boxed{5}", 3: "five", 4: "\\boxed{2+2}", 5: ""}
    cache = tmp_path / "early-verdicts.log"
    bought: Counter[int] = Counter()

    async def start(ledger: Ledger, reread: Callable[[], Any]) -> UntilCorrect:
        with Rightness(cache, workers=1) as rightness:
            source: TaskSource
            heads = [Head.of(trace) for trace in ledger.traces()]
            with UntilCorrect(
                asked_of, asked_of.__getitem__, WHO, rightness, right=1, samples=2, existing=heads, reread=reread
            ) as source:
                moved = asyncio.Event()
                source.wake = moved.set
                while (task := source.take()) is not None:
                    if not isinstance(task, Task):
                        await asyncio.wait_for(moved.wait(), 60)
                        moved.clear()
                        continue
                    row = int(task.prompt_id[1:])
                    bought[row] += 1
                    trace = answered(task, Reply(f"<think>\na\n</think>\n\n{answers[row]}", "stop", "h"), WHO, 0, 1)
                    ledger.append(trace)
                    source.settled(task, trace)
                return source

    with Ledger(tmp_path / "traces") as ledger:
        first = asyncio.run(start(ledger, ledger.traces)).saved()
    assert bought == {0: 1, 1: 1, 2: 2, 3: 2, 4: 1, 5: 2}
    assert (first.solved, first.exhausted, first.asked, first.samples_saved) == (3, 3, 9, 3)
    with Ledger(tmp_path / "traces") as ledger:
        assert asyncio.run(start(ledger, lambda: pytest.fail("read again"))).saved() == first
    cache.unlink()
    with Ledger(tmp_path / "traces") as ledger:
        assert asyncio.run(start(ledger, ledger.traces)).saved() == first
    assert sum(bought.values()) == 9
