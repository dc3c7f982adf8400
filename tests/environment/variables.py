"""The variables of the environment that Celery reads, found in its source: `make variables`.

Reads of ``os.environ`` are found in the syntax trees of the packages, whether or not their module is ever loaded.
Celery's command line asks click for a variable for every option; those come from the commands themselves.
"""

from __future__ import annotations

import ast
import importlib
import warnings
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

#: Celery, what it is built of, and what its command line loads beside it.
PACKAGES = ("celery", "kombu", "billiard", "flower")
#: Methods of ``os.environ`` that read a variable.
READS = {"get", "pop", "setdefault"}


class Reads(ast.NodeVisitor):
    """Collects the names of variables that a module reads.

    A name may be a parameter of the function around it: then its default counts, and the constants that the
    module's own calls give. A name that stays unknown is listed as ``?`` with the function's name, to be looked at.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.names: set[str] = set()
        self._functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        self._calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._functions.append(node)
        self.generic_visit(node)
        self._functions.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815 - ast's name

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and node.args:
            is_getenv = function.attr == "getenv" and ast.unparse(function.value) == "os"
            if is_getenv or (function.attr in READS and is_environ(function.value)):
                self.names |= self._resolve(node.args[0])
        elif any(is_environ(argument) for argument in node.args):
            self.names |= {f"?{ast.unparse(node)}"}  # all of them at once
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if is_environ(node.value) and isinstance(node.ctx, ast.Load):
            self.names |= self._resolve(node.slice)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if any(is_environ(right) for right in node.comparators) and isinstance(
            node.ops[0], ast.In | ast.NotIn
        ):
            self.names |= self._resolve(node.left)
        self.generic_visit(node)

    def _resolve(self, key: ast.expr) -> set[str]:
        if isinstance(key, ast.Constant):
            return {str(key.value)}
        names = set(self._of_parameter(key.id)) if isinstance(key, ast.Name) else set()
        function = self._functions[-1].name if self._functions else "module"
        return names or {f"?{ast.unparse(key)} in {function}"}

    def _of_parameter(self, parameter: str) -> Iterator[str]:
        for function in self._functions:
            arguments = [*function.args.posonlyargs, *function.args.args]
            places = [place for place, argument in enumerate(arguments) if argument.arg == parameter]
            if not places:
                continue
            defaults = function.args.defaults
            from_end = places[0] - len(arguments)
            given = [defaults[from_end]] if -from_end <= len(defaults) else []
            for call in self._calls:
                if ast.unparse(call.func).rpartition(".")[2] == function.name:
                    given += call.args[places[0] : places[0] + 1]
                    given += [word.value for word in call.keywords if word.arg == parameter]
            yield from (str(value.value) for value in given if isinstance(value, ast.Constant))


def is_environ(node: ast.expr) -> bool:
    """True for ``os.environ``, however it was imported."""
    return ast.unparse(node) in {"os.environ", "environ", "_os.environ"}


def names_in_source(package: str) -> dict[str, set[str]]:
    """Return the variables that the package's modules read, each with the modules."""
    (folder,) = importlib.import_module(package).__path__
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(Path(folder).rglob("*.py")):
        module = ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        text = path.read_text(encoding="utf-8")
        if "environ" not in text and "getenv" not in text:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes in strings
            tree = ast.parse(text)
        for name in Reads(tree).names:
            found[name].add(module)
    return found


def names_of_options() -> dict[str, set[str]]:
    """Return the variables that set an option of Celery's command line, each with the command."""
    from celery.bin.celery import celery

    found: dict[str, set[str]] = defaultdict(set)

    def walk(command: click.Command, words: str, prefix: str) -> None:
        for option in command.params:  # --help has a name of click's own that nobody would write
            if isinstance(option, click.Option):
                explicit = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
                for name in [f"{prefix}_{option.name}".upper(), *explicit]:
                    found[name].add(words)
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk(inner, f"{words} {name}", f"{prefix}_{name}".replace("-", "_"))

    walk(celery, "celery", "CELERY")
    return found


def variables() -> dict[str, str]:
    """Return every variable that is read, with where."""
    found: dict[str, set[str]] = defaultdict(set)
    for source in (*map(names_in_source, PACKAGES), names_of_options()):
        for name, places in source.items():
            found[name] |= places
    return {name: ", ".join(sorted(places)) for name, places in sorted(found.items())}


if __name__ == "__main__":
    print("#", ", ".join(f"{package} {version(package)}" for package in PACKAGES))
    for name, places in variables().items():
        print(f"{name} | {places}")
