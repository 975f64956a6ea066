"""Programming tasks on one whole number or on a grid of them."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable

from distill.problems.program_task import Family, Task, grid_text, joined, on_grid, on_number

_ONE = "One whole number."
_SIGNS = string.digits + string.ascii_lowercase


def _digits(number: int, base: int) -> list[int]:
    """The last digit last; `[0]` for 0."""
    return [*(_digits(number // base, base) if number >= base else []), number % base]


_SPLIT = """digits, left = [], n
while left:
    left, digit = divmod(left, {base})
    digits.append(digit)
"""
"""The digits of `n`, the last first: part of several solutions."""


# --- numbers --------------------------------------------------------------------------------------------------------


def _base(rng: random.Random) -> Task:
    old, new = rng.sample(range(2, 17), 2)
    most = 10**6

    def inputs(rng: random.Random) -> list[str]:
        numbers = [0, 1, old, new, new - 1, most, *(rng.randint(2, 300) for _ in range(4)), rng.randint(300, most)]
        return ["".join(_SIGNS[digit] for digit in _digits(number, old)) for number in numbers]

    signs = f"0 to {_SIGNS[min(old, 10) - 1]}" + (f" and a to {_SIGNS[old - 1]}" if old > 10 else "")
    signs = signs.replace("a to a", "a")
    return Task(
        f"base {old} to {new}",
        f"Convert a number from base {old} to base {new}. Digits above 9 are the small letters from a on.",
        f"One line with a whole number from 0 to {most} (written so in base 10), given in base {old}: the characters "
        f"{signs}, without leading zeros.",
        f"The number in base {new}, without leading zeros.",
        inputs,
        lambda text: "".join(_SIGNS[digit] for digit in _digits(int(text, old), new)),
        f"""signs = "{_SIGNS[:16]}"
n = 0
for sign in input():
    n = n * {old} + signs.index(sign)
power = 1
while power * {new} <= n:
    power *= {new}
