"""The rules of the house, read off the sources: who may import whom, and what may not be written at all.

Data flows one way: public module -> validation and axis handling -> dispatch -> core. Experiments and the command line
are users of the public names, and nothing depends on them. Each rule is a function from a syntax tree to complaints;
each is also tried on a line that breaks it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gumbeltopk as gt

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gumbeltopk"

Rule = Callable[[str, ast.AST], Iterator[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text("utf-8"), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module), for imports inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in TREES else base


def within(name: str, *parents: str) -> bool:
    """Whether a module is one of `parents` or lies in one."""
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


# --- who may import whom --------------------------------------------------------------------------

CORES = ("gumbeltopk._generic", "gumbeltopk._numpy", "gumbeltopk._numba", "gumbeltopk._cupy")
NUMPY_CORES = ("gumbeltopk._numpy", "gumbeltopk._numba")  # the second has kernels for the first
SETTINGS = ("gumbeltopk._threads", "gumbeltopk._compilation")
# Users of the public names, and their helpers.
USERS = (
    "gumbeltopk.experiments",
    "gumbeltopk.cli",
    "gumbeltopk.__main__",
    "gumbeltopk.records",
    "gumbeltopk._records",
    "gumbeltopk.interop",
)
# Public modules that the others do not know: each needs a library of its own.
ADAPTERS = ("gumbeltopk.dask", "gumbeltopk._dask")


def allowed_imports(name: str) -> tuple[str, ...] | None:
    """The modules of this package that a module may import; None where only the users are closed to it."""
    if name in ("gumbeltopk._array_api", "gumbeltopk._messages"):
        return ()
    if within(name, "gumbeltopk._validation", "gumbeltopk._random"):
        return ("gumbeltopk._array_api", "gumbeltopk._messages")
    if within(name, "gumbeltopk._generic"):
        return ("gumbeltopk._array_api", "gumbeltopk._generic")
    if name in SETTINGS:
        return ("gumbeltopk._array_api",)
    if within(name, *CORES):
        own = NUMPY_CORES if within(name, *NUMPY_CORES) else (".".join(name.split(".")[:2]),)
        return ("gumbeltopk._array_api", "gumbeltopk._generic", *SETTINGS, *own)
    if name == "gumbeltopk._dispatch":
        return ("gumbeltopk._array_api", *CORES)
    return None


def layers(name: str, tree: ast.AST) -> Iterator[str]:
    """Cores import no public module and no validation; nothing imports experiments or the command line."""
    allowed = allowed_imports(name)
    for line, imported in imports(tree):
        if imported.startswith("."):
            yield f"line {line}: a relative import hides which layer it comes from"
        if not within(imported, "gumbeltopk"):
            continue
        if within(name, *USERS):
            if imported != "gumbeltopk" and not within(imported, *USERS):
                yield f"line {line}: {imported} is not public; use a name of `gumbeltopk`"
        elif within(imported, *USERS):
            yield f"line {line}: {imported} is a user of the library, not a part of it"
        elif within(imported, *ADAPTERS) and not within(name, *ADAPTERS):
            yield f"line {line}: {imported} needs a library that is not always there"
        elif allowed is not None and not within(imported, *allowed):
            yield f"line {line}: {imported} is in a higher layer"


def array_api_compat_in_one_place(name: str, tree: ast.AST) -> Iterator[str]:
    """Only _array_api.py imports it; array-api-strict is for tests alone."""
    for line, imported in imports(tree):
        if within(imported, "array_api_compat") and name != "gumbeltopk._array_api":
            yield f"line {line}: only _array_api.py imports array_api_compat"
        if within(imported, "array_api_strict"):
            yield f"line {line}: array_api_strict is for tests"


def generic_cores_know_no_library(name: str, tree: ast.AST) -> Iterator[str]:
    """They are plain Array API code."""
    if within(name, "gumbeltopk._generic"):
        for line, imported in imports(tree):
            if within(imported, "numpy", "scipy", "cupy", "torch"):
                yield f"line {line}: {imported} in a generic core; use the namespace xp"


OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # public in spite of their names


def public_names_only(name: str, tree: ast.AST) -> Iterator[str]:
    """Users of the library reach for `gt.NAME` with a public NAME, and for no private attribute."""
    if not within(name, *USERS):
        return
    public = {*gt.__all__, "__version__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "gumbeltopk":
            for alias in node.names:
                if alias.name not in public and f"gumbeltopk.{alias.name}" not in TREES:
                    yield f"line {node.lineno}: gumbeltopk.{alias.name} is not public"
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value)
        if owner in ("gt", "gumbeltopk") and node.attr not in public:
            yield f"line {node.lineno}: gumbeltopk.{node.attr} is not public"
        elif re.match("_[^_]", node.attr) and owner not in ("self", "cls") and node.attr not in OF_NAMED_TUPLES:
            yield f"line {node.lineno}: {owner}.{node.attr} is private"


# --- what may not be written ----------------------------------------------------------------------

CREATION = {"arange", "asarray", "empty", "eye", "full", "linspace", "ones", "zeros"}


def creation_names_the_device(name: str, tree: ast.AST) -> Iterator[str]:
    """`xp.zeros(...)` without device= lands on the default device, which no test on one device would notice.

    `xp.asarray(array, copy=True)` is free to go: the copy stays where the array is.
    """
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CREATION):
            continue
        namespace = ast.unparse(node.func.value)
        keywords = {keyword.arg for keyword in node.keywords}
        is_copy = node.func.attr == "asarray" and "copy" in keywords
        if namespace.split(".")[-1] == "xp" and "device" not in keywords and not is_copy:
            yield f"line {node.lineno}: {ast.unparse(node)} without device="


def no_assert(name: str, tree: ast.AST) -> Iterator[str]:
    """`python -O` drops it, and it names no argument. The checks of `gumbeltopk.testing` raise AssertionError."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield f"line {node.lineno}: assert; raise an error that says what to do"
        if isinstance(node, ast.Raise) and node.exc is not None and name != "gumbeltopk.testing":
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if ast.unparse(raised) == "AssertionError":
                yield f"line {node.lineno}: AssertionError outside gumbeltopk.testing"


