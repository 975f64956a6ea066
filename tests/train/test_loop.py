"""The loop on a tiny student in float32: what the loss is of, and that a stop changes nothing about the end."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_model

from distill.errors import INTERRUPTED, Interrupted, TrainingError
from distill.specs import TrainSettings
from distill.train import checkpoints, loop
from distill.train.architecture import sizes_of
from distill.train.averaging import Averager
from distill.train.guards import LEAST_STEPS
from distill.train.loop import Job, Loop, Result, learning_rate
from distill.train.optimizer import BETAS, EPSILON
from distill.train.packing import IGNORE, Pack
from distill.train.speed import Peak, Speedometer
from distill.train.student import student_config
from distill.train.token_set import Example
from train.material import PLAIN, Log, examples, job, loop_on, model, spec, tokenizer


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_STEPS", 1)


def changed(**settings: Any) -> TrainSettings:
    return TrainSettings(**{**PLAIN.model_dump(), **settings})


def train(student: Any, what: Job, log: Log | None = None, **more: Any) -> Result:
    return loop_on(student, what, log, **more).run()


def weights(trained: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trained.parameters()])


def by_hand(student: Any, example: Example) -> float:
    """Mean cross-entropy of the response tokens, from the whole model's logits."""
    ids, start = torch.tensor(example.ids.tolist()), example.loss_start
    own = tiny_model("qwen2")  # with transformers' own attention
    own.load_state_dict(student.state_dict())
    with torch.no_grad():
        logits = own(ids[None]).logits[0]
    return float(torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[start:]))


def summed(running: Loop, traces: list[Example]) -> torch.Tensor:
    found: torch.Tensor = running.module(running._pack(traces))
    return found


# --- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_response_tokens(tmp_path: Path) -> None:
    student = model()
    running = loop_on(student, job(tmp_path / "job"))
    for example in examples(5):
        assert running.loss_of([example]) == pytest.approx(by_hand(student, example), abs=1e-5)


def per_token(running: Loop, pack: Pack) -> torch.Tensor:
    """The loss of every token inside it, in the order of the row."""
    module = running.module
    with torch.no_grad():
        decoder = module.model.get_decoder()
        out = decoder(input_ids=pack.input_ids, position_ids=pack.position_ids, segments=pack.segments, use_cache=False)
        logits = module.model.get_output_embeddings()(out.last_hidden_state[0][pack.places])
        losses = torch.nn.functional.cross_entropy(logits, pack.targets, ignore_index=IGNORE, reduction="none")
    assert float(losses.sum()) == pytest.approx(float(module(pack).detach()), abs=1e-2)
    return losses[pack.targets != IGNORE]


def test_company_in_a_pack_does_not_change_a_traces_loss(tmp_path: Path) -> None:
    """In the mean, and for each trace of the pack by itself; a broken pack is found by the same comparison."""
    running = loop_on(tiny_model("qwen2", initializer_range=0.3), job(tmp_path / "job"))
    batch = examples(6)
    alone = [running.loss_of([example]) for example in batch]
    counts = [example.loss_tokens for example in batch]
    mean = sum(own * count for own, count in zip(alone, counts, strict=True)) / sum(counts)

    def by_trace(pack: Pack) -> list[float]:
        return [float(part.mean()) for part in per_token(running, pack).split(counts)]

    pack = running._pack(batch)
    assert len(pack.segments.lengths) == 7, "the traces, and the filler that the CPU gets"
    assert running.loss_of(batch) == pytest.approx(mean, abs=1e-4)
    assert by_trace(pack) == pytest.approx(alone, abs=1e-4)
    size = pack.input_ids.shape[1]
    one = dataclasses.replace(pack.segments, lengths=(size,), bounds=torch.tensor([0, size], dtype=torch.int32))
    for broken in (
        dataclasses.replace(pack, segments=one),  # traces see each other
        dataclasses.replace(pack, segments=one, position_ids=torch.arange(size)[None]),  # as one long text
        dataclasses.replace(pack, position_ids=pack.position_ids.flip(1)),
        dataclasses.replace(pack, places=(pack.places + 1).clamp(max=size - 1)),
    ):
        found = by_trace(broken)
        assert found[1:] != pytest.approx(alone[1:], abs=1e-2), "the first one may see nobody"


