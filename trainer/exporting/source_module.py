"""A module of ours as text: what it defines, what its parts use, and edits of that text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).parents[2]
OURS = "trainer", "shards", "command_line"
SHAPES = "jaxtyping"  # Float[Tensor, "n c"] becomes Tensor
SETTINGS = "identity", "later_identity", "operational"  # identity(64, "[0, 4096]") becomes 64


class Internal(NamedTuple):
    """A definition of ours."""

    module: str
    name: str


class External(NamedTuple):
    """Something that is imported from outside: `from module import name as local`, or `import module as local`."""

    module: str
    name: str | None
    local: str


class Definition(NamedTuple):
    """A statement that gives a name its meaning, from line `first` to line `last`, counted from one."""

    node: ast.stmt
    first: int
    last: int


class Edit(NamedTuple):
    """Bytes from `start` to `end` of a module, and what takes their place."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class SourceModule:
    """The text of a module, and its syntax tree."""

    name: str
    text: bytes
    tree: ast.Module

    @classmethod
    @cache
    def read(cls, name: str) -> SourceModule:
        """Read a module's source."""
        text = source_file(name).read_bytes()
        return cls(name, text, ast.parse(text))

    @cached_property
    def lines(self) -> list[bytes]:
        """Its lines."""
        return self.text.splitlines(keepends=True)

    @cached_property
    def starts(self) -> list[int]:
        """Where each line begins, and where the last one ends."""
        starts = [0]
        for line in self.lines:
            starts.append(starts[-1] + len(line))
        return starts

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """What it defines, with the comments above and the text below that describe it."""
        found: dict[str, Definition] = {}
        for k, node in enumerate(self.tree.body):
            names = defined_names(node)
            if not names:
                continue
            after = self.tree.body[k + 1] if k + 1 < len(self.tree.body) else None
            described = isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr)
            last = after.end_lineno if described and after else node.end_lineno
            assert last
            found |= {name: Definition(node, self.first_line(node), last) for name in names}
        return found

    @cached_property
    def imported(self) -> dict[str, External]:
        """What its imports give names to, by these."""
        found: dict[str, External] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {a.asname or a.name: External(node.module, a.name, a.asname or a.name) for a in node.names}
            elif isinstance(node, ast.Import):
                found |= {a.asname or a.name: External(a.name, None, a.asname or a.name) for a in node.names}
        return found

    def imports(self) -> Iterator[str]:
        """Yield the modules of ours that it imports from."""
        for one in self.imported.values():
            yield one.module
            if one.name:
                yield f"{one.module}.{one.name}"

    def internal(self, name: str) -> Internal:
        """Return what an imported name of ours stands for."""
        one = self.imported[name]
        return Internal(one.module, one.name or "")

    def line(self, name: str) -> int:
        """Return the line at which a definition begins."""
        return self.definitions[name].first

    def first_line(self, node: ast.stmt) -> int:
        """Return the first line of a statement with its decorators and the comments above."""
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(one.lineno for one in decorators)])
        while first > 1 and self.lines[first - 2].lstrip().startswith(b"#"):
            first -= 1
        return first

    def offset(self, line: int, column: int) -> int:
        """Return where a place is; columns count bytes, as ast has them."""
        return self.starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return where a node begins and ends."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def removal(self, node: ast.stmt) -> Edit:
        """Return the removal of a statement with its lines, its comments and the blank lines behind it."""
        last = node.end_lineno or node.lineno
        while last < len(self.lines) and not self.lines[last].strip():
            last += 1
        return Edit(self.starts[self.first_line(node) - 1], self.starts[last], "")

    def replacement(self, node: ast.stmt, text: str) -> Edit:
        """Return the replacement of a statement."""
        return Edit(*self.span(node), text)

    def rename(self, definition: Definition, name: str, new: str) -> Edit:
        """Return the edit that gives a definition another name."""
        start = self.span(definition.node)[0]
        at = self.text.index(name.encode(), start)
        return Edit(at, at + len(name.encode()), new)

    def uses(self, node: ast.AST) -> tuple[set[Internal], set[str]]:
        """Return the definitions of ours that a node needs when it runs, and the names of attributes it mentions."""
        walk = Walk(self)
        walk.visit(node)
        return {use for use, _ in walk.internal}, walk.attributes

    def edits(self, node: ast.AST, chosen: Callable[[Internal], str | None]) -> tuple[list[Edit], set[External]]:
        """Return the edits that make a node stand alone, and what it needs from outside.

        Args:
            node: a part of a definition.
            chosen: the name of a definition in the file that is made; None: it is not there.
        """
        walk = Walk(self)
        walk.visit(node)
        edits = [Edit(*self.span(old), self.text[slice(*self.span(new))].decode()) for old, new in walk.unwrapped]
        for use, part in walk.internal:
            name = chosen(use)
            assert name is not None, f"{use} is used and not there"
            if self.text[slice(*self.span(part))].decode() != name:
                edits.append(Edit(*self.span(part), name))
        externals = set(walk.external)
        for annotation, start in walk.annotations:
            inner = Walk(self)
            inner.visit(annotation)
            if any(chosen(use) is None for use, _ in inner.internal):
                edits.append(Edit(start, self.span(annotation)[1], ""))
                continue
            more, used = self.edits(annotation, chosen)
            edits += more
            externals |= used
        return edits, externals