RULES = (
    layers,
    array_api_compat_in_one_place,
    generic_cores_know_no_library,
    public_names_only,
    creation_names_the_device,
    no_assert,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", TREES)
def test_sources_keep_the_rules(name: str, rule: Rule) -> None:
    assert list(rule(name, TREES[name])) == []


BROKEN = [
    (layers, "gumbeltopk._generic.selection", "from gumbeltopk import _validation"),
    (layers, "gumbeltopk._generic.selection", "from gumbeltopk._numpy import selection"),
    (layers, "gumbeltopk._numpy.selection", "from gumbeltopk.sampling import sample"),
    (layers, "gumbeltopk._numpy.selection", "def f():\n    import gumbeltopk.operator"),
    (layers, "gumbeltopk._validation", "from gumbeltopk import keys"),
    (layers, "gumbeltopk._array_api", "from gumbeltopk import _validation"),
    (layers, "gumbeltopk.sampling", "from gumbeltopk.experiments import figure1"),
    (layers, "gumbeltopk.sampling", "from gumbeltopk import cli"),
    (layers, "gumbeltopk.sampling", "from gumbeltopk._dask import checks"),
    (layers, "gumbeltopk.sampling", "from . import keys"),
    (layers, "gumbeltopk.experiments.figure1", "from gumbeltopk import _random"),
    (layers, "gumbeltopk.experiments.figure1", "from gumbeltopk.sampling import draw"),
    (layers, "gumbeltopk.cli", "from gumbeltopk.keys import gumbel_keys"),
    (array_api_compat_in_one_place, "gumbeltopk._random", "import array_api_compat.numpy as xp"),
    (array_api_compat_in_one_place, "gumbeltopk._random", "from array_api_compat import device"),
    (array_api_compat_in_one_place, "gumbeltopk._array_api", "import array_api_strict"),
    (generic_cores_know_no_library, "gumbeltopk._generic.subset", "import numpy as np"),
    (generic_cores_know_no_library, "gumbeltopk._generic.subset", "from scipy.special import logsumexp"),
    (public_names_only, "gumbeltopk.cli", "gt._random.numpy_generator(0)"),
    (public_names_only, "gumbeltopk.cli", "gt.sampling.draw()"),
    (public_names_only, "gumbeltopk.cli", "gt.PlackettLuce(x, 2)._given"),
    (public_names_only, "gumbeltopk.experiments.figure1", "from gumbeltopk import draw"),
    (creation_names_the_device, "gumbeltopk._generic.subset", "xp.zeros((2, 3), dtype=x.dtype)"),
    (creation_names_the_device, "gumbeltopk.sampling", "rows.xp.arange(3)"),
    (creation_names_the_device, "gumbeltopk.sampling", "call.rows.xp.asarray([1.0])"),
    (no_assert, "gumbeltopk.sampling", "assert k > 0"),
    (no_assert, "gumbeltopk.testing", "assert k > 0"),
    (no_assert, "gumbeltopk.sampling", "raise AssertionError('k')"),
]


@pytest.mark.parametrize(("rule", "name", "line"), BROKEN, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_broken_rule_is_noticed(rule: Rule, name: str, line: str) -> None:
    assert len(list(rule(name, ast.parse(line)))) == 1


KEPT = [
    (layers, "gumbeltopk.cli", "from gumbeltopk.experiments import figure1"),
    (layers, "gumbeltopk.experiments.figure1", "import gumbeltopk as gt"),
    (layers, "gumbeltopk._numpy.selection", "from gumbeltopk._generic import selection"),
    (layers, "gumbeltopk.dask", "from gumbeltopk._dask import checks"),
    (public_names_only, "gumbeltopk.cli", "gt.sample(x, 2), gt.__version__, self._rows"),
    (creation_names_the_device, "gumbeltopk.sampling", "xp.zeros(3, device=d), xp.zeros_like(x), np.zeros(3)"),
    (creation_names_the_device, "gumbeltopk.sampling", "xp.asarray(x, copy=True)"),
    (no_assert, "gumbeltopk.testing", "raise AssertionError('worst direction')"),
]


@pytest.mark.parametrize(("rule", "name", "line"), KEPT, ids=lambda part: getattr(part, "__name__", str(part)))
def test_what_is_allowed_is_not_complained_of(rule: Rule, name: str, line: str) -> None:
    assert list(rule(name, ast.parse(line))) == []


def test_all_layers_are_there() -> None:
    """The rules look at the package that is imported, and at all of it."""
    assert Path(gt.__file__).parent == PACKAGE
    for name in ("_generic.subset", "_numpy.selection", "_validation", "_dispatch", "cli", "experiments.figure1"):
        assert f"gumbeltopk.{name}" in TREES


# --- what a plain import loads --------------------------------------------------------------------

HEAVY = ("cupy", "dask", "jax", "matplotlib", "numba", "pandas", "scipy.stats", "torch", "tqdm")
HEAVY = ("cupy", "dask", "jax", "matplotlib", "pandas", "pyarrow", "scipy.stats", "torch", "tqdm")


def test_import_is_light() -> None:
    """A fresh interpreter has numpy and array_api_compat, and none of what only some users need."""
    code = "import sys, gumbeltopk; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()
    assert {"numpy", "array_api_compat"} <= set(loaded)
    assert not [module for module in loaded if within(module, *HEAVY)]
    assert not [module for module in loaded if within(module, *USERS, *ADAPTERS)]


# --- one version, everywhere ----------------------------------------------------------------------


def test_versions_agree() -> None:
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert citation is not None
    assert newest is not None
    assert gt.__version__ == citation[1] == newest[1]


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_public_names_are_sorted_and_there() -> None:
    assert gt.__all__ == sorted(gt.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    for name in gt.__all__:
        assert getattr(gt, name) is not None