def test_the_prompts_tokens_get_no_gradient_of_their_own(tmp_path: Path) -> None:
    """With untied embeddings a token's row in the head gets a gradient as a target only; prompts are no targets."""
    student = tiny_model("qwen2", initializer_range=0.05, tie_word_embeddings=False)
    (example,) = examples(1)
    running = loop_on(student, job(tmp_path / "job", train=[example]))
    ids, start = example.ids.tolist(), example.loss_start
    summed(running, [example]).backward()
    head = student.get_output_embeddings().weight.grad
    own = tiny_model("qwen2", initializer_range=0.05, tie_word_embeddings=False)
    hidden = own.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0].detach()
    chosen = torch.softmax(hidden[start - 1 : -1] @ own.get_output_embeddings().weight.detach().T, -1)
    chosen[torch.arange(len(ids) - start), torch.tensor(ids[start:])] -= 1
    assert torch.allclose(head, chosen.T @ hidden[start - 1 : -1], atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 60])
def test_small_passes_give_the_gradient_of_a_large_one(tmp_path: Path, tokens: int) -> None:
    found, losses = [], []
    for size in (10_000, tokens):
        student, log = model(), Log()
        settings = changed(micro_batch_tokens=size, batch_size=8, epochs=2)
        what = job(tmp_path / str(size), count=8, settings=settings)
        running = loop_on(student, what, log)
        several = len(list(running._packs(what.train, what.schedule.batch(0))))
        assert several == 1 if size == 10_000 else several > 1
        running.run()
        found.append(weights(student))
        losses.append(list(log.losses.values()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.allclose(found[0], found[1], atol=1e-4)


def test_training_lowers_the_loss_and_measures_the_heldout_one(tmp_path: Path) -> None:
    log, student = Log(), model()
    result = train(student, job(tmp_path / "job", settings=changed(epochs=10, learning_rate=5e-3)), log)
    assert result.steps == 40
    assert result.loss == log.losses[40] < 0.7 * log.losses[1]
    assert len(log.heldout) == loop.HELDOUT_TIMES
    assert result.heldout_loss == log.heldout[40]
    assert result.resumed_at == 0
    assert result.tokens_per_s > 0
    assert log.asked == list(range(1, 41))
    again = Log()
    train(model(), job(tmp_path / "job", settings=changed(epochs=10, learning_rate=5e-3)), again)
    assert again.losses == log.losses, "the same job, the same losses"


def test_the_heldout_loss_is_the_mean_over_the_tokens_of_those_that_fit(tmp_path: Path) -> None:
    student, held = model(), examples(5, seed=9)
    places = np.array([0, 3, 4])
    what = dataclasses.replace(job(tmp_path / "job", heldout=held), heldout_places=places)
    expected = [held[place] for place in places]
    tokens = sum(example.loss_tokens for example in expected)
    mean = sum(by_hand(student, example) * example.loss_tokens for example in expected) / tokens
    running = loop_on(student, what)
    assert running.heldout_loss() == pytest.approx(mean, abs=1e-5)
    assert running.module.training, "and training goes on as it was"
    assert all(parameter.grad is None for parameter in student.parameters())
    several = dataclasses.replace(what, settings=changed(micro_batch_tokens=30))
    assert loop_on(student, several).heldout_loss() == pytest.approx(mean, abs=1e-5)
    log = Log()
    train(model(), dataclasses.replace(what, heldout_places=np.zeros(0, np.int64)), log)
    assert not log.heldout


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_other_precisions_learn_as_well(tmp_path: Path, precision: Any) -> None:
    log, student = Log(), model()
    if precision == "bf16":
        student.to(torch.bfloat16)
    train(student, job(tmp_path / "job", settings=changed(precision=precision, epochs=4, learning_rate=1e-2)), log)
    assert log.losses[16] < 0.9 * log.losses[1]
    assert {p.dtype for p in student.parameters()} == {torch.bfloat16 if precision == "bf16" else torch.float32}


@pytest.mark.parametrize(("precision", "dtype"), [("mixed", torch.bfloat16), ("fp32", torch.float32)])
def test_mixed_precision_computes_in_bfloat16(tmp_path: Path, precision: Any, dtype: torch.dtype) -> None:
    student, seen = model(), []
    student.model.layers[0].mlp.down_proj.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    loop_on(student, job(tmp_path / "job", settings=changed(precision=precision))).loss_of(examples(2))
    assert set(seen) == {dtype}


# --- the learning rate -----------------------------------------------------------------------------------------------


def test_the_rate_rises_then_falls_to_one_tenth() -> None:
    settings = TrainSettings(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, 1.0, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10 + 44] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 44 / 89)))


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_rate_of_short_jobs(steps: int) -> None:
    settings = TrainSettings(learning_rate=1.0, warmup=0.03)
    rates = [learning_rate(step, steps, 1.0, settings) for step in range(steps)]
    assert all(0.1 <= rate <= 1.0 for rate in rates)
    assert rates[0] == 1.0
    assert steps == 1 or rates[-1] == pytest.approx(0.1)


