"""The promises that every operator makes, for each one in `gumbeltopk.OPERATORS`.

A new operator is tested by being in the list. What only its author can know (what its statement of range means, how to
make a large call) is in the tables at the top, and a missing entry fails.
"""

from __future__ import annotations

import copy
import dataclasses
import doctest
import inspect
import pickle
import pydoc
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk.operator import Facts, operator

OPERATORS = list(gt.OPERATORS.values())
each_operator = pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
RANDOM_OPERATORS = [op for op in OPERATORS if "rng" in inspect.signature(op).parameters]

# What `Facts.range` says, as a test of the value.
RANGES: dict[str, Callable[[Any], Any]] = {
    "a_i >= 0 (a_i <= 1 does not hold)": lambda a: np.all(a >= 0),
    "0 <= pi <= 1": lambda pi: np.all((pi >= 0) & (pi <= 1)),
    "log p <= 0": lambda log_p: np.all(log_p <= 0),
    "all real numbers": lambda value: np.all(np.isfinite(value)),
    "0 <= mu_i <= 1": lambda mu: np.all((mu >= 0) & (mu <= 1)),
}

# What `Facts.order_preserving` says: (changes of the call under which order is kept, arguments -> what is ordered).
ORDERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]] = {
    "temperature >= 1 (Theorem 1)": ({"temperature": 1.0}, lambda arguments: arguments["keys"]),
    "of the keys, for temperature >= 1 (Theorem 1)": (
        {"temperature": 1.0},
        lambda arguments: arguments["log_weights"] + arguments["noise"],
    ),
    "of the logits": ({}, lambda arguments: arguments["logits"]),
    "of the log-weights": ({}, lambda arguments: arguments["log_weights"]),
}


def example(op: Any, seed: int = 0) -> dict[str, Any]:
    """The arguments of the operator's own example, by name."""
    args, kwargs = op.example(np.random.default_rng(seed))
    arguments = inspect.signature(op).bind(*args, **kwargs).arguments
    return {name: np.asarray(value) if isinstance(value, float) else value for name, value in arguments.items()}


def convert(arguments: dict[str, Any], to_xp: Any, dtype: str) -> dict[str, Any]:
    """The arrays in the library under test, numbers in `dtype`, indices as they are."""
    converted = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            converted[name] = to_xp(value, dtype if value.dtype.kind == "f" else None)
    return converted


def differentiable(op: Any, arguments: dict[str, Any]) -> tuple[str, ...]:
    """The arguments of this call that have derivatives."""
    return tuple(name for name in op.facts.differentiable if name in arguments)


def random_like(array: Any, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=np.shape(array))


def tangents_of(op: Any, arguments: dict[str, Any], seed: int = 10) -> list[Any]:
    """One random tangent for each differentiable argument."""
    return [random_like(arguments[name], seed + i) for i, name in enumerate(differentiable(op, arguments))]


# --- value and derivatives ------------------------------------------------------------------------


@each_operator
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_fwd_returns_the_value_of_the_plain_call(op, to_xp, dtype) -> None:
    arguments = convert(example(op), to_xp, dtype)
    plain, (value, _) = op(**arguments), op.fwd(**arguments)
    assert value.dtype == plain.dtype
    np.testing.assert_array_equal(api.host(value), api.host(plain))


@each_operator
@pytest.mark.parametrize("seed", range(3))
def test_derivatives_are_those_of_the_value(op, seed: int) -> None:
    args, kwargs = op.example(np.random.default_rng(seed))
    gt.testing.check_operator(op, *args, **kwargs)