class Walk(ast.NodeVisitor):
    """Finds what a part of a module uses: names that are not local, and annotations apart from them."""

    def __init__(self, module: SourceModule) -> None:
        self.module = module
        self.internal: list[tuple[Internal, ast.expr]] = []
        self.external: list[External] = []
        self.attributes: set[str] = set()
        self.annotations: list[tuple[ast.expr, int]] = []
        self.unwrapped: list[tuple[ast.expr, ast.expr]] = []
        self.local: list[set[str]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Look into a function, whose arguments and assigned names are its own."""
        for outside in (*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            self.visit(outside)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [one for one in (node.args.vararg, node.args.kwarg) if one]
        for argument in arguments:
            if argument.annotation:
                at = self.module.offset(argument.lineno, argument.col_offset) + len(argument.arg.encode())
                self.annotations.append((argument.annotation, at))
        if node.returns:
            before = self.module.text.rindex(b"->", 0, self.module.span(node.returns)[0])
            self.annotations.append((node.returns, before - 1))
        self.local.append({argument.arg for argument in arguments} | assigned(node))
        for statement in node.body:
            self.visit(statement)
        self.local.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Look at an assignment; its annotation may declare a field, and stays."""
        self.visit(node.annotation)
        self.visit(node.target)
        if node.value:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        """Look into a call; the declaration of a setting is its default."""
        if isinstance(node.func, ast.Name) and node.func.id in SETTINGS and self.resolved(node.func.id):
            self.unwrapped.append((node, node.args[0]))
            return
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Look into a type; of one with a shape, or with a note, the type alone is kept."""
        one = self.module.imported.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if one and isinstance(node.slice, ast.Tuple) and (one.module == SHAPES or one.name == "Annotated"):
            self.unwrapped.append((node, node.slice.elts[0]))
            self.visit(node.slice.elts[0])
            return
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Look at an attribute, or at a definition of an imported module."""
        target = self.resolved(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(target, Internal) and is_module(target):
            self.internal.append((Internal(f"{target.module}.{target.name}", node.attr), node))
            return
        self.attributes.add(node.attr)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """Look at a name."""
        target = self.resolved(node.id)
        if isinstance(target, Internal):
            self.internal.append((target, node))
        elif target:
            self.external.append(target)

    def resolved(self, name: str) -> Internal | External | None:
        """Return what a name stands for, unless it is local or Python's own."""
        if any(name in names for names in self.local):
            return None
        if name in self.module.definitions:
            return Internal(self.module.name, name)
        one = self.module.imported.get(name)
        if one and one.module.partition(".")[0] in OURS:
            return Internal(one.module, one.name or "")
        return one


def source_file(name: str) -> Path:
    """Return the file of a module or of a package; nothing is imported."""
    path = HOME.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def is_module(target: Internal) -> bool:
    """Tell whether what is imported is a module itself."""
    return source_file(f"{target.module}.{target.name}").exists()


def defined_names(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        return [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    return []


def assigned(node: ast.FunctionDef) -> set[str]:
    """Return the names that a function gives values to."""
    stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    stored |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}  # of lambdas, too
    return stored | {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef) and n is not node}


def apply_edits(module: SourceModule, definition: Definition, edits: list[Edit]) -> str:
    """Return the text of a definition with edits; one within another that removes it is dropped."""
    start, end = module.starts[definition.first - 1], module.starts[definition.last]
    text, at = b"", start
    for edit in sorted(edits, key=lambda edit: (edit.start, -edit.end)):
        if edit.start < at:
            continue
        text += module.text[at : edit.start] + edit.text.encode()
        at = edit.end
    return (text + module.text[at:end]).decode().rstrip() + "\n"