def test_every_step_is_made_with_the_rate_of_the_schedule(tmp_path: Path) -> None:
    log, settings = Log(), changed(epochs=5, warmup=0.2, final_learning_rate=0.1)
    train(model(), job(tmp_path / "job", settings=settings), log)
    told = [values["lr"] for values in log if "loss" in values]
    assert told == pytest.approx([learning_rate(step, 20, 1e-3, settings) for step in range(20)])
    assert (max(told), told[-1]) == pytest.approx((1e-3, 1e-4))


def test_every_phase_has_a_rate_and_a_schedule_of_its_own(tmp_path: Path) -> None:
    phases = ({"name": "wide", "epochs": 2}, {"name": "narrow", "epochs": 1, "learning_rate": 4e-3})
    settings, log = changed(warmup=0.25, phases=phases), Log()
    result = train(model(), job(tmp_path / "job", settings=settings), log)
    assert result.steps == 12
    told = [values["lr"] for values in log if "loss" in values]
    first = [learning_rate(step, 8, 1e-3, settings) for step in range(8)]
    second = [learning_rate(step, 4, 4e-3, settings) for step in range(4)]
    assert told == pytest.approx(first + second)
    assert told[8] == pytest.approx(4e-3), "the warmup of one step, from the start again"
    assert [values["phase"] for values in log if "loss" in values] == ["wide"] * 8 + ["narrow"] * 4


@pytest.mark.parametrize("clip", [1e9, 0.05])
def test_a_step_is_adamw_with_clipping_and_decay_on_matrices_alone(tmp_path: Path, clip: float) -> None:
    """Against the update written out by hand, from gradients of torch's own. The first step of AdamW moves each weight
    by the rate in the direction of its gradient, so clipping only shows in the second."""
    settings = changed(epochs=2, weight_decay=0.3, max_grad_norm=clip, learning_rate=1e-2, warmup=0)
    batch, log = examples(4), Log()
    trained, by_hand_too = model(), model()
    train(trained, job(tmp_path / "a", train=batch, heldout=[], settings=settings), log)
    running = loop_on(by_hand_too, job(tmp_path / "b", train=batch, heldout=[], settings=settings))
    state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in by_hand_too.named_parameters()}
    for step in (1, 2):
        by_hand_too.zero_grad()
        (summed(running, batch) / sum(example.loss_tokens for example in batch)).backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in by_hand_too.parameters()))
        assert log[step - 1]["norm"] == pytest.approx(float(norm), rel=1e-4), "told as it was before"
        rate = learning_rate(step - 1, 2, 1e-2, settings)
        with torch.no_grad():
            for name, parameter in by_hand_too.named_parameters():
                gradient = parameter.grad * min(1.0, clip / float(norm))
                first, second = state[name]
                first.lerp_(gradient, 1 - BETAS[0])
                second.lerp_(gradient**2, 1 - BETAS[1])
                if parameter.ndim > 1:
                    parameter.mul_(1 - rate * 0.3)
                scale = torch.sqrt(second / (1 - BETAS[1] ** step)) + EPSILON
                parameter.sub_(rate * first / (1 - BETAS[0] ** step) / scale)
    assert torch.allclose(weights(trained), weights(by_hand_too), atol=1e-5)


