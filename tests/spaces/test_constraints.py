import pytest

from archspec.expressions import ExpressionError
from spaces.constraints import bindings, number


def test_a_field_hides_a_dim_of_its_name_but_reads_it_in_its_own_expression():
    assert number("width", {"width": "2 * width"}, {"width": 8}) == 16
    assert number("a", {"a": "b + 1", "b": "c"}, {"c": 4}) == 5


@pytest.mark.parametrize("fields", [{"a": "b", "b": "a"}, {"a": "missing"}, {"a": {"kind": "k"}}, {"a": None}])
def test_what_means_no_number_is_an_error(fields):
    with pytest.raises(ExpressionError):
        number("a", fields, {})


def test_bindings_follow_expressions_of_fields():
    texts = {"hidden": ["4 * width"], "heads": ["groups * 2", "width / 32"], "loop": ["loop"]}
    assert bindings({"hidden", "heads"}, texts, {"width"}) == ({"hidden", "heads"}, {"width"}, {"groups"})
    assert bindings({"loop"}, texts, {"loop"}) == ({"loop"}, {"loop"}, set())


def test_constraints_over_constants_choices_and_dims_are_local(space):
    found = space(
        "dims: {w: {choose: [2, 3]}, v: w + 1}\n"
        "graph: [{kind: k, a: 12, b: {choose: [1, v]}, where: [a % v == 0, b >= 1]},"
        " {kind: k, where: w + width_in > 3}]"
    )
    (first,) = [part.node for part in found.root.parts]
    local, deferred = first.parts[0].node, first.parts[1].node
    assert [one.text for one in local.constraints] == ["a % v == 0", "b >= 1"]
    assert local.binding == ("v",)
    assert [one.text for one in deferred.deferred] == ["w + width_in > 3"]
    assert {tree.tree["dims"]["w"] for tree in found.members()} == {2, 3}
