"""The loop on a tiny student in float32: what the loss is of, and that a stop changes nothing about the end."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from distill.train.encoding import Example, steps_in

from distill.errors import INTERRUPTED, Interrupted, TrainingError
from distill.specs import TrainSettings
from distill.train import loop
from distill.train.loop import Job, _Loop, learning_rate, train
from train.material import PLAIN, examples, job, model


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_STEPS", 1)


class Log(list[dict[str, Any]]):
    """What the loop tells; `at` calls a function after that step was told."""

    def __init__(self, **at: Any) -> None:
        super().__init__()
        self.at = {int(step.removeprefix("step_")): call for step, call in at.items()}

    def __call__(self, values: dict[str, Any]) -> None:
        self.append(values)
        if "loss" in values and values["step"] in self.at:
            self.at[values["step"]]()

    @property
    def losses(self) -> dict[int, float]:
        return {values["step"]: values["loss"] for values in self if "loss" in values}

    @property
    def heldout(self) -> dict[int, float]:
        return {values["step"]: values["heldout_loss"] for values in self if "heldout_loss" in values}


def changed(**settings: Any) -> TrainSettings:
    return TrainSettings(**{**PLAIN.model_dump(), **settings})


def weights(trained: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trained.parameters()])


def by_hand(student: Any, example: Example) -> float:
    """Mean cross-entropy of the response tokens, from the whole model's logits."""
    ids, start = torch.tensor(example.encoded.ids), example.encoded.loss_start
    with torch.no_grad():
        logits = student(ids[None]).logits[0]
    return float(torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[start:]))


def summed(running: _Loop, part: list[Example]) -> float:
    with torch.no_grad():
        return float(running._summed_loss(part))


# --- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_response_tokens(tmp_path: Path) -> None:
    student = model()
    running = _Loop(student, job(tmp_path), Log())
    for example in examples(5):
        assert running.loss_of([example]) == pytest.approx(by_hand(student, example), abs=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_and_company_do_not_change_a_samples_loss(tmp_path: Path, attention: str) -> None:
    student = model()
    running = _Loop(student, job(tmp_path), Log())
    batch = examples(6)
    alone = [summed(running, [example]) for example in batch]
    student.set_attn_implementation(attention)
    assert summed(running, batch) == pytest.approx(sum(alone), abs=1e-4)
    longest = max(batch, key=lambda example: example.length)
    for example, own in zip(batch, alone, strict=True):
        if example is not longest:
            together = summed(running, [example, longest])
            assert together - summed(running, [longest]) == pytest.approx(own, abs=1e-4)
    assert running.loss_of(batch) == pytest.approx(sum(alone) / sum(e.loss_tokens for e in batch), abs=1e-5)


def test_the_prompts_tokens_get_no_gradient_of_their_own(tmp_path: Path) -> None:
    """With untied embeddings a token's row in the head gets a gradient as a target only; prompts are no targets."""
    from conftest import tiny_model

    student = tiny_model("qwen2", initializer_range=0.05, tie_word_embeddings=False)
    (example,) = examples(1)
    running = _Loop(student, job(tmp_path, train=[example]), Log())
    ids, start = example.encoded.ids, example.encoded.loss_start
    running._summed_loss([example]).backward()
    head = student.get_output_embeddings().weight.grad
    hidden = student.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0].detach()
    chosen = torch.softmax(hidden[start - 1 : -1] @ student.get_output_embeddings().weight.detach().T, -1)
    chosen[torch.arange(len(ids) - start), torch.tensor(ids[start:])] -= 1
    assert torch.allclose(head, chosen.T @ hidden[start - 1 : -1], atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 60])
def test_small_passes_give_the_gradient_of_a_large_one(tmp_path: Path, tokens: int) -> None:
    found, losses = [], []
    for size in (10_000, tokens):
        student, log = model(), Log()
        settings = changed(micro_batch_tokens=size, batch_size=8, epochs=2)
        train(student, job(tmp_path / str(size), count=8, settings=settings), log)
        found.append(weights(student))
        losses.append(list(log.losses.values()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.allclose(found[0], found[1], atol=1e-4)


def test_training_lowers_the_loss_and_measures_the_heldout_one(tmp_path: Path) -> None:
    log, student = Log(), model()
    result = train(student, job(tmp_path, settings=changed(epochs=10, learning_rate=5e-3)), log)
    assert result.steps == 40
    assert result.loss == log.losses[40] < 0.7 * log.losses[1]
    assert len(log.heldout) == 10
    assert result.heldout_loss == log.heldout[40]
    assert result.resumed_at == 0
    again = Log()
    train(model(), job(tmp_path, settings=changed(epochs=10, learning_rate=5e-3)), again)
    assert again.losses == log.losses, "the same job, the same losses"


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_other_precisions_learn_as_well(tmp_path: Path, precision: Any) -> None:
    log, student = Log(), model()
    if precision == "bf16":
        student.to(torch.bfloat16)
    train(student, job(tmp_path, settings=changed(precision=precision, epochs=8, learning_rate=5e-3)), log)
    assert log.losses[32] < 0.9 * log.losses[1]
    assert {p.dtype for p in student.parameters()} == {torch.bfloat16 if precision == "bf16" else torch.float32}


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
    train(model(), job(tmp_path, settings=settings), log)
    told = [values["lr"] for values in log if "loss" in values]
    assert told == pytest.approx([learning_rate(step, 20, 1e-3, settings) for step in range(20)])
    assert (max(told), told[-1]) == pytest.approx((1e-3, 1e-4))


@pytest.mark.parametrize("clip", [1e9, 0.05])
def test_a_step_is_adamw_with_clipping_and_decay_on_matrices_alone(tmp_path: Path, clip: float) -> None:
    """Against the update written out by hand, from gradients of torch's own. The first step of AdamW moves each weight
    by the rate in the direction of its gradient, so clipping only shows in the second."""
    settings = changed(epochs=2, weight_decay=0.3, max_grad_norm=clip, learning_rate=1e-2, warmup=0)
    batch = examples(4)
    trained, by_hand_too = model(), model()
    train(trained, job(tmp_path, train=batch, heldout=[], settings=settings), Log())
    running = _Loop(by_hand_too, job(tmp_path / "b", train=batch, heldout=[], settings=settings), Log())
    state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in by_hand_too.named_parameters()}
    for step in (1, 2):
        by_hand_too.zero_grad()
        (running._summed_loss(batch) / sum(example.loss_tokens for example in batch)).backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in by_hand_too.parameters()))
        rate = learning_rate(step - 1, 2, 1e-2, settings)
        with torch.no_grad():
            for name, parameter in by_hand_too.named_parameters():
                gradient = parameter.grad * min(1.0, clip / float(norm))
                first, second = state[name]
                first.lerp_(gradient, 1 - loop.BETAS[0])
                second.lerp_(gradient**2, 1 - loop.BETAS[1])
                if parameter.ndim > 1:
                    parameter.mul_(1 - rate * 0.3)
                scale = torch.sqrt(second / (1 - loop.BETAS[1] ** step)) + loop.EPSILON
                parameter.sub_(rate * first / (1 - loop.BETAS[0] ** step) / scale)
    assert torch.allclose(weights(trained), weights(by_hand_too), atol=1e-5)