# --- stopping and going on -------------------------------------------------------------------------------------------


def uninterrupted(folder: Path, settings: TrainSettings = PLAIN) -> tuple[Log, torch.Tensor]:
    log, student = Log(), model()
    train(student, job(folder, settings=settings), log)
    return log, weights(student)


def kill(number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def before_pass(running: Loop, number: int, what: Callable[[], None]) -> None:
    """Calls `what` as the given pass of a training begins, counted from 1."""
    seen = []

    def hook(*_: Any) -> None:
        if running.module.training:
            seen.append(1)
            if len(seen) == number:
                what()

    running.module.register_forward_pre_hook(hook)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_stopped_by_a_signal_ends_where_an_unstopped_one_does(tmp_path: Path, number: signal.Signals) -> None:
    whole, expected = uninterrupted(tmp_path / "whole")
    before = signal.getsignal(number)
    first = Log(step_3=kill(number))
    with pytest.raises(Interrupted, match="training stopped after step 3 of 8") as caught:
        train(model(), job(tmp_path / "cut"), first)
    assert caught.value.exit_code == INTERRUPTED
    assert signal.getsignal(number) == before
    second, student = Log(), model(seed=1)  # other weights: those of the checkpoint have to take their place
    result = train(student, job(tmp_path / "cut"), second)
    assert result.resumed_at == 3
    assert (first.begun, second.begun) == ([0], [3])
    assert list(first.losses) == [1, 2, 3]
    assert list(second.losses) == [4, 5, 6, 7, 8]
    assert {**first.losses, **second.losses} == pytest.approx(whole.losses, abs=1e-5)
    assert {**first.heldout, **second.heldout} == pytest.approx(whole.heldout, abs=1e-5)
    assert torch.allclose(weights(student), expected, atol=1e-5)


@pytest.mark.parametrize(("stopped_at", "saved"), [(1, 0), (10, 4)])
def test_a_stop_between_two_passes_abandons_the_step(tmp_path: Path, stopped_at: int, saved: int) -> None:
    """Two passes a step: the one under way ends, its gradients are dropped, what is saved is the state before."""
    settings = changed(micro_batch_tokens=1, batch_size=2, epochs=1)
    whole, expected = uninterrupted(tmp_path / "whole", settings)
    first, student = Log(), model()
    running = loop_on(student, job(tmp_path / "cut", settings=settings), first)
    before_pass(running, stopped_at, kill())
    with pytest.raises(Interrupted, match=f"training stopped after step {saved} of 8"):
        running.run()
    assert list(first.losses) == list(range(1, saved + 1))
    assert all(parameter.grad is None for parameter in student.parameters())
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [f"step-{saved:08d}"]
    second, again = Log(), model(seed=1)
    assert train(again, job(tmp_path / "cut", settings=settings), second).resumed_at == saved
    assert {**first.losses, **second.losses} == pytest.approx(whole.losses, abs=1e-5)
    assert torch.allclose(weights(again), expected, atol=1e-5)


def test_a_stop_in_the_last_pass_of_a_step_abandons_it_too(tmp_path: Path) -> None:
    whole, _ = uninterrupted(tmp_path / "whole")
    running = loop_on(model(), job(tmp_path / "cut"))
    before_pass(running, 8, kill())
    with pytest.raises(Interrupted, match="training stopped after step 7 of 8"):
        running.run()
    second = Log()
    train(model(seed=1), job(tmp_path / "cut"), second)
    assert second.losses == pytest.approx({8: whole.losses[8]}, abs=1e-5)


def crash() -> None:
    raise RuntimeError("power cut")


def test_a_job_that_broke_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    settings = changed(checkpoint_steps=2)
    whole, expected = uninterrupted(tmp_path / "whole", settings)
    with pytest.raises(RuntimeError, match="power cut"):
        train(model(), job(tmp_path / "cut", settings=settings), Log(step_7=crash))
    assert [path.name for path in sorted((tmp_path / "cut").iterdir())] == ["step-00000004", "step-00000006"]
    second, student = Log(), model(seed=1)
    assert train(student, job(tmp_path / "cut", settings=settings), second).resumed_at == 6
    assert second.losses == pytest.approx({7: whole.losses[7], 8: whole.losses[8]}, abs=1e-5)
    assert torch.allclose(weights(student), expected, atol=1e-5)


def test_checkpoints_come_by_the_clock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def wait() -> None:
        now[0] += 150

    waiting = Log(**{f"step_{step}": wait for step in range(1, 7)}, step_7=crash)
    with pytest.raises(RuntimeError, match="power cut"):
        train(model(), job(tmp_path / "job", settings=changed(checkpoint_minutes=5, keep_checkpoints=9)), waiting)
    names = sorted(path.name for path in (tmp_path / "job").iterdir())
    assert names == ["step-00000002", "step-00000004", "step-00000006"]
    found = checkpoints.newest(tmp_path / "job", "job")
    assert found is not None
    assert found[1].seconds == 900
    assert train(model(), job(tmp_path / "job")).seconds == 900, "the time of all starts together"


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        kill(signal.SIGINT)()
        kill(signal.SIGINT)()

    with pytest.raises(KeyboardInterrupt) as caught:
        train(model(), job(tmp_path / "job"), Log(step_3=twice))
    assert not isinstance(caught.value, Interrupted)
    assert not list((tmp_path / "job").glob("*"))


def test_a_second_sigterm_changes_nothing(tmp_path: Path) -> None:
    def twice() -> None:
        kill(signal.SIGTERM)()
        kill(signal.SIGTERM)()

    with pytest.raises(Interrupted, match="after step 3"):
        train(model(), job(tmp_path / "job"), Log(step_3=twice))


def test_a_stop_does_not_wait_for_the_heldout_loss(tmp_path: Path) -> None:
    log = Log(step_3=kill())
    with pytest.raises(Interrupted, match="after step 3"):
        train(model(), job(tmp_path / "job"), log)
    assert sorted(log.heldout) == [1, 2]
    again = Log()
    train(model(), job(tmp_path / "job"), again)
    assert sorted(again.heldout) == [3, 4, 5, 6, 7, 8], "the next start measures what was left off"


def test_a_stop_does_not_wait_for_samples(tmp_path: Path) -> None:
    told = []

    class Looking(Log):
        def after_step(self, done: int, steps: int, stop: Callable[[], bool]) -> bool:
            told.append(stop())
            return False

    with pytest.raises(Interrupted):
        train(model(), job(tmp_path / "job"), Looking(step_3=kill()))
    assert told == [False, False, True]
    told.clear()
    train(model(), job(tmp_path / "other"), Looking(step_8=kill()))
    assert told == [False] * 8, "after the last step the student is saved, and samples are part of it"


def test_a_signal_in_the_last_step_finds_the_job_done(tmp_path: Path) -> None:
    result = train(model(), job(tmp_path / "job"), Log(step_8=kill()))
    assert result.steps == 8
    assert math.isfinite(result.loss)
    assert train(model(), job(tmp_path / "job")).loss == pytest.approx(result.loss, abs=1e-5), (
        "and nothing half-done stays"
    )


def test_a_checkpoint_of_another_job_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted):
        train(model(), job(tmp_path / "job", name="one"), Log(step_3=kill()))
    assert train(model(), job(tmp_path / "job", name="other")).resumed_at == 0
    assert "is of another training and is not used" in capsys.readouterr().err


