"""The one shape of everything differentiable: a function with methods, like a NumPy ufunc.

An operator ``f`` is called for its value, ``f.fwd`` also returns what the derivatives need, and ``f.jvp`` and
``f.vjp`` are the two linear maps u -> J u and v -> J^T v at that point. Nothing is hidden: no tape, no closure,
no global state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec

from gumbeltopk import _validation
from gumbeltopk._array_api import Array

__all__ = ["Facts", "Operator", "Residuals", "operator"]

Parameters = ParamSpec("Parameters")
Example = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
JvpRule = Callable[["Residuals", Mapping[str, Array]], Array]
VjpRule = Callable[["Residuals", Array, tuple[str, ...]], Mapping[str, Array]]


@dataclass(frozen=True, eq=False)
class Residuals:
    """What the forward pass leaves for the derivatives.

    Attributes
    ----------
    operator : str
        Name of the operator that made them; no other operator accepts them.
    arrays : tuple of arrays
        In a fixed order of the operator's own: what an autograd framework must keep alive. The first array tells
        the namespace and the device.
    static : NamedTuple
        Hashable settings of the call (k, axis, ...).
    shapes : tuple of (name, shape, dtype)
        Of the differentiable arguments, in order, and of the result, which is called ``"result"`` and comes last.
    """

    operator: str
    arrays: tuple[Array, ...]
    static: Any
    shapes: tuple[tuple[str, tuple[int, ...], Any], ...]


@dataclass(frozen=True)
class Facts:
    """What is true of an operator at every point; tests, benchmarks and docs read it.

    Attributes
    ----------
    differentiable : tuple of str
        Arguments with derivatives; the first one is the default of `jvp` and `vjp`.
    range : str
        The set of possible values, as mathematics.
    sums_to_k : bool
        Whether the items of a row sum to k.
    order_preserving : str
        When a larger input gets a larger output.
    smooth : bool
        Whether all derivatives exist everywhere.
    source : str
        Paper and equation.
    """

    differentiable: tuple[str, ...]
    range: str
    sums_to_k: bool = False
    order_preserving: str = "not applicable"
    smooth: bool = True
    source: str = ""


@dataclass(eq=False, repr=False)
class Operator(Generic[Parameters]):
    """A differentiable function with hand-written derivatives.

    Attributes
    ----------
    name : str
        The public name.
    facts : Facts
        Differentiable arguments, range, smoothness, order preservation, source.
    example : callable
        ``example(rng)`` returns NumPy ``(args, kwargs)`` for a typical call, deterministic given the generator.

    Examples
    --------
    >>> import numpy as np
    >>> import gumbeltopk as gt
    >>> keys = np.asarray([1.0, 0.5, -0.5])
    >>> relaxed, residuals = gt.relaxed_topk.fwd(keys, 2)
    >>> gt.relaxed_topk.vjp(residuals, np.asarray([1.0, 0.0, 0.0])).round(4).tolist()
    [0.3081, -0.1974, -0.1107]
    """

    value: Callable[Parameters, Array]
    facts: Facts
    example: Example
    name: str = field(init=False)
    _fwd: Callable[..., tuple[Array, Residuals]] | None = field(default=None, init=False)
    _jvp: JvpRule | None = field(default=None, init=False)
    _vjp: VjpRule | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.name = self.value.__name__
        functools.update_wrapper(self, self.value)

    def __repr__(self) -> str:
        package = self.value.__module__.partition(".")[0]
        return f"<Operator {package}.{self.name}>"

    def __reduce__(self) -> str:
        return self.name  # pickled by reference, like a function

    # The three rules are attached where they are derived, next to the function that they belong to.

    def fwd_rule(self, rule: Callable[..., tuple[Array, Residuals]]) -> Callable[..., tuple[Array, Residuals]]:
        """Attach the forward pass with residuals (a decorator)."""
        self._fwd = rule
        return rule

    def jvp_rule(self, rule: JvpRule) -> JvpRule:
        """Attach the tangent rule (a decorator)."""
        self._jvp = rule
        return rule

    def vjp_rule(self, rule: VjpRule) -> VjpRule:
        """Attach the cotangent rule (a decorator)."""
        self._vjp = rule
        return rule

    def _lacks(self, rule: str) -> NotImplementedError:
        return NotImplementedError(f"{self.name} has no {rule} rule yet; attach one with @{self.name}.{rule}_rule")

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Array:
        """The value alone; nothing is kept for derivatives."""
        return self.value(*args, **kwargs)

    def fwd(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> tuple[Array, Residuals]:
        """The value, and the residuals that `jvp` and `vjp` take."""
        if self._fwd is None:
            raise self._lacks("fwd")
        return self._fwd(*args, **kwargs)

    def jvp(self, residuals: Residuals, *tangents: Array, wrt: str | tuple[str, ...] | None = None) -> Array:
        """Jacobian-vector product: the directional derivative of the value. Linear in the tangents.

        Parameters
        ----------
        residuals : Residuals
            From `fwd`.
        *tangents : array
            One for each name in `wrt`, of the shape of that argument.
        wrt : str or tuple of str, optional
            The arguments that move. Default: the first differentiable ones, as many as there are tangents.

        Returns
        -------
        array
            Of the shape and dtype of the value.
        """
        if self._jvp is None:
            raise self._lacks("jvp")
        _validation.check_residuals(residuals, self.name)
        default = self.facts.differentiable[: len(tangents)]
        names = _validation.differentiable_names(wrt, self.facts.differentiable, default, self.name)
        if not tangents or len(tangents) != len(names):
            raise TypeError(
                f"{self.name}.jvp: {len(tangents)} tangents for {len(names)} arguments {names}; "
                "pass one tangent for each name in wrt"
            )
        checked = {
            name: _validation.check_tangent(tangent, f"the tangent of {name}", residuals, name)
            for name, tangent in zip(names, tangents, strict=True)
        }
        return self._jvp(residuals, checked)

    def vjp(self, residuals: Residuals, cotangent: Array, *, wrt: str | tuple[str, ...] | None = None) -> Any:
        """Vector-Jacobian product: the gradient of ``sum(cotangent * value)``. Linear in the cotangent.

        Parameters
        ----------
        residuals : Residuals
            From `fwd`.
        cotangent : array
            Of the shape of the value.
        wrt : str or tuple of str, optional
            The arguments whose gradients are wanted. Default: the first differentiable one.

        Returns
        -------
        array or tuple of arrays
            The gradient, of the shape and dtype of its argument; a tuple of them if `wrt` is a tuple.
        """
        if self._vjp is None:
            raise self._lacks("vjp")
        _validation.check_residuals(residuals, self.name)
        default = self.facts.differentiable[:1]
        names = _validation.differentiable_names(wrt, self.facts.differentiable, default, self.name)
        checked = _validation.check_tangent(cotangent, "the cotangent", residuals, "result")
        gradients = self._vjp(residuals, checked, names)
        if isinstance(wrt, tuple):
            return tuple(gradients[name] for name in names)
        return gradients[names[0]]


def operator(facts: Facts, example: Example) -> Callable[[Callable[Parameters, Array]], Operator[Parameters]]:
    """Turn the function that computes the value into an `Operator` (a decorator)."""

    def wrap(value: Callable[Parameters, Array]) -> Operator[Parameters]:
        return Operator(value, facts, example)

    return wrap
