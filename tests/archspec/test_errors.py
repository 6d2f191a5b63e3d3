"""The form in which users are told what is wrong."""

from __future__ import annotations

from archspec.errors import Mark, Problem, Refused, SpecError, did_you_mean, divisors, either

PROBLEM = Problem(
    "12 heads cannot be shared by 5", "try kv_heads: 1, 2 or 3", "graph[2].kv_heads", Mark("a.yaml", 14, 18)
)


def test_a_problem_has_place_cause_and_hint() -> None:
    assert str(PROBLEM) == (
        "a.yaml:14:18  graph[2].kv_heads\n  12 heads cannot be shared by 5\n  try kv_heads: 1, 2 or 3"
    )
    assert str(Problem("wrong")) == "  wrong"
    assert str(Problem("wrong", mark=Mark("a", 1, 2))) == "a:1:2\n  wrong"


def test_the_same_problem_is_told_once() -> None:
    other = PROBLEM._replace(cause="another")
    error = SpecError(PROBLEM, other, PROBLEM)
    assert error.problems == (PROBLEM, other)
    assert str(error) == f"{PROBLEM}\n{other}"
    assert isinstance(error, ValueError)


def test_a_refusal_says_what_would_be_accepted() -> None:
    assert Refused("heads", "no", [1, 2, 4]).hint == "try heads: 1, 2 or 4"
    assert Refused("heads", "no", 4).hint == "try heads: 4"
    assert Refused("heads", "no", "do this").hint == "do this"
    assert Refused("heads", "no", []).hint is None
    assert Refused("heads", "no").hint is None


def test_lists_of_values() -> None:
    assert either([1]) == "1"
    assert either([1, 2, 3]) == "1, 2 or 3"
    assert either(range(20)) == "0, 1, 2, 3, …, 16, 17, 18 or 19"


def test_divisors() -> None:
    assert divisors(36) == [1, 2, 3, 4, 6, 9, 12, 18, 36]
    assert all(divisors(n) == [d for d in range(1, n + 1) if n % d == 0] for n in range(1, 200))


def test_did_you_mean() -> None:
    assert did_you_mean("kv_head", ["heads", "kv_heads", "width"]) == "did you mean kv_heads or heads?"
    assert did_you_mean("zzz", ["a", "b"]) == "there are a, b"
    assert did_you_mean("zzz", ["a"]) == "there is a"
    assert did_you_mean("zzz", []) is None
    assert did_you_mean("zzz", [f"name{n}" for n in range(20)]) is None