@each_operator
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_library_agrees_with_numpy(op, to_xp, assert_close, dtype: str) -> None:
    """Value, JVP and VJP by every argument, in library, dtype, device, shape and numbers.

    The reference is NumPy in float64 at the same, already rounded, point. 1e-12 is for the order of sums, 1e-6 for
    rounding the result to float32; both normwise.
    """
    rounded = {
        name: value.astype(dtype).astype("float64") if getattr(value, "dtype", np.dtype(int)).kind == "f" else value
        for name, value in example(op).items()
    }
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    own = convert(rounded, to_xp, dtype)

    def agree(actual: Any, expected: Any) -> None:
        assert_close(actual, expected, rtol=0.0, atol=tolerance * np.max(np.abs(expected)), dtype=dtype)

    value, residuals = op.fwd(**own)
    expected_value, expected_residuals = op.fwd(**rounded)
    agree(value, expected_value)

    names = differentiable(op, rounded)
    cotangent = random_like(expected_value, 1).astype("float32")  # exact in both
    gradients = op.vjp(residuals, to_xp(cotangent, dtype), wrt=names)
    for gradient, expected in zip(gradients, op.vjp(expected_residuals, cotangent, wrt=names), strict=True):
        agree(gradient, expected)
    for name, tangent in zip(names, tangents_of(op, rounded), strict=True):
        tangent = tangent.astype("float32")
        expected = op.jvp(expected_residuals, tangent, wrt=name)
        agree(op.jvp(residuals, to_xp(tangent, dtype), wrt=name), expected)


@each_operator
def test_jvp_is_linear(op, to_xp, assert_close) -> None:
    arguments = example(op)
    value, residuals = op.fwd(**convert(arguments, to_xp, "float64"))
    names = differentiable(op, arguments)

    def jvp(tangents: list[Any], wrt: Any) -> Any:
        return api.host(op.jvp(residuals, *(to_xp(tangent) for tangent in tangents), wrt=wrt))

    first, second = tangents_of(op, arguments, 20), tangents_of(op, arguments, 30)
    combined = [2.5 * u - 0.75 * w for u, w in zip(first, second, strict=True)]
    scale = np.max(np.abs(jvp(first, names))) + np.max(np.abs(jvp(second, names)))
    superposed = 2.5 * jvp(first, names) - 0.75 * jvp(second, names)
    np.testing.assert_allclose(jvp(combined, names), superposed, rtol=0, atol=1e-13 * scale)

    one_by_one = sum(jvp([tangent], name) for name, tangent in zip(names, first, strict=True))
    np.testing.assert_allclose(jvp(first, names), one_by_one, rtol=0, atol=1e-13 * scale)

    zero = op.jvp(residuals, *(to_xp(0.0 * tangent) for tangent in first), wrt=names)
    assert_close(zero, np.zeros(value.shape), rtol=0)


@each_operator
def test_vjp_is_linear(op, to_xp, assert_close) -> None:
    arguments = example(op)
    value, residuals = op.fwd(**convert(arguments, to_xp, "float64"))
    names = differentiable(op, arguments)
    first, second = random_like(value, 40), random_like(value, 41)
    u, v = (op.vjp(residuals, to_xp(cotangent), wrt=names) for cotangent in (first, second))
    both = op.vjp(residuals, to_xp(2.5 * first - 0.75 * second), wrt=names)
    zero = op.vjp(residuals, to_xp(0.0 * first), wrt=names)
    for i, name in enumerate(names):
        expected = 2.5 * api.host(u[i]) - 0.75 * api.host(v[i])
        scale = np.max(np.abs(api.host(u[i]))) + np.max(np.abs(api.host(v[i])))
        np.testing.assert_allclose(api.host(both[i]), expected, rtol=0, atol=1e-13 * scale)
        assert_close(zero[i], np.zeros(np.shape(arguments[name])), rtol=0)


@each_operator
def test_derivatives_have_no_memory(op, to_xp) -> None:
    """In any order, any number of times: the same bits. Neither the residuals nor the arguments change."""
    arguments = convert(example(op), to_xp, "float64")
    names = differentiable(op, arguments)
    before = {name: np.array(api.host(arguments[name])) for name in names}
    value, residuals = op.fwd(**arguments)
    kept = [np.array(api.host(array)) for array in residuals.arrays]
    tangents = [to_xp(tangent) for tangent in tangents_of(op, example(op))]
    cotangent = to_xp(random_like(value, 1))

    def jvp() -> bytes:
        return api.host(op.jvp(residuals, *tangents, wrt=names)).tobytes()

    def vjp() -> bytes:
        return b"".join(api.host(gradient).tobytes() for gradient in op.vjp(residuals, cotangent, wrt=names))

    expected_jvp, expected_vjp = jvp(), vjp()
    assert [jvp(), vjp(), vjp(), jvp()] == [expected_jvp, expected_vjp, expected_vjp, expected_jvp]
    for array, expected in zip(residuals.arrays, kept, strict=True):
        np.testing.assert_array_equal(api.host(array), expected)
    for name in names:
        np.testing.assert_array_equal(api.host(arguments[name]), before[name])


