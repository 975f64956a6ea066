"""What tests of duplicates and of contamination plant: two questions of GSM8K, and the benchmark's changes of them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import perturbations

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
WALLET = (
    "Betty is saving money for a new wallet which costs $1,000. Betty has only half of the money she needs. Her "
    "parents decided to give her $15/3 for that purpose. How much more money does Betty need to buy the wallet?"
)

__all__ = ("CLIPS", "WALLET", "perturbations")
