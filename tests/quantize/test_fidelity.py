"""How far quantized weights are from the student's, and when rounding cannot explain it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distill.quantize.fidelity import TensorFact, error_fault, fidelity, relative_error
from distill.quantize.schemes import bits_of


def test_the_share_in_four_bits_is_of_weights_not_of_tensors() -> None:
    found = fidelity(
        [TensorFact("a", "Q4_K", 70, 0.07), TensorFact("b", "Q6_K", 20, 0.02), TensorFact("c", "F32", 10, 0)]
    )
    assert (found.elements, found.four_bit_share) == (100, 0.7)
    assert list(found.types) == ["Q4_K", "Q6_K", "F32"]


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("Q4_K", 4),
        ("NF4", 4),
        ("IQ4_NL", 4),
        ("Q5_0", 5),
        ("Q6_K", 6),
        ("INT8", 8),
        ("Q8_0", 8),
        ("BF16", 16),
        ("F32", 32),
    ],
)
def test_a_types_name_says_its_bits(name: str, bits: int) -> None:
    assert bits_of(name) == bits


def test_the_worst_tensor_is_measured_by_what_its_type_may_lose() -> None:
    found = fidelity([TensorFact("a", "Q4_K", 1, 0.15), TensorFact("b", "Q8_0", 1, 0.03), TensorFact("c", "F32", 1, 0)])
    assert found.worst.name == "b"
    fault = error_fault(found)
    assert fault is not None
    assert fault.startswith("the weights of b (Q8_0) are 3% off the student's, where rounding explains at most 2.5%")


def test_rounding_is_no_fault_and_what_is_no_number_is_one() -> None:
    assert error_fault(fidelity([TensorFact("a", "Q4_K", 1, 0.1), TensorFact("b", "BF16", 1, 0.002)])) is None
    broken = relative_error(np.array([1.0, math.nan]), np.array([1.0, 1.0]))
    assert broken == math.inf
    assert error_fault(fidelity([TensorFact("b", "Q4_K", 1, 0.1), TensorFact("a", "BF16", 1, broken)])) is not None


def test_the_error_is_relative_to_the_originals_length() -> None:
    original = np.array([[3.0, 4.0]])
    assert relative_error(original / 2, original) == pytest.approx(0.5)
    assert relative_error(original, original) == 0
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.ones(2), np.zeros(2)) == math.inf
    with pytest.raises(ValueError, match="instead of"):
        relative_error(np.ones(3), np.ones(2))


def test_a_file_without_tensors_is_refused() -> None:
    with pytest.raises(ValueError, match="no tensors"):
        fidelity([])