# --- what looks on ---------------------------------------------------------------------------------------------------


def test_the_speed_is_told_with_the_loss(tmp_path: Path) -> None:
    sizes = sizes_of(student_config(spec(), tokenizer()))
    log, what = Log(), job(tmp_path / "job")
    speed = Speedometer(sizes, Peak(1e12, "stated"), devices=1)
    result = train(model(), what, log, speed=speed)
    told = [values["tokens_per_s"] for values in log if "loss" in values]
    assert all(rate > 0 for rate in told)
    assert min(told) <= result.tokens_per_s <= max(told)
    assert all(0 < values["mfu"] < 1 for values in log if "loss" in values)


def test_gradients_are_proven_at_the_start_and_after_every_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven: list[int] = []
    log = Log(looked=(2, 5))
    monkeypatch.setattr(loop, "gradients_arrive", lambda model: proven.append(len(log.asked)))
    train(model(), job(tmp_path / "job"), log)
    assert proven == [0, 2, 5]


def test_a_gradient_that_does_not_arrive_stops_the_training(tmp_path: Path) -> None:
    student = model()
    student.model.layers[1].mlp.down_proj.register_forward_hook(lambda _m, _i, output: output.detach() * 1)
    before = weights(student)
    with pytest.raises(TrainingError, match="gradients do not arrive") as caught:
        train(student, job(tmp_path / "job"))
    assert "model.layers.1.mlp" in str(caught.value.given)
    assert torch.equal(weights(student), before)


