"""Right reasoning that repeats itself by nature, and loops as models fall into them, to measure the check for loops on.

Written without the code that has to tell them apart."""

from __future__ import annotations

import random
from collections.abc import Iterator


def legitimate() -> dict[str, str]:
    """Name → text."""
    squares = [(n, n * n) for n in range(80)]
    ones = ("x", "o")
    return {
        "times table": lines(f"{a} × {b} = {a * b}" for a in range(1, 31) for b in range(1, 31)),
        "times table in words": lines(f"{a} times {b} is {a * b}." for a in range(1, 31) for b in range(1, 31)),
        "long division by 7, 60 digits": lines(
            f"Bring down a 0: {10 * r} divided by 7 is {10 * r // 7}, remainder {10 * r % 7}."
            for r in remainders(7, 60)
        ),
        "long division by 3, 12 digits": lines(
            f"Bring down a 0: {10 * r} / 3 = {10 * r // 3}, remainder {10 * r % 3}." for r in remainders(3, 12)
        ),
        "zero matrix": "\\begin{pmatrix}\n"
        + lines(" & ".join("0" * 20) + r" \\" for _ in range(20))
        + "\n\\end{pmatrix}",
        "identity matrix": lines(" ".join("1" if i == j else "0" for j in range(30)) for i in range(30)),
        "towers of Hanoi, 7 disks": lines(f"Move disk {d} from {a} to {b}." for d, a, b in hanoi(7, "A", "C", "B")),
        "proof by 40 cases": "\n\n".join(
            f"Case {i}: suppose n = {i}. Then n^2 + n + 41 = {i * i + i + 41}, prime. So the claim holds in this case."
            for i in range(40)
        ),
        "Collatz sequences": lines(" → ".join(map(str, collatz(n))) for n in range(2, 60)),
        "binary numbers": lines(f"{i} in binary is {i:b}." for i in range(300)),
        "a sum of a hundred ones": "1 + " * 99 + "1 = 100",
        "500 equal digits": "1/3 = 0." + "3" * 500,
        "Euclid's algorithm": lines(
            f"gcd({a}, {b}): {a} = {a // b} * {b} + {a % b}, so we go on with {b} and {a % b}."
            for a, b in euclid(832040, 514229)
        ),
        "sieve": lines(sieved(n) for n in range(2, 200)),
        "trial division": lines(
            f"Is 7919 divisible by {d}? 7919 / {d} = {7919 / d:.2f}, not a whole number, so no." for d in range(2, 89)
        ),
        "trying values": "\n\n".join(
            f"Let me try x = {i}.\n{i}^2 = {i * i}.\nThat is not 2025.\nNext." for i in range(20, 45)
        ),
        "code with many branches": "def f(x):\n" + lines(f"    if x == {n}:\n        return {m}" for n, m in squares),
        "Markdown table": "| n | n² | n³ |\n| --- | --- | --- |\n"
        + lines(f"| {n} | {m} | {n * m} |" for n, m in squares),
        "truth table": lines(
            ", ".join(f"{name} = {'FT'[i >> bit & 1]}" for bit, name in enumerate("pqrs")) + f": {'FT'[i % 3 > 0]}"
            for i in range(16)
        ),
        "binomial distribution": lines(f"P(X = {k}) = C(20, {k}) * (1/2)^{k} * (1/2)^{20 - k}" for k in range(21)),
        "chess board": lines("|" + "|".join(ones[(i + j) % 2] for j in range(12)) + "|" for i in range(12)),
        "cases in Chinese": lines(
            f"当n={i}时，n的平方等于{i * i}，不满足条件，所以继续尝试下一个数。" for i in range(30)
        ),
        "a refrain": "\n\n".join(
            f"Step {i}. {i} + {i} = {2 * i}.\n\nSo far so good.\n\nLet me continue." for i in range(9)
        ),
        "Newton's method": lines(
            f"x_{i} = {1.4142 + 0.1 / 2**i:.6f}, so the next value is ({1.4142 + 0.1 / 2**i:.6f} + 2/{1.4142:.6f})/2"
            for i in range(15)
        ),
    }


def lines(parts: Iterator[str]) -> str:
    return "\n".join(parts)


def remainders(divisor: int, digits: int) -> Iterator[int]:
    rest = 1
    for _ in range(digits):
        yield rest
        rest = 10 * rest % divisor


def hanoi(disks: int, start: str, goal: str, spare: str) -> Iterator[tuple[int, str, str]]:
    if disks:
        yield from hanoi(disks - 1, start, spare, goal)
        yield disks, start, goal
        yield from hanoi(disks - 1, spare, goal, start)


def collatz(number: int) -> list[int]:
    found = [number]
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        found.append(number)
    return found


def euclid(a: int, b: int) -> Iterator[tuple[int, int]]:
    while b:
        yield a, b
        a, b = b, a % b


def sieved(number: int) -> str:
    divisor = next(d for d in range(2, number + 1) if number % d == 0)
    return f"{number} is divisible by {divisor}, so cross it out." if divisor < number else f"{number} is prime."


def looped(text: str, sentences: int, times: int, rng: random.Random, *, counted: bool = False) -> str:
    """`text` up to a random place, and from there its last `sentences` over and over, of which the first holds words; with
    `counted`, each round has a number of its own, as where a model counts its attempts."""
    parts = [part for line in text.split("\n") for part in line.split(". ") if part.strip()]
    ends = [end for end in range(sentences, len(parts) + 1) if sum(map(str.isalpha, parts[end - sentences])) > 20]
    end = rng.choice(ends)
    again = parts[end - sentences : end]
    rounds = [([f"Attempt {number}:", *again] if counted else again) for number in range(times)]
    return "\n".join([*parts[:end], *(part for round_ in rounds for part in round_)])