text = ""
while power:
    text += signs[n // power]
    n, power = n % power, power // {new}
print(text)
""",
    )


def _digit_work(rng: random.Random) -> Task:
    base = rng.randint(2, 16)
    kinds: list[tuple[str, str, Callable[[list[int]], int], str]] = [
        ("sum", "the sum of its digits", sum, "sum(digits)"),
        ("different", "how many different digits it has", lambda d: len(set(d)),
         f"sum(k in digits for k in range({base}))"),
        ("turned", "the number whose digits are the same in reverse order, leading zeros dropped",
         lambda d: sum(digit * base**place for place, digit in enumerate(d)), "__import__('functools').reduce("
         f"lambda whole, digit: whole * {base} + digit, digits)"),
        ("zeros", "how many of its digits are 0", lambda d: d.count(0), "len([k for k in digits if not k])"),
        ("steps", "the sum of the absolute differences of neighbouring digits",
         lambda d: sum(abs(a - b) for a, b in itertools.pairwise(d)),
         "sum(max(digits[k:k + 2]) - min(digits[k:k + 2]) for k in range(len(digits) - 1))"),
    ]  # fmt: skip
    name, asked, value, code = rng.choice(kinds)
    if (base == 2 and name == "different") or (base > 6 and name == "zeros"):  # the same for nearly all n
        name, asked, value, code = kinds[0]
    return on_number(
        f"digits in base {base}, {name}",
        f"Write n in base {base} and find {asked}. Print the result in base 10.",
        _ONE,
        lambda n: str(value(_digits(n, base))),
        _SPLIT.format(base=base) + f"print({code})\n",
        most=100_000,
    )


def _shrink(rng: random.Random) -> Task:
    odd, what = 2 * rng.randint(0, 20) + 1, rng.choice(("steps", "largest"))
    asked = "how many steps that takes" if what == "steps" else "the largest number on the way, n itself included"

    def walk(n: int) -> list[int]:
        return [n] if n <= odd else [n, *walk(n // 2 if n % 2 == 0 else n + odd)]

    return on_number(
        f"halve or add {odd}, {what}",
        f"As long as n is greater than {odd}, repeat this step: halve n if it is even, add {odd} if it is odd. Find "
        f"{asked}.",
        _ONE,
        lambda n: str(len(walk(n)) - 1 if what == "steps" else max(walk(n))),
        f"""steps, largest = 0, n
while n > {odd}:
    if n % 2:
        n += {odd}
    else:
        n //= 2
    steps += 1
    largest = max(largest, n)
print({what})
""",
    )


def _primes(rng: random.Random) -> Task:
    modulus, what = rng.choice((3, 4, 5, 7, 8, 9, 11, 12)), rng.choice(("count", "largest"))  # for odd primes 6 is as 3
    rest = rng.choice([r for r in range(1, modulus) if all(r % k or modulus % k for k in range(2, modulus))])
    asked = "Print how many there are." if what == "count" else "Print the largest of them, or 0 if there is none."

    def expected(n: int) -> str:
        found = [p for p in range(2, n + 1) if p % modulus == rest and all(p % k for k in range(2, int(p**0.5) + 1))]
        return str(len(found) if what == "count" else max(found, default=0))

    return on_number(
        f"primes {rest} mod {modulus}, {what}",
        f"Find the prime numbers from 2 to n that leave the remainder {rest} when divided by {modulus}. {asked}",
        _ONE,
        expected,
        f"""prime = [False, False] + [True] * (n - 1)
for k in range(2, n + 1):
    for multiple in range(2 * k, n + 1, k) if prime[k] else ():
        prime[multiple] = False
found = [k for k in range({rest}, n + 1, {modulus}) if prime[k]]
print({"len(found)" if what == "count" else "found[-1] if found else 0"})
""",
        most=1500,
    )


def _fizz(rng: random.Random) -> Task:
    a, b = sorted(rng.sample(range(2, 13), 2))
    words = ("Fizz", "Buzz", "Ping", "Pong", "Tick", "Tock", "Hip", "Hop")
    first, second = random.Random(f"{a} {b}").sample(words, 2)  # other words would make the same task

    def said(k: int) -> str:
        return (first * (k % a == 0) + second * (k % b == 0)) or str(k)

    return on_number(
        f"words for multiples of {a} and {b}",
        f"Count from 1 to n. Instead of a multiple of {a} say {first}, instead of a multiple of {b} say {second}, and "
        f"instead of a multiple of both say {first}{second}.",
        "What is said, on one line, separated by single spaces.",
        lambda n: joined(map(said, range(1, n + 1))),
        f"""words = [str(k) for k in range(n + 1)]
for k in range(0, n + 1, {a}):
    words[k] = "{first}"
for k in range(0, n + 1, {b}):
    words[k] = "{first}{second}" if words[k] == "{first}" else "{second}"
print(" ".join(words[1:]))
""",
        most=100,
    )


def _recurrence(rng: random.Random) -> Task:
    p, q, start, second = rng.randint(1, 9), rng.randint(1, 9), rng.randint(0, 9), rng.randint(1, 9)
    modulus = rng.choice((97, 100, 101, 256, 997, 1000, 1009, 10_007))

    def expected(n: int) -> str:
        """By powers of the matrix [[p, q], [1, 0]]."""
        result, matrix, power = ((1, 0), (0, 1)), ((p, q), (1, 0)), n - 1
        while power:
            result = _product(result, matrix, modulus) if power % 2 else result
            matrix, power = _product(matrix, matrix, modulus), power // 2
        return str((result[1][0] * second + result[1][1] * start) % modulus)

    return on_number(
        f"recurrence {p} {q} from {start} {second} mod {modulus}",
        f"A sequence begins with a(1) = {start} and a(2) = {second}. Every later term is a(k) = "
        f"{'' if p == 1 else f'{p} * '}a(k-1) + {'' if q == 1 else f'{q} * '}a(k-2). Print the remainder of a(n) when "
        f"divided by {modulus}.",
        _ONE,
        expected,
        f"""a, b = {start}, {second}
for _ in range(n - 1):
    a, b = b, ({p} * b + {q} * a) % {modulus}
print(a % {modulus})
""",
        most=1000,
    )


_Matrix = tuple[tuple[int, int], tuple[int, int]]


def _product(left: _Matrix, right: _Matrix, modulus: int) -> _Matrix:
    (a, b), (c, d) = left
    (e, f), (g, h) = right
    return (
        ((a * e + b * g) % modulus, (a * f + b * h) % modulus),
        ((c * e + d * g) % modulus, (c * f + d * h) % modulus),
    )


def _multiples(rng: random.Random) -> Task:
    a, b = sorted(rng.sample(range(2, 25), 2))
    either = b % a != 0 and rng.random() < 0.5
    which = f"divisible by {a} or by {b} (or by both)" if either else f"divisible by exactly one of {a} and {b}"
    return on_number(
        f"multiples of {'either' if either else 'one'} of {a} and {b}",
        f"Print the sum of all whole numbers from 1 to n that are {which}.",
        _ONE,
        lambda n: str(sum(k for k in range(1, n + 1) if (k % a == 0) + (k % b == 0) in ((1, 2) if either else (1,)))),
        f"""def total(step):
    count = n // step
    return step * count * (count + 1) // 2

low, high = {a}, {b}
while high:
    low, high = high, low % high
both = {a} * {b} // low
print(total({a}) + total({b}) - {1 if either else 2} * total(both))
""",
    )


def _divisors(rng: random.Random) -> Task:
    step, what = rng.randint(1, 12), rng.choice(("count", "sum"))
    which = "" if step == 1 else f" that are not divisible by {step}"

    def expected(n: int) -> str:
        found = [k for k in range(1, n + 1) if n % k == 0 and (step == 1 or k % step)]
        return str(len(found) if what == "count" else sum(found))

    return on_number(
        f"{what} of divisors, {step}",
        f"Find the positive divisors of n{which}. Print {'how many there are' if what == 'count' else 'their sum'}.",
        _ONE,
        expected,
        f"""found, k = set(), 1
while k * k <= n:
    if n % k == 0:
        found |= {{k, n // k}}
    k += 1
{f"found = [k for k in found if k % {step} != 0]" if step > 1 else "found = list(found)"}
print({"len" if what == "count" else "sum"}(found))
""",
    )


def _coins(rng: random.Random) -> Task:
    coins = sorted(rng.sample(range(1, 16), 3))
    what = rng.choice(("ways", "fewest"))
    asked = (
        "how many ways there are to pay exactly n with them; ways that differ only in the order are one"
        if what == "ways"
        else "the smallest number of coins that make up exactly n, or -1 if no choice of coins does"
    )
    a, b, c = coins

    def expected(n: int) -> str:
        used = [
            (x, y, (n - a * x - b * y) // c)
            for x in range(n // a + 1)
            for y in range((n - a * x) // b + 1)
            if (n - a * x - b * y) % c == 0
        ]
        return str(len(used) if what == "ways" else min(map(sum, used), default=-1))

    start = "[1] + [0] * n" if what == "ways" else "[0] + [None] * n"
    step = "table[value] += table[value - coin]" if what == "ways" else "table[value] = fewer(value, value - coin)"
    return on_number(
        f"coins {a} {b} {c}, {what}",
        f"There are coins of {a}, {b} and {c}, as many of each as you like. Print {asked}.",
        _ONE,
        expected,
        f"""def fewer(value, before):
    options = [table[value], None if table[before] is None else table[before] + 1]
    return min([option for option in options if option is not None], default=None)

table = {start}
for coin in ({a}, {b}, {c}):
    for value in range(coin, n + 1):
        {step}
print({"table[n]" if what == "ways" else "-1 if table[n] is None else table[n]"})
""",
        most=200,
    )


def _mixed_units(rng: random.Random) -> Task:
    small, large = rng.randint(2, 60), rng.randint(2, 60)
    return on_number(
        f"units of {small} and {large}",
        f"{small} pips make one pod, and {large} pods make one pack. Exchange n pips for as many packs as possible, "
        "then the rest for as many pods as possible.",
        "Three whole numbers, separated by single spaces: the packs, the pods and the pips that are left.",
        lambda n: f"{n // (small * large)} {n // small % large} {n % small}",
        f"""packs = pods = 0
while n >= {small * large}:
    n -= {small * large}
    packs += 1
while n >= {small}:
    n -= {small}
    pods += 1
print(packs, pods, n)
""",
        most=20_000,
    )


# --- grids ----------------------------------------------------------------------------------------------------------

_Grid = list[list[int]]


def _turn(rng: random.Random) -> Task:
    plus = rng.randint(0, 9)
    kinds: list[tuple[str, Callable[[_Grid], _Grid], str]] = [
        ("transpose it: rows become columns", lambda g: [list(column) for column in zip(*g, strict=True)],
         "[[grid[r][c] for r in range(height)] for c in range(width)]"),
        ("turn it by 90 degrees clockwise", lambda g: [list(column) for column in zip(*g[::-1], strict=True)],
         "[[grid[height - 1 - r][c] for r in range(height)] for c in range(width)]"),
        ("turn it by 90 degrees counterclockwise", lambda g: [list(column) for column in zip(*g, strict=True)][::-1],
         "[[grid[r][width - 1 - c] for r in range(height)] for c in range(width)]"),
        ("turn it by 180 degrees", lambda g: [row[::-1] for row in g[::-1]],
         "[[grid[-1 - r][-1 - c] for c in range(width)] for r in range(height)]"),
        ("mirror it so that left and right change places", lambda g: [row[::-1] for row in g],
         "[[grid[r][-1 - c] for c in range(width)] for r in range(height)]"),
        ("mirror it so that top and bottom change places", lambda g: g[::-1],
         "[[grid[-1 - r][c] for c in range(width)] for r in range(height)]"),
    ]  # fmt: skip
    kind = rng.choice(kinds)
    added = f" Then add {plus} to every number." if plus else ""
    return on_grid(
        f"{kind[0]}, plus {plus}",
        f"Take the grid and {kind[0]}.{added}",
        "The new grid, one row a line, the numbers separated by single spaces.",
        lambda g: grid_text([[n + plus for n in row] for row in kind[1](g)]),
        f"""new = {kind[2]}
for row in new:
    print(" ".join(str({plus} + n) for n in row))
""",
    )


def _cells(rng: random.Random) -> Task:
    modulus, what = rng.randint(2, 6), rng.choice(("sum", "difference"))
    rest, pick = rng.randrange(modulus), rng.choice(("sum", "maximum"))
    sign = "+" if what == "sum" else "-"

    def expected(g: _Grid) -> str:
        flip = 1 if what == "sum" else -1
        cells = [n for r, row in enumerate(g, 1) for c, n in enumerate(row, 1) if (r + flip * c) % modulus == rest]
        return str(sum(cells) if pick == "sum" else max(cells, default=-1))

    empty = "0" if pick == "sum" else "-1"
    return on_grid(
        f"{pick} of cells with row {sign} column = {rest} mod {modulus}",
        f"Rows and columns are numbered from 1. Consider the cells for which row number {sign} column number leaves "
        f"the remainder {rest} (remainders go from 0 to {modulus - 1}) when divided by {modulus}. Print the {pick} of "
        f"their numbers, {empty} if there is no such cell.",
        _ONE,
        expected,
        f"""best = {empty}
for r in range(height):
    for c in range(width):
        place = r + 1 {sign} (c + 1)
        while place < 0:
            place += {modulus}
        while place >= {modulus}:
            place -= {modulus}
        if place == {rest}:
            best = {"best + grid[r][c]" if pick == "sum" else "max(best, grid[r][c])"}
print(best)
""",
    )


def _peaks(rng: random.Random) -> Task:
    by, corners = rng.randint(1, 8), rng.random() < 0.5
    what = rng.choice(("greater", "less"))
    sign = 1 if what == "greater" else -1
    around = "left, right, above, below" + (" or diagonal" if corners else "")

    def expected(g: _Grid) -> str:
        def near(r: int, c: int) -> list[int]:
            return [
                g[y][x]
                for y in range(max(0, r - 1), min(len(g), r + 2))
                for x in range(max(0, c - 1), min(len(g[0]), c + 2))
                if (y, x) != (r, c) and (corners or y == r or x == c)
            ]

        cells = ((r, c) for r in range(len(g)) for c in range(len(g[0])))
        return str(sum(all(sign * (g[r][c] - n) >= by for n in near(r, c)) for r, c in cells))

    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)] + ([(-1, -1), (-1, 1), (1, -1), (1, 1)] if corners else [])
    return on_grid(
        f"cells {what} by {by} than {8 if corners else 4} neighbours",
        f"Count the cells whose number is {what} than that of every neighbour by at least {by}. Neighbours are the "
        f"cells directly {around}. A cell without neighbours counts.",
        _ONE,
        expected,
        f"""cells = {{(r, c): grid[r][c] for r in range(height) for c in range(width)}}
count = 0
for (r, c), number in cells.items():
    good = True
    for down, right in {steps}:
        other = cells.get((r + down, c + right))
        if other is not None and {"number - other" if sign == 1 else "other - number"} < {by}:
            good = False
    count += good
print(count)
""",
    )


def _lines(rng: random.Random) -> Task:
    what, pick = rng.choice(("row", "column")), rng.choice(("largest", "smallest"))
    modulus = rng.randint(5, 30)
    return on_grid(
        f"{what} with {pick} sum mod {modulus}",
        f"For every {what} take the sum of its numbers and the remainder of this sum when divided by {modulus}. Print "
        f"the number of the {what} with the {pick} remainder, the first {what} being 1; of several take the first.",
        _ONE,
        lambda g: _best_line(g if what == "row" else [list(column) for column in zip(*g, strict=True)], pick, modulus),
        f"""rests = [0] * {"height" if what == "row" else "width"}
for r in range(height):
    for c in range(width):
        place = {"r" if what == "row" else "c"}
        rests[place] = (rests[place] + grid[r][c]) % {modulus}
print(rests.index({"max" if pick == "largest" else "min"}(rests)) + 1)
""",
    )


def _best_line(lines: _Grid, pick: str, modulus: int) -> str:
    sign = -1 if pick == "largest" else 1
    return str(1 + min(range(len(lines)), key=lambda place: (sign * (sum(lines[place]) % modulus), place)))


def _islands(rng: random.Random) -> Task:
    bound, what = rng.randint(20, 70), rng.choice(("count", "largest", "sum"))
    ends = {
        "count": "Print how many regions there are.",
        "largest": "Print the number of cells of the largest region, 0 if there is none.",
        "sum": "Print the largest sum of the numbers of a region, 0 if there is none.",
    }

    def expected(g: _Grid) -> str:
        """Every cell starts as a region of its own; neighbours take the smaller label until nothing changes."""
        label = {(r, c): (r, c) for r, row in enumerate(g) for c, n in enumerate(row) if n >= bound}
        changed = True
        while changed:
            changed = False
            for r, c in label:
                for other in ((r + 1, c), (r, c + 1), (r - 1, c), (r, c - 1)):
                    if label.get(other, (9, 9)) < label[r, c]:
                        label[r, c], changed = label[other], True
        regions = [[cell for cell in label if label[cell] == root] for root in set(label.values())]
        sizes = [len(region) if what == "largest" else sum(g[r][c] for r, c in region) for region in regions]
        return str(len(regions) if what == "count" else max(sizes, default=0))

    value = {"count": "1", "largest": "size", "sum": "total"}[what]
    return on_grid(
        f"regions of {bound} or more, {what}",
        f"Consider the cells with a number of at least {bound}. Two of them belong to the same region if one can go "
        f"from one to the other over such cells, each step leading left, right, up or down. {ends[what]}",
        _ONE,
        expected,
        f"""found = []
for r in range(height):
    for c in range(width):
        if grid[r][c] < {bound}:
            continue
        size, total, stack = 0, 0, [(r, c)]
        while stack:
            y, x = stack.pop()
            if 0 <= y < height and 0 <= x < width and grid[y][x] >= {bound}:
                size, total = size + 1, total + grid[y][x]
                grid[y][x] = -1
                stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        found.append({value})
print({"sum(found)" if what == "count" else "max(found, default=0)"})
""",
    )


FAMILIES: tuple[Family, ...] = (
    _base, _digit_work, _shrink, _primes, _fizz, _recurrence, _multiples, _divisors, _coins, _mixed_units, _turn,
    _cells, _peaks, _lines, _islands,
)  # fmt: skip
