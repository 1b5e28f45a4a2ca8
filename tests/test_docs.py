"""The documentation says what the code does: its Python runs, its numbers are those of a run, its names exist.

A fenced block that begins with ```python is executed, statement by statement, in the namespace of its page. Lines
`# -> ...` below a statement are what it printed. A block below the comment `<!-- no run -->` needs CuPy, and runs where
`--xp cupy` was asked for and CuPy can be used.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import gumbeltopk as gt
from gumbeltopk import cli

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))) if path.exists()]
PAGE_NAMES = [str(path.relative_to(ROOT)) for path in PAGES]

FENCE = re.compile(r"^(?P<marker><!-- no run -->\n+)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r"^# -> ?", re.MULTILINE)

needs_docs = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not here: a source tree without documentation")


class Block(NamedTuple):
    """A fenced block of Python: its code, the line of the page that it starts at, and whether it needs CuPy."""

    code: str
    line: int
    needs_cupy: bool


def read_blocks(text: str) -> list[Block]:
    """The Python blocks of a page, in order."""
    return [
        Block(match["code"], text.count("\n", 0, match.start("code")), match["marker"] is not None)
        for match in FENCE.finditer(text)
    ]


def run_block(block: Block, page: str, namespace: dict[str, Any]) -> None:
    """Execute the statements one by one; compare what each prints with the `# ->` lines that follow it."""
    lines = block.code.splitlines()
    statements = ast.parse(block.code).body
    ends = [*(statement.lineno - 1 for statement in statements[1:]), len(lines)]
    for statement, end in zip(statements, ends, strict=True):
        below = [line for line in lines[statement.end_lineno : end] if line.startswith("# ->")]
        where = f"{page}, line {block.line + statement.lineno}"
        module = ast.Module([ast.increment_lineno(statement, block.line)], type_ignores=[])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(module, page, "exec"), namespace)
        if below:
            shown = OUTPUT.sub("", "\n".join(below))
            assert printed.getvalue().rstrip("\n") == shown, f"{where}: this is not what the statement prints"


def run_page(path: Path, needs_cupy: bool) -> int:
    """Run the blocks of one page that do, or do not, need CuPy; returns their number."""
    namespace: dict[str, Any] = {"__name__": "page"}
    blocks = [block for block in read_blocks(path.read_text(encoding="utf-8")) if block.needs_cupy == needs_cupy]
    for block in blocks:
        run_block(block, str(path.relative_to(ROOT)), namespace)
    return len(blocks)


@pytest.mark.parametrize("path", PAGES, ids=PAGE_NAMES)
def test_the_python_of_every_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(path, needs_cupy=False)


@needs_docs
def test_the_cupy_blocks_run_where_there_is_cupy(pytestconfig: pytest.Config) -> None:
    requested = pytestconfig.getoption("--xp").split(",")
    if not {"cupy", "all"} & set(requested):
        pytest.skip("the blocks for CuPy run with --xp cupy")
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # a missing package, or CuPy without a driver
        pytest.skip(f"cupy cannot be used here: {type(error).__name__}: {error}")
    assert sum(run_page(path, needs_cupy=True) for path in PAGES) > 0


def test_a_wrong_number_on_a_page_is_found() -> None:
    right = Block("x = 2\nprint(x + 1)\n# -> 3\n", 10, False)
    run_block(right, "page.md", {})
    with pytest.raises(AssertionError, match=r"page.md, line 12: this is not what the statement prints"):
        run_block(right._replace(code="x = 2\nprint(x + 1)\n# -> 4\n"), "page.md", {})


def test_blocks_are_read_with_their_markers_and_lines() -> None:
    text = "# Title\n\n```python\na = 1\n```\n\n<!-- no run -->\n\n```python\nb = 2\n```\n\n```text\nc = 3\n```\n"
    assert read_blocks(text) == [Block("a = 1\n", 3, False), Block("b = 2\n", 9, True)]


@needs_docs
def test_no_block_hides_from_the_tests() -> None:
    """Only pages about GPUs have blocks that do not run, and every fence says what it holds."""
    for path, name in zip(PAGES, PAGE_NAMES, strict=True):
        text = path.read_text(encoding="utf-8")
        hidden = [block for block in read_blocks(text) if block.needs_cupy]
        assert not hidden or name == "docs/howto/cupy.md", f"{name}: line {hidden[0].line} is not run"
        opening = re.findall(r"^\s*```(.*)$", text, re.MULTILINE)[::2]
        unknown = set(opening) - {"python", "text", "console", "yaml"}
        assert not unknown, f"{name}: fences {unknown} are neither run nor known to be no Python"
        assert opening.count("python") == len(read_blocks(text)), f"{name}: an indented Python block is not run"


@needs_docs
@pytest.mark.parametrize("name", gt.__all__)
def test_every_public_name_has_a_reference_entry(name: str) -> None:
    entry = re.compile(rf"^::: gumbeltopk\.{re.escape(name)}$", re.MULTILINE)
    pages = [path for path in (DOCS / "reference").glob("*.md") if entry.search(path.read_text(encoding="utf-8"))]
    assert len(pages) == 1, f"the entry `::: gumbeltopk.{name}` stands on {len(pages)} pages of docs/reference"


@needs_docs
@pytest.mark.parametrize("name", gt.OPERATORS)
def test_every_operator_has_a_derivation(name: str) -> None:
    """A page of docs/derivations names its operator in its first paragraph, and derives value, JVP and VJP."""
    claim = f"\nOperator: [`{name}`](../reference/"
    pages = [
        text for path in (DOCS / "derivations").glob("*.md") if claim in (text := path.read_text(encoding="utf-8"))
    ]
    assert len(pages) == 1, f"{len(pages)} pages of docs/derivations begin with `Operator: [`{name}`]`"
    for part in ("## Value", "## JVP", "## VJP"):
        assert part in pages[0], f"the derivation of {name} lacks the section {part}"


@needs_docs
def test_every_option_of_the_command_line_is_described() -> None:
    text = (DOCS / "reference/command_line.md").read_text(encoding="utf-8")
    commands = cli.build_parser()._subparsers._group_actions[0].choices
    options = {option for parser in commands.values() for action in parser._actions for option in action.option_strings}
    missing = [option for option in sorted(options - {"-h", "--help"}) if f"`{option}" not in text]
    assert not missing, f"docs/reference/command_line.md says nothing of {missing}"
    assert all(f"gumbeltopk {command}" in text for command in commands)


@needs_docs
def test_the_paper_map_names_tests_that_exist() -> None:
    text = (DOCS / "paper_map.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/test_\w+\.py)::(\w+)`", text)
    assert named, "docs/paper_map.md names no test"
    for file, test in named:
        functions = _functions(ROOT / file)
        assert test in functions, f"docs/paper_map.md names {file}::{test}, which is not there"


def _functions(path: Path) -> set[str]:
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@needs_docs
def test_the_paper_map_names_every_statement_of_the_paper() -> None:
    text = (DOCS / "paper_map.md").read_text(encoding="utf-8")
    for statement in ("Algorithm 1", "Algorithm 2", "Eq. 1", "Eq. 2", "Eqs. 3–5", "Theorem 1", "Figure 1"):
        assert f"| {statement}" in text, f"docs/paper_map.md has no row for {statement}"


@pytest.mark.parametrize("path", PAGES, ids=PAGE_NAMES)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", prose)
    for target in targets:
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


@needs_docs
@pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="mkdocs.yml is not here: not a checkout")
@pytest.mark.skipif(
    not all(importlib.util.find_spec(package) for package in ("mkdocs", "mkdocstrings")),
    reason="mkdocs is not installed (extra docs)",
)
def test_the_site_builds_strictly_and_loads_nothing_from_a_network(tmp_path: Path) -> None:
    # Without --quiet, which silences the warnings that --strict counts.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    loads = re.compile(r"""<(?:script|img|iframe)[^>]*\bsrc="(?:https?:)?//[^"]*"|<link[^>]*\bhref="https?://[^"]*\"""")
    found = list(itertools.chain.from_iterable(loads.findall(page.read_text(encoding="utf-8")) for page in pages))
    assert not found, f"the site loads {found[0]}"