@each_operator
def test_each_gradient_alone_is_that_of_all_together(op) -> None:
    arguments = example(op)
    value, residuals = op.fwd(**arguments)
    names, cotangent = differentiable(op, arguments), random_like(value, 2)
    together = op.vjp(residuals, cotangent, wrt=names)
    assert isinstance(together, tuple)
    for name, gradient in zip(names, together, strict=True):
        alone = op.vjp(residuals, cotangent, wrt=name)
        assert api.is_array(alone)
        np.testing.assert_array_equal(alone, gradient)
        (in_a_tuple,) = op.vjp(residuals, cotangent, wrt=(name,))
        np.testing.assert_array_equal(in_a_tuple, gradient)
    np.testing.assert_array_equal(op.vjp(residuals, cotangent), together[0])  # the first one is the default
    backwards = op.vjp(residuals, cotangent, wrt=names[::-1])
    for gradient, expected in zip(backwards, together[::-1], strict=True):
        np.testing.assert_array_equal(gradient, expected)


# --- what is refused ------------------------------------------------------------------------------


@each_operator
def test_wrt_must_name_arguments_that_have_derivatives(op) -> None:
    value, residuals = op.fwd(**example(op))
    cotangent, first = np.ones(value.shape), op.facts.differentiable[0]
    tangent = np.ones(example(op)[first].shape)
    for derivative, vector in ((op.vjp, cotangent), (op.jvp, tangent)):
        with pytest.raises(ValueError, match=f"{op.name}: wrt names 'nonsense'.*{first}"):
            derivative(residuals, vector, wrt="nonsense")
        with pytest.raises(ValueError, match="none twice"):
            derivative(residuals, vector, wrt=(first, first))
        with pytest.raises(ValueError, match="at least one"):
            derivative(residuals, vector, wrt=())
    with pytest.raises(TypeError, match=f"{op.name}.jvp: 0 tangents"):
        op.jvp(residuals)
    with pytest.raises(TypeError, match=rf"2 tangents for 1 arguments \('{first}',\)"):
        op.jvp(residuals, tangent, tangent, wrt=first)


@each_operator
def test_derivatives_refuse_residuals_of_others(op) -> None:
    value, residuals = op.fwd(**example(op))
    stranger = dataclasses.replace(residuals, operator="stranger")
    for derivative in (op.vjp, op.jvp):
        with pytest.raises(ValueError, match=f"come from stranger.fwd; pass those of {op.name}.fwd"):
            derivative(stranger, np.ones(value.shape))
        with pytest.raises(TypeError, match="not be a tuple"):
            derivative(residuals.arrays, np.ones(value.shape))


@each_operator
def test_derivatives_refuse_the_wrong_shape(op, to_xp) -> None:
    """A cotangent that would broadcast is refused, too."""
    arguments = convert(example(op), to_xp, "float64")
    value, residuals = op.fwd(**arguments)
    for shape in ((), (1,) * value.ndim, (2, *value.shape)):
        with pytest.raises(ValueError, match=re.escape(f"{op.name}: the cotangent has shape {shape}")):
            op.vjp(residuals, to_xp(np.ones(shape)))
    for name in differentiable(op, arguments):
        shape = (2, *arguments[name].shape)
        with pytest.raises(ValueError, match=re.escape(f"{op.name}: the tangent of {name} has shape {shape}")):
            op.jvp(residuals, to_xp(np.ones(shape)), wrt=name)


