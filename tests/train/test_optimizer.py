"""AdamW with stochastic rounding: unbiased, drawn from the seed, and it learns where rounding to nearest stalls."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from distill.train import optimizer as own
from distill.train.optimizer import RoundingAdamW, optimizer_for, round_stochastically
from distill.train_specs import TrainSettings
from train.material import model

BF16 = TrainSettings(precision="bf16", learning_rate=1e-4, weight_decay=0.1)
SPACING = 2.0**-7
"""Between bfloat16 numbers from 1 to 2."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_gradients(module: Any, seed: int = 0) -> Any:
    drawn = generator(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=drawn).to(parameter.dtype)
    return module


def weights(module: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


# --- which one, over what --------------------------------------------------------------------------------------------


def test_float32_weights_have_torchs_own() -> None:
    found = optimizer_for(model(), TrainSettings(learning_rate=3e-4, weight_decay=0.1), seed=1)
    assert type(found) is torch.optim.AdamW
    assert found.defaults["betas"] == (0.9, 0.95)
    assert found.defaults["eps"] == 1e-8
    assert {group["lr"] for group in found.param_groups} == {3e-4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decay_is_on_matrices_alone_and_what_is_frozen_has_no_part(dtype: torch.dtype) -> None:
    student = model().to(dtype)
    student.get_input_embeddings().requires_grad_(False)
    found = optimizer_for(student, BF16, seed=1)
    matrices, vectors = found.param_groups
    assert matrices["weight_decay"] == 0.1
    assert vectors["weight_decay"] == 0.0
    assert all(p.ndim > 1 for p in matrices["params"])
    assert all(p.ndim <= 1 for p in vectors["params"])
    trained = [p for p in student.parameters() if p.requires_grad]
    assert len(matrices["params"]) + len(vectors["params"]) == len(trained) < len(list(student.parameters()))


def test_state_takes_the_bytes_of_its_weights() -> None:
    student = with_gradients(model().to(torch.bfloat16))
    found = optimizer_for(student, BF16, seed=1)
    found.step()
    for parameter in student.parameters():
        kept = [parameter, parameter.grad, found.state[parameter]["exp_avg"], found.state[parameter]["exp_avg_sq"]]
        assert [tensor.dtype for tensor in kept] == [torch.bfloat16] * 4


# --- rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rounding_is_unbiased(share: float, sign: float) -> None:
    """The mean of n roundings lies within 5 standard errors, sqrt(share (1 - share) / n) of a spacing."""
    count = 200_001
    values = torch.full((count,), sign * (1 + share * SPACING))
    round_stochastically(values, generator())
    assert set(values.tolist()) <= {sign, sign * (1 + SPACING)}
    up = float((values.abs() - 1).double().mean()) / SPACING
    assert abs(up - share) <= 5 * (share * (1 - share) / count) ** 0.5 + 1e-9


def test_every_lane_of_the_random_bits_is_uniform_and_independent() -> None:
    bits = own._random_16_bits(400_000, torch.device("cpu"), generator()).view(-1, 4).double() / 2**16
    assert torch.allclose(bits.mean(0), torch.full((4,), 0.5, dtype=torch.float64), atol=0.005)
    assert torch.allclose(bits.var(0), torch.full((4,), 1 / 12, dtype=torch.float64), atol=0.002)
    assert float((torch.corrcoef(bits.T) - torch.eye(4)).abs().max()) < 0.02


def test_what_bfloat16_holds_stays_and_so_do_infinity_and_nan() -> None:
    held = torch.randn(10_000, generator=generator()).bfloat16().float()
    rounded = held.clone()
    round_stochastically(rounded, generator())
    assert torch.equal(held, rounded)
    odd = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0]).repeat(1_000)
    round_stochastically(odd, generator())
    assert torch.equal(odd.view(-1, 4)[:, :2], torch.tensor([torch.inf, -torch.inf]).expand(1_000, 2))
    assert bool(odd.view(-1, 4)[:, 2].isnan().all())
    assert int(odd.view(-1, 4)[:, 3].count_nonzero()) == 0


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1e-4, 1e-5])
def test_small_steps_add_up_where_rounding_to_nearest_loses_every_one(rate: float) -> None:
    """80 steps of `rate` in one direction, from weights of 1 to 2, whose spacing is 78 or 780 times the rate."""
    start = (torch.rand(40_000, generator=generator()) * 0.9 + 1.05).bfloat16()
    settings: Any = {"lr": rate, "betas": own.BETAS, "eps": own.EPSILON, "weight_decay": 0.0}

    def moved(make: Any) -> torch.Tensor:
        weight = torch.nn.Parameter(start.clone())
        weight.grad = torch.ones_like(weight)
        optimizer = make([weight])
        for _ in range(80):
            optimizer.step()
        return start.double() - weight.detach().double()

    assert int(moved(lambda weight: torch.optim.AdamW(weight, **settings)).count_nonzero()) == 0
    rounded = moved(lambda weight: RoundingAdamW(weight, lr=rate, seed=3))
    error = (80 * rate * SPACING / len(start)) ** 0.5  # of a sum of 80 draws of one spacing each, over all weights
    assert float(rounded.mean()) == pytest.approx(80 * rate, abs=5 * error)