@pytest.mark.parametrize(("precision", "dtype"), [("mixed", torch.bfloat16), ("fp32", torch.float32)])
def test_mixed_precision_computes_in_bfloat16(tmp_path: Path, precision: Any, dtype: torch.dtype) -> None:
    student, seen = model(), []
    student.model.layers[0].mlp.down_proj.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    _Loop(student, job(tmp_path, settings=changed(precision=precision)), Log()).loss_of(examples(2))
    assert set(seen) == {dtype}


# --- stopping and going on -------------------------------------------------------------------------------------------


def uninterrupted(folder: Path, settings: TrainSettings = PLAIN) -> tuple[Log, torch.Tensor]:
    log, student = Log(), model()
    train(student, job(folder, settings=settings), log)
    return log, weights(student)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_stopped_by_a_signal_ends_where_an_unstopped_one_does(tmp_path: Path, number: signal.Signals) -> None:
    whole, expected = uninterrupted(tmp_path / "whole")
    before = signal.getsignal(number)
    first = Log(step_3=lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match="training stopped after step 3 of 8") as caught:
        train(model(), job(tmp_path / "cut"), first)
    assert caught.value.exit_code == INTERRUPTED
    assert signal.getsignal(number) == before
    second, student = Log(), model(seed=1)  # other weights: those of the checkpoint have to take their place
    result = train(student, job(tmp_path / "cut"), second)
    assert result.resumed_at == 3
    assert list(first.losses) == [1, 2, 3]
    assert list(second.losses) == [4, 5, 6, 7, 8]
    assert {**first.losses, **second.losses} == pytest.approx(whole.losses, abs=1e-5)
    assert {**first.heldout, **second.heldout} == pytest.approx(whole.heldout, abs=1e-5)
    assert torch.allclose(weights(student), expected, atol=1e-5)


def test_a_job_that_broke_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    settings = changed(checkpoint_steps=2)
    whole, expected = uninterrupted(tmp_path / "whole", settings)

    def crash() -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(model(), job(tmp_path / "cut", settings=settings), Log(step_7=crash))
    assert [path.name for path in sorted((tmp_path / "cut").iterdir())] == ["step-00000004", "step-00000006"]
    second, student = Log(), model(seed=1)
    assert train(student, job(tmp_path / "cut", settings=settings), second).resumed_at == 6
    assert second.losses == pytest.approx({7: whole.losses[7], 8: whole.losses[8]}, abs=1e-5)
    assert torch.allclose(weights(student), expected, atol=1e-5)


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(model(), job(tmp_path), Log(step_3=twice))
    assert not isinstance(caught.value, Interrupted)
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


def test_a_signal_in_the_last_step_finds_the_job_done(tmp_path: Path) -> None:
    result = train(model(), job(tmp_path), Log(step_8=lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert result.steps == 8
    assert math.isfinite(result.loss)
    assert train(model(), job(tmp_path), Log()).loss == pytest.approx(result.loss, abs=1e-5), (
        "and nothing half-done stays"
    )


def test_a_checkpoint_of_another_job_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(model(), job(tmp_path, name="one"), Log(step_3=lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert train(model(), job(tmp_path, name="other"), Log()).resumed_at == 0


# --- what stops it for good ------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_names_the_traces_and_changes_nothing(tmp_path: Path) -> None:
    settings = changed(checkpoint_steps=2)
    student = model()

    def spoil() -> None:
        with torch.no_grad():
            student.model.norm.weight[0] = math.nan

    with pytest.raises(TrainingError, match="not a number at step 6") as caught:
        train(student, job(tmp_path, settings=settings), Log(step_5=spoil))
    assert caught.value.given is not None
    named = caught.value.given.removeprefix("traces ").split(", ")
    assert len(named) == 4
    assert set(named) <= {example.trace_id for example in examples(16)}
    assert "learning_rate" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]
    assert bool(weights(student).isnan().sum() == 1), "no step was made with it"


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(model(), job(tmp_path, train=[]), Log())


def test_one_trace_is_enough(tmp_path: Path) -> None:
    one: Job = job(tmp_path, count=1, heldout=[])
    result = train(model(), one, Log())
    assert (result.steps, result.heldout_loss) == (steps_in(1, 4, 2), None)