@each_operator
def test_derivatives_refuse_another_library(op, library, to_xp) -> None:
    """Nothing is moved silently. Python lists have no home yet: they are welcome."""
    arguments = convert(example(op), to_xp, "float64")
    value, residuals = op.fwd(**arguments)
    cotangent = random_like(value, 3)
    of_strict = pytest.importorskip("array_api_strict").asarray
    stranger = of_strict(cotangent) if library.name == "numpy" else cotangent
    with pytest.raises(TypeError, match="the cotangent"):
        op.vjp(residuals, stranger)
    from_lists = api.host(op.vjp(residuals, cotangent.tolist()))
    np.testing.assert_array_equal(from_lists, api.host(op.vjp(residuals, to_xp(cotangent))))


def test_a_rule_that_is_missing_is_named() -> None:
    @operator(Facts(differentiable=("x",), range="all real numbers"), lambda rng: ((1.0,), {}))
    def half_built(x: Any) -> Any:
        return 2.0 * x

    assert half_built(3.0) == 6.0
    residuals = gt.Residuals("half_built", (np.ones(1),), None, (("x", (), None), ("result", (), None)))
    for rule, call in (
        ("fwd", lambda: half_built.fwd(1.0)),
        ("jvp", lambda: half_built.jvp(residuals, 1.0)),
        ("vjp", lambda: half_built.vjp(residuals, 1.0)),
    ):
        with pytest.raises(NotImplementedError, match=f"half_built has no {rule} rule.*@half_built.{rule}_rule"):
            call()


# --- residuals ------------------------------------------------------------------------------------


@each_operator
def test_residuals_are_frozen_arrays_and_hashable_settings(op, to_xp, library) -> None:
    arguments = convert(example(op), to_xp, "float64")
    value, residuals = op.fwd(**arguments)
    with pytest.raises(dataclasses.FrozenInstanceError):
        residuals.arrays = ()
    assert isinstance(residuals.arrays, tuple)
    assert residuals.arrays
    for array in residuals.arrays:
        assert api.namespace_of(array) is library.xp
        assert api.device_of(array) == library.device
    hash(residuals.static)
    names = [name for name, _, _ in residuals.shapes]
    assert names == [*op.facts.differentiable, "result"]
    shapes = {name: (shape, dtype) for name, shape, dtype in residuals.shapes}
    assert shapes["result"] == (tuple(value.shape), value.dtype)
    for name in differentiable(op, arguments):
        assert shapes[name] == (tuple(arguments[name].shape), arguments[name].dtype)


@each_operator
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda residuals: pickle.loads(pickle.dumps(residuals))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_residuals_can_be_copied(op, duplicate) -> None:
    arguments = example(op)
    value, residuals = op.fwd(**arguments)
    again = duplicate(residuals)
    names, cotangent = differentiable(op, arguments), random_like(value, 4)
    for gradient, expected in zip(
        op.vjp(again, cotangent, wrt=names), op.vjp(residuals, cotangent, wrt=names), strict=True
    ):
        np.testing.assert_array_equal(gradient, expected)
    tangents = tangents_of(op, arguments)
    np.testing.assert_array_equal(op.jvp(again, *tangents, wrt=names), op.jvp(residuals, *tangents, wrt=names))


def large_call(op: Any, rows: int, n: int, k: int) -> dict[str, Any]:
    """A call with the arguments of the example, n items in a row and k of them selected."""
    rng = np.random.default_rng(5)
    makers = {
        "keys": lambda: rng.gumbel(size=(rows, n)),
        "log_weights": lambda: rng.normal(size=(rows, n)),
        "logits": lambda: rng.normal(size=(rows, n)),
        "noise": lambda: rng.gumbel(size=(rows, n)),
        "indices": lambda: rng.permuted(np.tile(np.arange(n), (rows, 1)), axis=1)[:, :k],
        "k": lambda: k,
        "temperature": lambda: 0.7,
    }
    return {name: makers[name]() for name in example(op)}


@each_operator
def test_residuals_hold_no_array_of_k_times_n(op) -> None:
    rows, n, k = 2, 400, 144
    _, residuals = op.fwd(**large_call(op, rows, n, k))
    assert sum(array.size for array in residuals.arrays) <= rows * n * k / 4