def test_snapshots_are_taken_and_survive_a_stop(tmp_path: Path) -> None:
    seen: dict[int, torch.Tensor] = {}
    student = model()

    class Noting(Log):
        def after_step(self, done: int, steps: int, stop: Callable[[], bool]) -> bool:
            seen[done] = weights(student)
            return super().after_step(done, steps, stop)

    steps = (3, 6, 8)
    averager = Averager(tmp_path / "average", steps)
    with pytest.raises(Interrupted):
        train(student, job(tmp_path / "job"), Noting(step_4=kill()), averager=averager)
    student = model(seed=1)
    train(student, job(tmp_path / "job"), Noting(), averager=Averager(tmp_path / "average", steps))
    mean = model(seed=2)
    Averager(tmp_path / "average", steps).put_mean(mean)
    expected = torch.stack([seen[step] for step in steps]).mean(0)
    assert torch.allclose(weights(mean), expected, atol=1e-6)
    assert not torch.allclose(weights(mean), weights(student), atol=1e-6)


# --- what stops it for good ------------------------------------------------------------------------------------------


def named(error: TrainingError) -> list[tuple[str, float]]:
    """Trace → its own loss, as the error tells them."""
    assert error.given is not None
    parts = [part.split(" ") for part in error.given.removeprefix("traces ").split(", ")]
    return [(name, float(loss.strip("()"))) for name, loss in parts]


def test_a_loss_that_is_no_number_names_the_traces_and_changes_nothing(tmp_path: Path) -> None:
    settings = changed(checkpoint_steps=2)
    student = model()

    def spoil() -> None:
        with torch.no_grad():
            student.model.norm.weight[0] = math.nan

    what = job(tmp_path / "job", settings=settings)
    with pytest.raises(TrainingError, match="not a number at step 6") as caught:
        train(student, what, Log(step_5=spoil))
    names = [name for name, loss in named(caught.value)]
    assert set(names) == {what.train.example(int(i)).trace_id for i in what.schedule.batch(5)}
    assert all(math.isnan(loss) for _, loss in named(caught.value))
    assert "learning_rate" in str(caught.value)
    assert sorted(path.name for path in what.checkpoints.iterdir()) == ["step-00000002", "step-00000004"]
    assert bool(weights(student).isnan().sum() == 1), "no step was made with it"


