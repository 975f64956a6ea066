"""Samples from the student while it learns: what they tell, and that they change nothing about the training."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.contract import Response
from distill.errors import DistillError
from distill.records import Prompt, Sampling
from distill.train import samples
from distill.train.attention import attending_whole
from distill.train.samples import (
    REPEATS,
    Sampler,
    examining,
    loops,
    metrics_line,
    rows_at_once,
    sample_steps,
    write_samples,
)
from distill.train.token_set import Example
from distill.train_specs import SampleSettings
from train.material import CONTRACT, PAD, PLAIN, Log, job, loop_on, model, tokenizer

STOP = 720
GREEDY = Sampling(temperature=0.0)
PROBLEMS = [
    Prompt(f"{a} + {b}", f"sum-{a}-{b}", "math", answer=str(a + b)) for a, b in ((1, 2), (3, 4), (5, 1), (2, 2))
]


def sampler(problems: list[Prompt] = PROBLEMS, sampling: Sampling = GREEDY, **changed: Any) -> Sampler:
    """On the tiny tokenizer, 4 problems, 40 tokens a reply."""
    settings = {"max_tokens": 40, "problems": 16, **changed.pop("settings", {})}
    options = {"seed": 3, "stops": {STOP}, "pad": PAD, "context": 256, **changed}
    return Sampler(CONTRACT, tokenizer(), problems, SampleSettings(**settings), sampling, **options)


def ids_of(text: str, *, stop: bool = True) -> list[int]:
    return [*tokenizer().encode(text, add_special_tokens=False), *([STOP] if stop else [])]


# --- what a loop is --------------------------------------------------------------------------------------------------


def numbers(text: str) -> list[int]:
    return ids_of(text, stop=False)


@pytest.mark.parametrize(
    "ids",
    [
        [7] * 64,
        numbers("We add 3 and 4.") + [9] * 200,
        numbers("So 12 + 30 = 42. ") + numbers("Wait, let me check that again. ") * 12,
        list(range(300)) + list(range(100)) * 4,
        numbers("Wait, no. ") * 40 + numbers("Wait, no. ")[:2],
    ],
    ids=["one token", "one token after a text", "a sentence", "a paragraph", "broken off within a round"],
)
def test_a_reply_that_ends_in_a_cycle_loops(ids: list[int]) -> None:
    assert loops(ids)


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [7],
        [7] * 63,
        list(range(100)) * 3 + list(range(99)),
        numbers("1/3 = 0.3333333333333333"),
        numbers("Wait, let me check that again. ") * 12 + numbers("Now it is right: 42, and that is the answer."),
        numbers(" ".join(f"{n} + {n + 1} = {2 * n + 1}," for n in range(60))),
        numbers("\n".join(f"Step {n}: take 7 away, {500 - 7 * n} is left." for n in range(40))),
        numbers(", ".join(str(n) for n in range(2, 200, 2))),
        numbers("[0, 0, 0, 1],\n[0, 0, 1, 0],\n[0, 1, 0, 0],\n[1, 0, 0, 0]\n" * 2),
    ],
    ids=[
        "nothing",
        "a token",
        "a short row",
        "three rounds",
        "a fraction",
        "left behind",
        "sums",
        "steps",
        "list",
        "matrix",
    ],
)
def test_counting_listing_and_a_loop_that_was_left_do_not_loop(ids: list[int]) -> None:
    assert not loops(ids)


def test_loops_agrees_with_trying_every_period() -> None:
    rng = random.Random(0)

    def plainly(ids: list[int]) -> bool:
        for period in range(1, len(ids) // REPEATS + 1):
            span = period
            while span < len(ids) and ids[-1 - span] == ids[-1 - span + period]:
                span += 1
            if span >= max(samples.LEAST_SPAN, REPEATS * period):
                return True
        return False

    found = 0
    for _ in range(600):
        piece = [rng.randrange(3) for _ in range(rng.randrange(1, 30))]
        ids = [rng.randrange(3) for _ in range(rng.randrange(40))] + piece * rng.randrange(9)
        ids += piece[: rng.randrange(len(piece))]
        if rng.random() < 0.3:
            ids.append(rng.randrange(3))
        assert loops(ids) == plainly(ids)
        found += loops(ids)
    assert 100 < found < 500


# --- what a report tells ---------------------------------------------------------------------------------------------

GOOD = "1 + 2 = 3\n</think>\n\n3"


def report_on(*replies: list[int], problems: list[Prompt] | None = None) -> Any:
    asked = problems or PROBLEMS[:1] * len(replies)
    return sampler(asked)._report(replies)


def test_a_right_reply_in_the_form() -> None:
    report = report_on(ids_of(GOOD))
    assert (report.stop_rate, report.tag_rate, report.loop_rate, report.accuracy) == (1.0, 1.0, 0.0, 1.0)
    (sample,) = report.samples
    assert (sample.problem, sample.reply, sample.outcome, sample.gold) == ("sum-1-2", GOOD, "pass", "3")
    assert report.mean_tokens == sample.tokens == len(ids_of(GOOD))
    assert report.examples == (GOOD,)


@pytest.mark.parametrize(
    ("text", "stop", "form", "outcome"),
    [
        ("1 + 2 = 3\n</think>\n\n4", True, "", "fail"),
        ("1 + 2 = 3\n</think>\n\n3", False, "", "fail"),
        ("1 + 2 = 3", True, "missing_close", "fail"),
        ("1 + 2 = 3\n</think>\n\n", True, "missing_answer", "fail"),
        ("1 <think> 2\n</think>\n\n3", True, "doubled_tag", "pass"),
        ("1\n</think>\n\n3 </think> 3", True, "leaked_tag", None),
        ("</think>\n\n3", True, "missing_reasoning", "pass"),
    ],
    ids=["wrong", "cut", "never closed", "no answer", "opened twice", "closed twice", "no reasoning"],
)
def test_every_fault_has_its_name(text: str, stop: bool, form: str, outcome: str | None) -> None:
    report = report_on(ids_of(text, stop=stop))
    (sample,) = report.samples
    assert sample.form == form
    assert report.tag_rate == (0.0 if form else 1.0)
    assert report.stop_rate == float(stop)
    if outcome is not None:
        assert sample.outcome == outcome
        assert report.accuracy == (1.0 if outcome == "pass" else 0.0)


@pytest.mark.parametrize(
    ("reasoning", "text", "form"),
    [
        ("required", GOOD, ""),
        ("optional", "</think>\n\n3", ""),
        ("optional", GOOD, ""),
        ("none", "</think>\n\n3", ""),
        ("none", GOOD, "unwanted_reasoning"),
    ],
)
def test_the_form_depends_on_what_the_problem_wants(reasoning: Any, text: str, form: str) -> None:
    problem = Prompt("1 + 2", "p", "math", reasoning, "3")
    assert report_on(ids_of(text), problems=[problem]).samples[0].form == form


def test_rates_are_shares_of_all_samples() -> None:
    endless = ids_of("3 " * 80, stop=False)
    ended = ids_of("3 " * 80)
    report = report_on(ids_of(GOOD), endless, ended, ids_of("1 + 2", stop=False))
    assert (report.stop_rate, report.tag_rate, report.loop_rate, report.accuracy) == (0.5, 0.25, 0.25, 0.25)
    assert [sample.looped for sample in report.samples] == [False, True, False, False]
    assert report.metrics == {
        "sample_stop_rate": 0.5,
        "sample_tag_rate": 0.25,
        "sample_loop_rate": 0.25,
        "sample_accuracy": 0.25,
        "sample_tokens": report.mean_tokens,
    }
    assert metrics_line(report).startswith("4 samples: 50% stop, 25% keep to the form, 25% loop, 25% right, ")


def test_what_nobody_can_judge_does_not_count() -> None:
    unjudged = [Prompt("Say something", "o", "open"), Prompt("1 + 2", "no-gold", "math")]
    report = report_on(ids_of(GOOD), ids_of(GOOD), ids_of(GOOD), problems=[*unjudged, PROBLEMS[0]])
    assert report.accuracy == 1.0
    assert [sample.outcome for sample in report.samples] == [None, None, "pass"]
    alone = report_on(ids_of(GOOD), problems=unjudged[:1])
    assert alone.accuracy is None
    assert "sample_accuracy" not in alone.metrics
    assert "right" not in metrics_line(alone)


def test_a_verifier_that_breaks_does_not_count_and_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "JUDGE", "math:sqrt")  # takes one number, gets a prompt and more
    report = report_on(ids_of(GOOD))
    assert report.accuracy is None
    assert (report.samples[0].outcome, report.samples[0].reason) == ("abstain", "verifier_error")


def test_samples_are_written_to_be_read(tmp_path: Path) -> None:
    write_samples(report_on(ids_of(GOOD), ids_of("1 + 2 = 3")), tmp_path / "logs", 40)
    rows = [json.loads(line) for line in (tmp_path / "logs" / "samples-00000040.jsonl").read_text().splitlines()]
    assert [(row["problem"], row["reply"], row["form"], row["outcome"]) for row in rows] == [
        ("sum-1-2", GOOD, "", "pass"),
        ("sum-1-2", "1 + 2 = 3", "missing_close", "fail"),
    ]


def test_a_full_disk_does_not_stop_the_training(tiny_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(OSError), (tiny_disk / "filler").open("wb") as file:
        file.write(bytes(1_000_000))
    write_samples(report_on(*[ids_of(GOOD)] * 4), tiny_disk, 40)
    assert "the samples of step 40 could not be written (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "settings", "expected"),
    [
        (100, {}, {25, 50, 75, 100}),
        (99, {}, set()),
        (3, {"every_steps": 1}, {1, 2, 3}),
        (10, {"every_steps": 4}, {4, 8, 10}),
        (10, {"every_steps": 50}, {10}),
        (100, {"problems": 0}, set()),
    ],
)
def test_when_the_student_is_asked(steps: int, settings: dict[str, int], expected: set[int]) -> None:
    assert sample_steps(steps, SampleSettings(**settings)) == expected


# --- a student that is asked -----------------------------------------------------------------------------------------


def learnt(problem: Prompt) -> Example:
    a, b = problem.question.split(" + ")
    response = Response(f"{a} + {b} = {problem.answer}", str(problem.answer))
    messages = CONTRACT.messages(problem.text, problem.kind)
    encoded = CONTRACT.encode(tokenizer(), messages, response)
    return Example(problem.id, np.array(encoded.ids, np.int32), encoded.loss_start)


def test_a_student_that_has_learnt_its_problems_says_so(tmp_path: Path) -> None:
    """From noise to four right replies: asked before and after a real training on them."""
    student, asking = model(), sampler()
    before = asking.sample(student)
    assert before is not None
    assert (before.tag_rate, before.accuracy) == (0.0, 0.0)
    settings = PLAIN.model_copy(update={"epochs": 150, "learning_rate": 1e-2})
    what = job(tmp_path / "job", train=[learnt(p) for p in PROBLEMS], heldout=[], settings=settings)
    loop_on(student, what).run()
    after = asking.sample(student, lambda: attending_whole(student))
    assert after is not None
    assert (after.stop_rate, after.tag_rate, after.loop_rate, after.accuracy) == (1.0, 1.0, 0.0, 1.0)
    assert after.examples[0] == GOOD


@pytest.fixture
def noisy() -> Any:
    """A student with dropout, which tells training from evaluation mode, in training mode."""
    student = model()
    student.model.layers[0].self_attn.attention_dropout = 0.5
    return student.train()


def test_the_same_problems_are_asked_with_the_same_seeds(noisy: Any) -> None:
    drawn = sampler(sampling=Sampling(temperature=1.0))
    first, second = drawn.sample(noisy), drawn.sample(noisy)
    assert first == second
    replies = {sample.reply for sample in first.samples}
    assert len(replies) == 4
    other = sampler(sampling=Sampling(temperature=1.0), seed=4).sample(noisy)
    assert other.samples != first.samples


def test_batches_of_one_give_what_a_batch_of_all_gives(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampler(sampling=Sampling(temperature=1.0)).sample(noisy)
    monkeypatch.setattr(samples, "rows_at_once", lambda *_: 1)
    assert sampler(sampling=Sampling(temperature=1.0)).sample(noisy) == whole


def test_the_limit_of_a_reply_is_the_settings_or_what_the_context_leaves() -> None:
    length = len(CONTRACT.encode_prompt(tokenizer(), CONTRACT.messages("1 + 2", "math")))
    assert [row.max_tokens for row in sampler()._rows] == [40] * 4
    assert [row.max_tokens for row in sampler(context=length + 5)._rows] == [5] * 4
    assert sampler(context=length)._rows == []
    assert sampler(context=length).sample(model()) is None
    assert len(sampler(settings={"problems": 3}).problems) == 3
    assert sampler(settings={"problems": 0}).sample(model()) is None


def test_memory_bounds_how_many_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key and a value of 16 numbers of 4 bytes, in 2 heads and 2 layers: 512 bytes a token."""
    monkeypatch.setattr(samples, "CPU_CACHE_BYTES", 512 * 100 * 3)
    assert rows_at_once(model(), 100) == 3
    assert rows_at_once(model(), 101) == 2
    assert rows_at_once(model(), 1_000_000) == 1