# --- randomness -----------------------------------------------------------------------------------


def test_there_are_random_operators() -> None:
    assert gt.relaxed_sample in RANDOM_OPERATORS


@pytest.mark.parametrize("op", RANDOM_OPERATORS, ids=lambda op: op.name)
def test_forward_noise_is_never_drawn_again(op) -> None:
    """Derivatives leave the generator alone, and belong to the very sample that `fwd` returned."""
    arguments = {name: value for name, value in example(op).items() if name != "noise"}
    rng = np.random.default_rng(6)
    value, residuals = op.fwd(**arguments, rng=rng)
    state = rng.bit_generator.state
    names, cotangent = differentiable(op, arguments), random_like(value, 7)
    gradients = op.vjp(residuals, cotangent, wrt=names)
    tangent = op.jvp(residuals, *tangents_of(op, arguments), wrt=names)
    assert rng.bit_generator.state == state

    noise = gt.gumbel_keys(np.zeros(value.shape), rng=6)  # what a generator of that seed draws first
    same_value, same_residuals = op.fwd(**arguments, noise=noise)
    np.testing.assert_allclose(value, same_value, rtol=1e-12)
    for gradient, expected in zip(gradients, op.vjp(same_residuals, cotangent, wrt=names), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))
    expected = op.jvp(same_residuals, *tangents_of(op, arguments), wrt=names)
    np.testing.assert_allclose(tangent, expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))

    fresh, _ = op.fwd(**arguments, rng=rng)
    assert not np.any(fresh == value)  # the next forward pass draws anew


# --- facts ----------------------------------------------------------------------------------------


@each_operator
@pytest.mark.parametrize("seed", range(5))
def test_range_is_as_stated(op, seed: int) -> None:
    value = op(**example(op, seed))
    assert RANGES[op.facts.range](value)


@pytest.mark.parametrize("op", [op for op in OPERATORS if op.facts.sums_to_k], ids=lambda op: op.name)
@pytest.mark.parametrize("seed", range(5))
def test_rows_sum_to_k_where_stated(op, seed: int) -> None:
    arguments = example(op, seed)
    np.testing.assert_allclose(np.sum(op(**arguments), axis=-1), arguments["k"], rtol=1e-13)


@pytest.mark.parametrize(
    "op", [op for op in OPERATORS if op.facts.order_preserving != Facts.order_preserving], ids=lambda op: op.name
)
@pytest.mark.parametrize("seed", range(20))
def test_order_is_preserved_where_stated(op, seed: int) -> None:
    changes, scores_of = ORDERS[op.facts.order_preserving]
    arguments = {**example(op, seed), **changes}
    order = np.argsort(scores_of(arguments), axis=-1)
    value = np.take_along_axis(op(**arguments), order, axis=-1)
    assert np.all(np.diff(value, axis=-1) >= -1e-14)


@each_operator
def test_facts_fit_the_signature(op) -> None:
    parameters = inspect.signature(op).parameters
    assert op.facts.differentiable
    assert set(op.facts.differentiable) <= set(parameters)
    assert op.facts.source
    assert gt.OPERATORS[op.name] is op
    assert getattr(gt, op.name) is op


@each_operator
def test_examples_are_reproducible_calls(op) -> None:
    (first, first_options), (second, second_options) = (op.example(np.random.default_rng(8)) for _ in range(2))
    np.testing.assert_array_equal(op(*first, **first_options), op(*second, **second_options))
    other, other_options = op.example(np.random.default_rng(9))
    assert not np.array_equal(op(*first, **first_options), op(*other, **other_options))


# --- an operator is a function --------------------------------------------------------------------


@each_operator
def test_operators_are_pickled_by_reference(op) -> None:
    text = pickle.dumps(op)
    assert pickle.loads(text) is op
    assert len(text) < 200
    assert copy.copy(op) is op
    assert copy.deepcopy(op) is op
    assert {op: 1}[op] == 1


