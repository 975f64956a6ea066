"""How a program's output is compared with its test's: as judges do, and no more leniently."""

from __future__ import annotations

import pytest

from distill.verify.comparing import same_output, same_result


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("2\n", "2"),
        ("2  \n3\t\n\n\n", "2\n3"),
        ("a  \nb\t\n", "a\nb"),
        ("2\r\n3\r\n", "2\n3\n"),
        ("", "\n"),
        ("0.3333333", "0.3333333333"),
        ("1.0", "1.00"),
        ("1e-7", "0.0"),
        ("3.14159 2.718281", "3.141590  2.7182812"),
        ("1 0.5", "1 0.50"),
        ("1000000.1", "1000000.2"),
        ("2 3", "2 3"),
    ],
)
def test_outputs_that_are_equal(output: str, expected: str) -> None:
    assert same_output(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("3", "2"),
        ("1 2", "12"),
        (" 2", "2x"),
        ("a  b", "a b"),
        ("a 0.5", "a 0.50"),
        ("2\n3", "2 3"),
        ("2\n\n3", "2\n3"),
        ("10000001", "10000000"),
        ("1.0", "1"),
        ("0.333", "0.3333333333"),
        ("nan", "0.5"),
        ("inf", "1e400"),
        ("Yes", "YES"),
        ("1 2", "1 2 3"),
        ("", "0.0"),
        ("1_0.0", "10.0"),
    ],
)
def test_outputs_that_differ(output: str, expected: str) -> None:
    assert not same_output(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [("(1, 2)", "[1, 2]"), ("[1,2]", "[1, 2]"), ("0.30000000000000004", "0.3"), ("1", "1.0"), ("'a'", '"a"'),
     ("True", "True"),
     ("{'a': (1,)}", "{'a': [1]}"), ("None", "None\n"), ("[[0.1]]", "[(0.1000000001,)]")],
)  # fmt: skip
def test_results_that_are_equal(output: str, expected: str) -> None:
    assert same_result(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [("[1, 2]", "[2, 1]"), ("[1]", "[1, 2]"), ("'1'", "1"),
     ("0.31", "0.3"), ("None", "0"), ("{'a': 1}", "{'b': 1}"),
     ("<object>", "1"), ("__import__('os')", "1"), ("10000001", "10000000"), ("(" * 1_000, "1"), ("", "1")],
)  # fmt: skip
def test_results_that_differ(output: str, expected: str) -> None:
    assert not same_result(output, expected)


def test_results_of_any_length() -> None:
    huge = "9" * 5_000
    assert same_result(huge + "\n", huge)
    assert not same_result(huge, "8" + huge[1:])
    many = list(range(20_000))
    assert same_result(str(tuple(many)), str(many))
    assert same_result(str(many).replace(" ", ""), str(many))
    assert not same_result(str(many[:-1]), str(many))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("[1,]", "[1]"), ("[.5]", "[0.5]"), ("[1e0]", "[1.0]"), ("[01]", "[1]"), ("[1 2]", "[12]"), ("--1", "1"),
        ("[1]]", "[1]"), ("1_0", "10"), ("1e400", "1e500"), ("[]", "()"),
    ],
)  # fmt: skip
def test_numbers_are_read_as_python_reads_them(output: str, expected: str) -> None:
    """Whichever way they are read: JSON's is only the faster one."""
    right = {("[1,]", "[1]"), ("[.5]", "[0.5]"), ("[1e0]", "[1.0]"), ("1_0", "10"), ("1e400", "1e500"), ("[]", "()")}
    assert same_result(output, expected) == ((output, expected) in right)
