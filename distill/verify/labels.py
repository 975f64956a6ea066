"""What stands before an equals sign: of a variable its values, of several variables the value of each.

Knows nothing about comparing.
"""

from __future__ import annotations

from distill.verify.values import Group, Listing, Quantity, Real, Relation, Value, Words


def names(left: Value) -> tuple[str, ...]:
    """The symbols of `(x, y)`."""
    if not isinstance(left, Group):
        return ()
    found = [item.node[1] for item in left.items if isinstance(item, Quantity) and item.node[0] == "sym"]
    return tuple(found) if len(found) == len(left.items) else ()


def label(left: Value) -> str:
    """What is said to have the value on the right: `x`, `f(x)`, `(x,y)`, `area`; empty for an expression."""
    if isinstance(left, Quantity):
        if left.node[0] == "sym":
            return str(left.node[1])
        if left.node[0] == "call" and all(part[0] == "sym" for part in left.node[2]):
            return f"{left.node[1]}({','.join(str(part[1]) for part in left.node[2])})"
        if left.node[0] == "div" and all(part[0] == "mul" and part[1][0] == ("sym", "d") for part in left.node[1:]):
            return "derivative"
    if isinstance(left, Words):
        return left.text
    several = names(left)
    return f"({','.join(several)})" if several else ""


def stripped(value: Value) -> tuple[str, Value]:
    if isinstance(value, Relation) and value.operator == "=" and (name := label(value.left)):
        return name, value.right
    if isinstance(value, Real):
        return value.name, Real(value.spans)
    return "", value


def one_name(a: str, b: str) -> bool:
    """Whether two labels can mean the same thing: none, equal, or of one letter with different indices."""
    return not a or not b or a == b or ("y" in (a, b) and "(x)" in a + b) or " " in a + b


def assignments(value: Value) -> dict[str, Value] | None:
    """Of `x = 1, y = 2` or `(x, y) = (1, 2)`: name → value, two at least."""
    if isinstance(value, Relation) and value.operator == "=" and isinstance(value.right, Group):
        variables = names(value.left)
        if len(variables) == len(value.right.items) and len(set(variables)) == len(variables) > 1:
            return dict(zip(variables, value.right.items, strict=True))
    if isinstance(value, Listing) and len(value.items) > 1:
        pairs = [stripped(item) for item in value.items if isinstance(item, Relation)]
        labels = [name for name, _ in pairs]
        if len(pairs) == len(value.items) and all(labels) and len(set(labels)) == len(labels):
            return dict(pairs)
    return None


def solutions(value: Value) -> tuple[str, list[Value]]:
    """The values of one variable, and its name: of `x = 1 or x = 2`, `x = 1, 2`, `x_1 = 1, x_2 = 2`, `1, 2`."""
    if isinstance(value, Relation):
        name, right = stripped(value)
        if name:
            return name, list(right.items) if isinstance(right, Listing) else [right]
    if isinstance(value, Listing):
        pairs = [stripped(item) for item in value.items]
        bases = {name.split("_")[0] for name, _ in pairs if name}
        if len(bases) == 1 and pairs[0][0]:
            spread: list[Value] = []
            for _, item in pairs:
                spread.extend(item.items if isinstance(item, Listing) and not value.braces else [item])
            return next(iter(bases)), spread
        return "", list(value.items)
    return "", [value]