def modes(student: Any) -> list[bool]:
    return [module.training for module in student.modules()]


def test_every_module_is_put_back_into_its_mode_even_after_an_error(noisy: Any) -> None:
    noisy.model.layers[1].eval()  # such as a frozen part
    before = modes(noisy)
    assert True in before
    assert False in before
    sampler().sample(noisy)
    assert modes(noisy) == before
    with examining(noisy):
        assert not any(modes(noisy))
    assert modes(noisy) == before
    with pytest.raises(DistillError), examining(noisy):
        raise DistillError("something else")
    assert modes(noisy) == before


def test_random_states_are_untouched(noisy: Any) -> None:
    import numpy as np

    def states() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]

    before = states()
    sampler(sampling=Sampling(temperature=1.0, top_p=0.9)).sample(noisy)
    assert states() == before


def test_a_reply_is_left_off_for_a_stop_and_the_student_is_as_before() -> None:
    student, asked = model().train(), []

    def stop() -> bool:
        asked.append(None)
        return len(asked) == 3

    assert sampler().sample(student, stop=stop) is None
    assert len(asked) == 3, "the prompts and one token more"
    assert all(part.training for part in student.modules())
    assert sampler().sample(student) is not None


@pytest.mark.parametrize("precision", ["fp32", "mixed"])
def test_a_training_with_samples_ends_in_the_very_weights_of_one_without(tmp_path: Path, precision: Any) -> None:
    """With the real loop, and dropout, which would show a random state that was moved."""
    settings = PLAIN.model_copy(update={"precision": precision})
    ended, reports = [], []
    for name in ("without", "with"):
        student = model()
        student.model.layers[0].mlp.register_forward_hook(
            lambda layer, _, output: torch.nn.functional.dropout(output, 0.5, layer.training)
        )
        asking = sampler(sampling=Sampling(temperature=1.0), mixed=precision == "mixed")
        torch.manual_seed(11)

        class Asking(Log):
            def after_step(
                self,
                done: int,
                steps: int,
                stop: Callable[[], bool],
                name: str = name,
                student: Any = student,
                asking: Sampler = asking,
            ) -> bool:
                if name == "with":
                    reports.append(asking.sample(student, lambda: attending_whole(student)))
                return name == "with"

        loop_on(student, job(tmp_path / name, settings=settings), Asking()).run()
        ended.append(torch.cat([p.detach().flatten() for p in student.parameters()]))
    assert len(reports) == 8
    assert torch.equal(*ended)