@each_operator
def test_signature_and_docstring_are_those_of_the_function(op) -> None:
    assert inspect.signature(op) == inspect.signature(op.value)
    assert op.__doc__ == op.value.__doc__
    assert op.__name__ == op.name == op.value.__name__
    assert op.__module__.startswith("gumbeltopk.")
    assert op.__doc__.splitlines()[0] in pydoc.render_doc(op, renderer=pydoc.plaintext)
    assert repr(op) == f"<Operator gumbeltopk.{op.name}>"


@each_operator
def test_fwd_takes_the_arguments_of_the_plain_call(op) -> None:
    """Names, kinds, order and defaults: a default that differs would make fwd another function."""
    assert inspect.signature(op._fwd).parameters == inspect.signature(op).parameters


# --- documentation --------------------------------------------------------------------------------


def public_objects() -> dict[str, Any]:
    """Functions, operators and classes that users see."""
    objects = {f"gumbeltopk.{name}": getattr(gt, name) for name in gt.__all__}
    objects |= {f"gumbeltopk.testing.{name}": getattr(gt.testing, name) for name in gt.testing.__all__}
    return {name: thing for name, thing in objects.items() if callable(thing)}


PUBLIC = public_objects()
PUBLIC_FUNCTIONS = {name: thing for name, thing in PUBLIC.items() if not inspect.isclass(thing)}
PUBLIC_CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}
SECTION = re.compile(r"^(\w[\w ]*)\n(-+)$", re.MULTILINE)
BORROWED = re.compile(r"[Pp]arameters[\w ]* as\s+for\s+`(\w+)`")


def sections(thing: Any) -> dict[str, str]:
    """The numpydoc sections of a docstring."""
    document = inspect.getdoc(thing) or ""
    heads = list(SECTION.finditer(document))
    ends = [head.start() for head in heads[1:]] + [len(document)]
    return {head[1]: document[head.end() : end] for head, end in zip(heads, ends, strict=True)}


def described(section: str) -> set[str]:
    """Names of the parameters that a section describes: `a : int`, `a, b : int`, or `a, b`."""
    heads = [line.partition(" :")[0] for line in section.splitlines() if line and not line.startswith(" ")]
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_public_functions_are_documented(name: str) -> None:
    """Every parameter is described, none that is not there, and there is an example.

    A docstring may borrow the parameters of another one: "parameters as for `other`".
    """
    function = PUBLIC_FUNCTIONS[name]
    own = sections(function)
    assert "Examples" in own
    signature = inspect.signature(function)
    assert ("Returns" in own) == (signature.return_annotation != "None")
    if "Parameters" in own:
        assert described(own["Parameters"]) == set(signature.parameters)
    elif signature.parameters:
        lender = BORROWED.search(inspect.getdoc(function) or "")
        assert lender is not None
        lent = sections(PUBLIC_FUNCTIONS[f"{name.rpartition('.')[0]}.{lender[1]}"])
        assert set(signature.parameters) <= described(lent["Parameters"])


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_public_classes_are_documented(name: str) -> None:
    own = sections(PUBLIC_CLASSES[name])
    assert "Parameters" in own or "Attributes" in own
    for member, method in inspect.getmembers(PUBLIC_CLASSES[name]):
        if not member.startswith("_") and (inspect.isfunction(method) or isinstance(method, property)):
            assert inspect.getdoc(method), f"{name}.{member} has no docstring"


@pytest.mark.parametrize("name", PUBLIC)
def test_headings_of_docstrings_are_underlined_in_full(name: str) -> None:
    for head in SECTION.finditer(inspect.getdoc(PUBLIC[name]) or ""):
        assert len(head[1]) == len(head[2]), head[1]


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_examples_of_docstrings_are_collected(name: str, pytestconfig) -> None:
    """`pytest --doctest-modules`, which is the default here, finds and runs them."""
    function = PUBLIC_FUNCTIONS[name]
    module = sys.modules[function.__module__]
    found = {test.name for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples}
    assert f"{module.__name__}.{function.__name__}" in found
    assert pytestconfig.getini("testpaths") == ["tests", "gumbeltopk"]
    assert "--doctest-modules" in pytestconfig.getini("addopts")
