"""One file of plain PyTorch from the sources of this package: what a class needs, found by following names.

Definitions are copied as they stand, with their comments, in the order of imports. Methods and class attributes whose
names nobody mentions are left out: what trains, checks and draws first weights. So a new network needs no exporter of
its own; what it may not do at generation is use packages besides torch and numpy.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from itertools import groupby

from trainer.exporting.source_module import OURS, Edit, External, Internal, SourceModule, apply_edits

REPLACED_BODIES = {("trainer.networks.base", "run_block"): "return block(*inputs)"}
"""Methods that are simpler where nothing is trained: there are no activations to save."""


class Gathering:
    """What one file is made of.

    Args:
        root: the module that the file stands for; all of its definitions are taken.
        instead: what takes the place of other definitions.
    """

    def __init__(self, root: str, instead: Mapping[Internal, Internal]) -> None:
        self.root, self.instead = root, {old: new for old, new in instead.items() if old != new}
        self.modules: dict[str, SourceModule] = {}
        self.kept: set[Internal] = set()
        self.attributes: set[str] = set()
        """Names of attributes that what is kept mentions: members of classes that have none of these are left out."""
        self.follow()
        imported = (one for name in self.modules for one in self.modules[name].imported.values())
        outside = {one.local for one in imported if one.module.partition(".")[0] not in OURS}
        self.names = unique_names(self.in_order(), outside)

    def module(self, name: str) -> SourceModule:
        """Return a module, read once."""
        if name not in self.modules:
            self.modules[name] = SourceModule.read(name)
        return self.modules[name]

    def located(self, use: Internal) -> Internal:
        """Return what a name stands for in the file: a module may offer what it has imported itself."""
        while use not in self.instead and use.name not in self.module(use.module).definitions:
            use = self.module(use.module).internal(use.name)
        return self.instead.get(use, use)

    def follow(self) -> None:
        """Find the definitions that are needed, until no name leads to another one."""
        wanted = {Internal(self.root, name) for name in self.module(self.root).definitions}
        before = (-1, -1)
        while before != (len(self.kept), len(self.attributes)):
            before = (len(self.kept), len(self.attributes))
            self.kept |= wanted
            for one in sorted(self.kept):
                module = self.module(one.module)
                for node in self.members(one):
                    found, mentioned = module.uses(node)
                    self.attributes |= mentioned
                    wanted |= {self.located(use) for use in found}

    def in_order(self) -> list[Internal]:
        """Return what is kept so that each follows what it needs to be defined."""
        order = import_order(self.root, self.modules)
        return sorted(self.kept, key=lambda one: (order.index(one.module), self.module(one.module).line(one.name)))

    def write(self) -> str:
        """Return the file's text.

        Raises:
            SyntaxError: the result is no Python, which a change of the sources has brought about.
        """
        externals: set[External] = set()
        parts: list[str] = []
        for name, group in groupby(self.in_order(), lambda one: one.module):
            parts.append(f"# {name.replace('.', '/')}.py\n")
            for one in group:
                text, used = self.rendered(one)
                parts.append(text)
                externals |= used
        head = f'"""{ast.get_docstring(self.module(self.root).tree, clean=False)}"""\n\n'
        text = head + "\n".join(import_lines(externals)) + "\n\n\n" + "\n\n".join(parts)
        ast.parse(text)
        return text

    def rendered(self, one: Internal) -> tuple[str, set[External]]:
        """Return the text of a definition, and what it imports from outside."""
        module = self.module(one.module)
        definition = module.definitions[one.name]
        edits, externals = list(self.left_out(one)), set[External]()
        if self.names[one] != one.name:
            edits.append(module.rename(definition, one.name, self.names[one]))
        for node in self.members(one):
            made, used = module.edits(node, lambda use: self.names.get(self.located(use)))
            edits += made
            externals |= used
        return apply_edits(module, definition, edits), externals

    def members(self, one: Internal) -> Iterator[ast.AST]:
        """Yield the parts of a definition that are kept: all of it, or of a class those members that are mentioned."""
        node = self.module(one.module).definitions[one.name].node
        if not isinstance(node, ast.ClassDef):
            yield node
            return
        yield from (*node.bases, *node.decorator_list)
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and (one.module, member.name) in REPLACED_BODIES:
                yield from (member.args, *([member.returns] if member.returns else []))
            elif is_kept(node, member, self.attributes):
                yield member

    def left_out(self, one: Internal) -> Iterator[Edit]:
        """Yield the removal of members that nobody mentions, with the texts that describe them, and simpler bodies."""
        module, gone = self.module(one.module), False
        node = module.definitions[one.name].node
        if not isinstance(node, ast.ClassDef):
            return
        for member in node.body:
            describes = isinstance(member, ast.Expr) and member is not node.body[0]
            gone = gone if describes else not is_kept(node, member, self.attributes)
            if gone:
                yield module.removal(member)
            elif isinstance(member, ast.FunctionDef) and (body := REPLACED_BODIES.get((one.module, member.name))):
                yield module.replacement(member.body[-1], body)


def is_kept(owner: ast.ClassDef, member: ast.stmt, attributes: set[str]) -> bool:
    """Tell whether a member of a class is needed."""
    if isinstance(member, ast.FunctionDef):
        return member.name in attributes or member.name == "forward" or member.name.startswith("__")
    if is_data(owner):
        return True  # fields make the constructor
    if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name):
        return member.targets[0].id in attributes
    if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and member.value is not None:
        return member.target.id in attributes
    return True


def is_data(owner: ast.ClassDef) -> bool:
    """Tell whether a class is a dataclass or a named tuple."""
    parts = [part for mark in (*owner.decorator_list, *owner.bases) for part in ast.walk(mark)]
    return any(isinstance(part, ast.Name) and part.id in ("dataclass", "NamedTuple") for part in parts)


def import_order(root: str, modules: Mapping[str, SourceModule]) -> list[str]:
    """Return the modules so that each follows those that it imports from."""
    order: list[str] = []
    begun: set[str] = set()

    def visit(name: str) -> None:
        if name in modules and name not in begun:
            begun.add(name)
            for other in modules[name].imports():
                visit(other)
            order.append(name)

    for name in sorted(modules, key=lambda name: (name == root, name)):
        visit(name)
    return order


def unique_names(kept: list[Internal], taken: set[str]) -> dict[Internal, str]:
    """Return the name of each definition in the file: its own, or where that is taken one with its module's name."""
    names: dict[Internal, str] = {}
    for one in kept:
        stem = one.module.rpartition(".")[2]
        own = one.name
        if own in names.values() or own in taken:
            title = "".join(word.capitalize() for word in stem.split("_"))
            own = f"{title}{own}" if own[0].isupper() and not own.isupper() else f"{stem}_{own}".lower()
            own = own.upper() if one.name.isupper() else own
        names[one] = own
    return names


def import_lines(externals: set[External]) -> list[str]:
    """Return import statements, those of the standard library first."""
    lines = {"from __future__ import annotations"}
    by_module: dict[str, list[str]] = {}
    for one in externals:
        renamed = f" as {one.local}" if one.local != (one.name or one.module) else ""
        if one.name is None:
            lines.add(f"import {one.module}{renamed}")
        else:
            by_module.setdefault(one.module, []).append(one.name + renamed)
    lines |= {f"from {module} import {', '.join(sorted(names))}" for module, names in by_module.items()}
    third = ("torch", "numpy", "safetensors")
    ranked = sorted(lines, key=lambda line: ("__future__" not in line, line.split()[1].startswith(third), line))
    blank = next((k for k, line in enumerate(ranked) if line.split()[1].startswith(third)), len(ranked))
    return [ranked[0], "", *ranked[1:blank], "", *ranked[blank:]]