# --- a copy, four bits, many processes -------------------------------------------------------------------------------


def test_another_model_can_be_asked_instead(noisy: Any) -> None:
    entered: list[str] = []

    @contextlib.contextmanager
    def copied() -> Iterator[Any]:
        entered.append("in")
        yield model(seed=1)
        entered.append("out")

    calls: list[int] = []
    noisy.register_forward_pre_hook(lambda *_: calls.append(1))
    assert sampler().sample(noisy, copied) == sampler().sample(model(seed=1))
    assert entered == ["in", "out"]
    assert not calls


def four_bits() -> Any:
    """A student in NF4 with an adapter, as QLoRA trains it, on a CPU that says it has bfloat16 products."""
    import bitsandbytes as bnb
    from conftest import tiny_model
    from peft import LoraConfig, get_peft_model

    student = tiny_model("qwen2", hidden_size=64, intermediate_size=128)
    for layer in student.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, linear in list(parent.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    small = bnb.nn.Linear4bit(
                        linear.in_features,
                        linear.out_features,
                        bias=linear.bias is not None,
                        compute_dtype=torch.float32,
                        quant_type="nf4",
                    )
                    small.load_state_dict(linear.state_dict())
                    setattr(parent, name, small.to("cpu"))
    adapted = get_peft_model(student, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    found = [module for module in adapted.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(found) == 14
    for module in found:
        module.support_avx512bf16_for_cpu = True
    return adapted.train()


def gradients(student: Any) -> list[torch.Tensor]:
    student.zero_grad()
    ids = torch.arange(30)[None]
    student(input_ids=ids, labels=ids).loss.backward()
    return [p.grad for p in student.parameters() if p.requires_grad]


@pytest.fixture
def repacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often bitsandbytes was about to repack weights. Its product of repacked ones needs instructions that not
    every CPU has, so here they are left as they are."""
    from bitsandbytes.nn import modules

    calls: list[int] = []

    def note(weight: Any, state: Any) -> Any:
        calls.append(1)
        return weight, state

    monkeypatch.setattr(modules, "_convert_weight_packed_for_cpu", note)
    return calls


def test_four_bit_weights_are_not_repacked_and_their_gradient_arrives(repacked: list[int]) -> None:
    student = four_bits()
    before = gradients(student)
    report = sampler().sample(student)
    assert report is not None
    assert report.mean_tokens > 0
    assert not repacked
    after = gradients(student)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert any(bool(gradient.abs().sum() > 0) for gradient in after)


def test_plain_evaluation_mode_would_have_repacked_them(repacked: list[int]) -> None:
    """What the test above guards against does happen: a held-out loss measured after `model.eval()` is enough."""
    student = four_bits().eval()
    with torch.no_grad():
        student(input_ids=torch.arange(30)[None])
    assert len(repacked) == 14
    with torch.no_grad(), examining(student):
        repacked.clear()
        student(input_ids=torch.arange(30)[None])
    assert not repacked


RANKS = Path(__file__).parent / "sampling_ranks.py"


@pytest.mark.slow
def test_two_processes_with_half_the_weights_each_say_what_one_says(tmp_path: Path) -> None:
    """FSDP over gloo: the same replies, and then the very training that there is without samples."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(RANKS), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("rank-0", "rank-1")}
    alone = sampler(sampling=Sampling(temperature=1.0)).sample(model())
    assert alone is not None
    assert found["rank-0"]["replies"] == [sample.reply for sample in alone.samples]
    assert found["rank-1"]["replies"] is None
    for rank in found.values():
        assert rank["sharded"]
        assert rank["with"] == rank["without"]