def test_a_heldout_loss_that_is_no_number_ends_a_job_that_no_step_follows(tmp_path: Path) -> None:
    student = model()
    what = job(tmp_path / "job", settings=changed(epochs=1))
    running = loop_on(student, what)

    class Spoils(torch.optim.SGD):
        """Makes the weights no numbers with the last update, which no loss of a step can tell any more."""

        def step(self, closure: Any = None) -> None:
            updates.append(1)
            if len(updates) == what.schedule.steps:
                student.model.norm.weight.data[0] = math.nan

    updates: list[int] = []
    running.optimizer = Spoils(student.parameters(), lr=0.0)
    with pytest.raises(TrainingError, match="held-out loss is not a number after the last step") as caught:
        running.run()
    assert "learning_rate" in str(caught.value)


LONG = changed(epochs=8, learning_rate=1e-2, max_loss_jump=1.0)
"""32 steps, in which a student gets from 6.6 to below 3 nats per token."""


def stray(seed: int = 1) -> Example:
    """Nothing like the others."""
    ids = np.random.RandomState(seed).randint(300, 700, 60).astype(np.int32)
    return Example("stray", ids, 10)


def with_a_stray(folder: Path, settings: TrainSettings, at: int = 28) -> Job:
    """The job, but for step `at` (from 0), in which one trace's place is taken by one like none before."""
    what = job(folder, train=[*examples(16), stray()], settings=settings)

    class Strayed:
        steps = 4 * 8

        def phase_at(self, step: int) -> Any:
            return what.schedule.phase_at(step)

        def batch(self, step: int) -> Any:
            found = np.arange(4) + 4 * (step % 4)
            if step == at:
                found[1] = 16
            return found

    return dataclasses.replace(what, schedule=Strayed())  # type: ignore[arg-type]


def test_a_jump_of_the_loss_stops_before_the_weights_take_the_step(tmp_path: Path) -> None:
    student, log, seen = model(), Log(), list[torch.Tensor]()
    log.at = {28: lambda: seen.append(weights(student))}
    with pytest.raises(TrainingError, match=r"the loss jumps to .* at step 29") as caught:
        train(student, with_a_stray(tmp_path / "job", LONG), log)
    assert torch.equal(weights(student), seen[0]), "those after step 28"
    assert all(parameter.grad is None for parameter in student.parameters())
    found = named(caught.value)
    assert found[0][0] == "stray"
    assert [loss for _, loss in found] == sorted((loss for _, loss in found), reverse=True)
    assert len(found) == 4
    own = loop_on(student, job(tmp_path / "own")).loss_of([stray()])
    assert found[0][1] == pytest.approx(own, abs=1e-3), "the trace's own mean"
    assert list(log.losses)[-1] == 28


def test_with_null_a_jump_passes(tmp_path: Path) -> None:
    log = Log()
    result = train(
        model(), with_a_stray(tmp_path / "job", changed(**{**LONG.model_dump(), "max_loss_jump": None})), log
    )
    assert result.steps == 32
    assert log.losses[29] > log.losses[28] + 1


def test_what_the_loss_was_before_a_stop_still_counts_after_it(tmp_path: Path) -> None:
    """Without the losses of the first start there would be too few to compare with, and the jump would pass."""
    at = LEAST_STEPS + 8
    with pytest.raises(Interrupted):
        train(model(), with_a_stray(tmp_path / "job", LONG, at), Log(**{f"step_{LEAST_STEPS}": kill()}))
    with pytest.raises(TrainingError, match=f"the loss jumps to .* of the {at} steps before"):
        train(model(), with_a_stray(tmp_path / "job", LONG, at))


def test_one_trace_is_enough(tmp_path: Path) -> None:
    one = job(tmp_path / "job", count=1, heldout=[])
    result = train(model(), one)
    assert (result.steps, result.heldout_loss) == (2, None)