def test_a_student_in_bfloat16_learns_as_in_float32() -> None:
    """30 steps of one batch at 1e-5: the loss falls as far; with rounding to nearest it hardly does."""
    ids = torch.randint(0, 700, (4, 40), generator=generator())
    settings = TrainSettings(precision="bf16", learning_rate=1e-5)

    def fall(dtype: torch.dtype, make: Any) -> float:
        student = model().to(torch.bfloat16).to(dtype).train()
        optimizer, before = make(student), loss_of(student)
        for _ in range(30):
            student(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return before - loss_of(student)

    @torch.no_grad()
    def loss_of(student: Any) -> float:
        return float(copy.deepcopy(student).float()(input_ids=ids, labels=ids).loss)

    exact = fall(torch.float32, lambda student: optimizer_for(student, settings, seed=1))
    rounded = fall(torch.bfloat16, lambda student: optimizer_for(student, settings, seed=1))
    nearest = fall(torch.bfloat16, lambda m: torch.optim.AdamW(m.parameters(), lr=1e-5, betas=own.BETAS))
    assert rounded == pytest.approx(exact, rel=0.15)
    assert nearest < 0.5 * exact


def test_in_float32_it_is_torchs_adamw() -> None:
    """The arithmetic is torch's own, also in chunks that do not divide the weights."""
    first, second = with_gradients(model()), with_gradients(model())
    reference = torch.optim.AdamW(first.parameters(), lr=1e-2, betas=own.BETAS, eps=own.EPSILON, weight_decay=0.0)
    tried = RoundingAdamW(second.parameters(), lr=1e-2, seed=0)
    for seed in range(3):
        with_gradients(first, seed), with_gradients(second, seed)
        reference.step(), tried.step()
    for one, other in zip(weights(first), weights(second), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_each_chunk_is_updated_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 1,000 weights at a time the update differs from that in one piece by at most the rounding."""
    whole, parts = with_gradients(model().to(torch.bfloat16)), with_gradients(model().to(torch.bfloat16))
    before = weights(whole)
    RoundingAdamW(whole.parameters(), lr=0.5, seed=0).step()
    monkeypatch.setattr(own, "CHUNK", 1_000)
    RoundingAdamW(parts.parameters(), lr=0.5, seed=0).step()
    for old, one, other in zip(before, weights(whole), weights(parts), strict=True):
        assert torch.allclose((one - old).float(), (other - old).float(), atol=0.02)
        assert bool(((one - old).float().abs() > 0.4).all()), "every weight moves by the learning rate"


# --- drawn from the seed ---------------------------------------------------------------------------------------------


def trained(student: Any, optimizer: Any, steps: range) -> list[torch.Tensor]:
    for step in steps:
        with_gradients(student, step)
        optimizer.step()
    return weights(student)


def test_the_seed_decides_and_the_global_generator_does_not() -> None:
    def run(seed: int, world: int) -> list[torch.Tensor]:
        student = model().to(torch.bfloat16)
        torch.manual_seed(world)
        return trained(student, optimizer_for(student, BF16, seed=seed), range(3))

    first = run(1, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, run(1, 99), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, run(2, 0), strict=True))


def test_steps_and_parameters_draw_different_bits() -> None:
    made = [torch.nn.Parameter(torch.ones(4_096, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = RoundingAdamW(made, lr=SPACING / 2, seed=0)
    rounds = []
    for _ in range(2):
        for parameter in made:
            parameter.data.fill_(1.0)
            parameter.grad = torch.full_like(parameter, -1.0)
        optimizer.step()
        rounds += [parameter.detach().clone() for parameter in made]
    for number, one in enumerate(rounds):
        assert 0.4 < float((one > 1).float().mean()) < 0.6
        for other in rounds[number + 1 :]:
            assert 0.4 < float((one == other).float().mean()) < 0.6, "two draws agree by chance alone"


def test_a_resumed_training_goes_on_bit_by_bit(tmp_path: Path) -> None:
    student = model().to(torch.bfloat16)
    optimizer = optimizer_for(student, BF16, seed=7)
    trained(student, optimizer, range(3))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    again = copy.deepcopy(student)
    resumed = optimizer_for(again, BF16, seed=7)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    straight = trained(student, optimizer, range(3, 6))
    for one, other in zip(straight, trained(again, resumed, range(3, 6)), strict=True):
        assert torch.equal(one, other)


# --- sharded, and planned --------------------------------------------------------------------------------------------


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_sharded_weights_are_updated_in_place() -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    plain = model().to(torch.bfloat16)
    before, sharded = weights(plain), copy.deepcopy(plain)
    fully_shard(sharded)
    ids = torch.randint(0, 700, (2, 20), generator=generator())
    moved = []
    for student in (plain, sharded):
        optimizer = optimizer_for(student, TrainSettings(precision="bf16", learning_rate=0.1), seed=1)
        student(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        moved.append([p.full_tensor() if isinstance(p, DTensor) else p for p in student.parameters()])
        if student is sharded:
            assert all(isinstance(value["exp_avg"], DTensor) for value in optimizer.state.values())
    for old, one, other in zip(before, *moved, strict=True):
        assert torch.allclose(one.float(), other.float(), atol=0.02)
        assert not torch.equal(old, other)


def test_shards_draw_their_own_bits_and_replicas_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is named by the place of the shard: with two processes it would take two to see it otherwise."""

    def drawn(shard: tuple[int, ...]) -> torch.Tensor:
        monkeypatch.setattr(own, "_shard", lambda tensor: shard)
        parameter = torch.nn.Parameter(torch.ones(4_096, dtype=torch.bfloat16))
        parameter.grad = torch.full_like(parameter, -1.0)
        RoundingAdamW([parameter], lr=SPACING / 2, seed=0).step()
        return parameter.detach()

    assert torch.equal(drawn((1,)), drawn((1,)))
    assert 0.4 < float((drawn((0,)) == drawn((1,))).float().mean()) < 0.6


def test_the_place_of_a_shard_leaves_replicas_out() -> None:
    from torch.distributed.tensor import DTensor, Replicate, Shard, init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=5, world_size=8)
    try:
        mesh = init_device_mesh("cpu", (2, 4))
        both = DTensor.from_local(torch.ones(2, 2), mesh, [Replicate(), Shard(0)], run_check=False)
        assert own._shard(both) == (1,)
        assert own._shard(DTensor.from_local(torch.ones(2, 2), mesh, [Replicate(), Replicate()], run_check=False)) == ()
        assert own._shard(DTensor.from_local(torch.ones(2, 2), mesh, [Shard(0), Shard(1)], run_check=False)) == (1, 1)
    finally:
        dist.destroy_process_group()


def test_memory_can_be_planned_on_fake_tensors() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        layer = torch.nn.Linear(30, 40, dtype=torch.bfloat16)
        optimizer = optimizer_for(layer, BF16, seed=1)
        for _ in range(2):
            for parameter in layer.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
        assert optimizer.state[layer.weight]["exp_avg"].dtype == torch.bfloat16
