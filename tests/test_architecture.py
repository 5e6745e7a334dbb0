"""Dependencies between modules, checked by their imports (imports for types included)."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

import engine

ROOT = Path(__file__).parent.parent
LINES = 400
PARAMETERS = 8  #: of a constructor, without ``self``
#: Files with more than LINES lines, and constructors with more than PARAMETERS parameters, each with its reason.
LONGER = {
    "engine/asgi/connection.py": "a connection is its states, which every event of it changes",
    "engine/client/functiond/instance.py": "functiond deploy packs it as one file",
    "engine/errors/__init__.py": "a tree of small classes, which is looked up by name",
    "engine/executors/allocator.py": "instances, and the calls and starts that wait for them, are one state",
    "engine/scheduling/runqueue.py": "order and capacity are one state, which each start changes",
    "engine/scheduling/scheduler.py": "queue, pauses, withheld entries and reads share one state",
    "plugins/smn/api.py": "operations of one service, with their bodies and the checks of these",
}
WIDER = {"engine.app.parts.EngineParts": "settings and open resources of a whole engine"}
SURFACE = "engine"  #: the only package that plugins may import

#: Layers from the lowest up: an import goes to a lower layer, or stays inside one package.
LAYERS = (
    {"errors", "functiond"},
    {"asgi", "model", "runtimes"},
    {"auth", "isolation", "logs", "metrics"},
    {"executors", "protocols"},
    {SURFACE, "code", "scheduling", "storage"},
    {"agent", "config", "functions", "maintenance"},
    {"pipeline", "resources"},
    {"triggers"},
    {"http"},
    {"app", "deploy"},
    {"cli"},
    {"__main__", "docs", "embedded"},
)
#: Modules of the client that load an embedded engine, from the lowest up. They are above all layers.
ABOVE = ("functiond", "pytest_functiond")


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sources(*folders: str) -> dict[str, Path]:
    return {_name(file): file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))}


def _parts(*folders: str) -> dict[str, Path]:
    """Return all modules except the workers, which are separate programs, and the client, see ``_client``."""
    apart = ("engine.workers", "engine.client")
    return {name: file for name, file in _sources(*folders).items() if not name.startswith(apart)}


def _imports(file: Path, known: Iterable[str] = ()) -> Iterator[str]:
    """Yield full names of the modules that a file imports, anywhere in it."""
    for module, name in _imported(file):
        whole = f"{module}.{name}"
        yield whole if whole in known else module


@cache
def _imported(file: Path) -> list[tuple[str, str | None]]:
    """Return the module of each import of a file, and the name that is imported from it."""
    pairs: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            pairs += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            pairs += [(node.module or "", alias.name) for alias in node.names]
    return pairs


def _graph() -> dict[str, set[str]]:
    return _graph_of({**_parts("engine", "plugins"), **_client()})


def _graph_of(modules: dict[str, Path]) -> dict[str, set[str]]:
    return {name: {used for used in _imports(file, modules) if used in modules} for name, file in modules.items()}


def _workers() -> dict[str, Path]:
    """Return the modules of the workers by the names by which they import each other."""
    return {file.stem: file for file in (ROOT / "engine" / "workers").glob("*.py")}


def _client() -> dict[str, Path]:
    """Return the modules of the package ``functiond``, and the plugin of pytest beside it."""
    return {name.removeprefix("engine.client."): file for name, file in _sources("engine/client").items()}


def _part(module: str) -> str:
    """Return the first name below ``engine``: a module or a package; for modules of the client, its name."""
    top, *below = module.split(".")
    return below[0] if below and top != "functiond" else top


def _layer(module: str) -> int:
    if module in ABOVE:
        return len(LAYERS) + ABOVE.index(module)
    part = _part(module)
    numbers = [number for number, layer in enumerate(LAYERS) if part in layer]
    assert numbers, f"{module} has no layer yet: give it one in {Path(__file__).name}"
    return numbers[0]


def test_imports_go_down() -> None:
    edges = [(name, used) for name, targets in _graph().items() for used in targets if not name.startswith("plugins")]

    apart = [(name, used) for name, used in edges if _part(name) != _part(used) or not {name, used}.isdisjoint(ABOVE)]
    assert [f"{name} -> {used}" for name, used in apart if _layer(used) >= _layer(name)] == []
    assert len(apart) > 50


@pytest.mark.parametrize(
    "modules", [{**_parts("engine", "plugins"), **_client()}, _workers()], ids=["parts and client", "workers"]
)
def test_there_is_no_cycle(modules: dict[str, Path]) -> None:
    graph = _graph_of(modules)
    assert any(graph.values())
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_module_has_one_layer() -> None:
    named = [part for layer in LAYERS for part in layer]

    assert {_part(name) for name in _parts("engine")} | {"functiond"} <= set(named)
    assert len(named) == len(set(named))


def test_plugins_know_the_surface_of_the_engine_only() -> None:
    used = {
        name: {target for target in targets if target.startswith("engine")}
        for name, targets in _plugin_imports().items()
    }

    assert {name: targets for name, targets in used.items() if not targets <= {SURFACE}} == {}
    assert any(targets for targets in used.values())


def test_each_name_for_plugins_is_used_by_a_plugin_or_by_the_documents() -> None:
    pages = [ROOT / "README.md", *(ROOT / "engine" / "docs").glob("*.md")]
    examples = [text for page in pages for text in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    programs = [*examples, *(file.read_text() for file in _sources("plugins").values())]
    used = {name for text in programs for name in _names_from_surface(ast.parse(text))}

    assert set(engine.__all__) - used == set()


def _names_from_surface(program: ast.Module) -> Iterator[str]:
    for node in ast.walk(program):
        if isinstance(node, ast.ImportFrom) and node.module == SURFACE:
            yield from (alias.name for alias in node.names)


def _plugin_imports() -> dict[str, set[str]]:
    modules = _sources("engine")
    return {name: set(_imports(file, modules)) for name, file in _sources("plugins").items()}


def test_a_class_and_a_protocol_never_share_a_name() -> None:
    protocols, classes = Counter[str](), set[str]()
    for file in _sources("engine", "plugins").values():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                if "Protocol" in bases:
                    protocols[node.name] += 1
                else:
                    classes.add(node.name)

    assert [name for name, count in protocols.items() if count > 1 or name in classes] == []
    assert len(protocols) > 20


def test_the_engine_imports_no_plugin() -> None:
    assert [name for name, used in _graph().items() if name.startswith("engine") and _starts(used, "plugins")] == []


def _starts(names: Iterable[str], package: str) -> bool:
    return any(name.split(".")[0] == package for name in names)


def test_workers_need_the_standard_library_only() -> None:
    workers = _workers()
    used = {
        name: {used.split(".")[0] for used in _imports(file)} - workers.keys() - sys.stdlib_module_names
        for name, file in workers.items()
    }

    assert {name: foreign for name, foreign in used.items() if foreign} == {"ray_placement": {"ray"}}
    assert len(used) > 5


def test_the_client_needs_httpx_and_msgspec_only() -> None:
    used = {name: set(_loaded(ast.parse(file.read_text()))) for name, file in _client().items()}

    assert used["functiond"] >= {"engine.embedded"}
    used["functiond"].remove("engine.embedded")
    tops = {name: {module.split(".")[0] for module in modules} for name, modules in used.items()}
    assert set().union(*tops.values()) - sys.stdlib_module_names == {"functiond", "httpx", "msgspec", "pytest"}
    assert [name for name, modules in tops.items() if "httpx" in modules] == ["functiond.async_transport"]


def test_workers_load_no_module_for_types_only() -> None:
    """Such modules would lengthen each cold start, and would be loaded for user code."""
    others = ("worker_types", "ray_placement")  # which run in no instance
    files = [file for name, file in _workers().items() if name not in others]
    loaded = {name for file in files for name in _loaded(ast.parse(file.read_text()))}

    assert loaded & {"__future__", "typing", "worker_types"} == set()
    assert "python_wire" in loaded


def _loaded(program: ast.AST) -> Iterator[str]:
    """Yield the names of modules that a program imports outside ``if TYPE_CHECKING``."""
    if isinstance(program, ast.If) and isinstance(program.test, ast.Name) and program.test.id == "TYPE_CHECKING":
        return
    if isinstance(program, ast.Import):
        yield from (alias.name for alias in program.names)
    elif isinstance(program, ast.ImportFrom):
        yield program.module or ""
    for node in ast.iter_child_nodes(program):
        yield from _loaded(node)


def test_imports_below_type_checking_do_not_count_as_loaded() -> None:
    program = ast.parse("import os\nif TYPE_CHECKING:\n    import typing\ndef f():\n    from json import loads\n")

    assert list(_loaded(program)) == ["os", "json"]


#: Package of the only implementation of storage so far, and the module that chooses it.
SQLITE, CHOICE = "engine.storage.sqlite", "engine.storage"


def _outside_sqlite() -> dict[str, Path]:
    return {name: file for name, file in _parts("engine", "plugins").items() if not name.startswith(SQLITE)}


def test_only_the_sqlite_storage_opens_databases() -> None:
    def opens(file: Path) -> bool:
        return _starts(_imports(file), "sqlite3") or _starts(_imports(file), "aiosqlite")

    assert [name for name, file in _outside_sqlite().items() if opens(file)] == []
    assert any(opens(file) for file in _sources("engine/storage/sqlite").values())


def test_only_one_module_knows_which_storage_is_used() -> None:
    known = {name for name, file in _outside_sqlite().items() if "sqlite" in file.read_text().lower()}

    assert known == {CHOICE}


def test_modules_hold_no_state_that_changes() -> None:
    places = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in _sources("engine", "plugins").values()
        for line in _changing(ast.parse(file.read_text()))
    ]

    assert places == []


def _changing(module: ast.Module) -> Iterator[int]:
    """Yield lines with ``global``, and mutable module-level collections whose names are not constants."""
    yield from (node.lineno for node in ast.walk(module) if isinstance(node, ast.Global))
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict | ast.List | ast.Set):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if any(name != name.upper() and name != "__all__" for name in names):
                yield node.lineno


def test_a_module_level_list_counts_as_state() -> None:
    assert list(_changing(ast.parse("seen = []\nKNOWN = []\n"))) == [1]


def test_constructors_take_few_parameters() -> None:
    counts = {
        f"{name}.{owner}": count
        for name, file in _parts("engine", "plugins").items()
        for owner, count in _constructors(ast.parse(file.read_text()))
    }

    assert {owner for owner, count in counts.items() if count > PARAMETERS} == set(WIDER)
    assert median(counts.values()) <= 3


def _constructors(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each class that defines a constructor, with the number of the constructor's parameters."""
    for owner in ast.walk(module):
        if isinstance(owner, ast.ClassDef):
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    given = node.args
                    yield owner.name, len([*given.posonlyargs, *given.args, *given.kwonlyargs]) - 1


def test_signals_are_connected_where_the_engine_is_constructed() -> None:
    signals, connected = set[str](), set[tuple[str, str]]()
    for name, file in _parts("engine", "plugins").items():
        module = ast.parse(file.read_text())
        signals.update(_signals(module))
        connected.update((_part(name), signal) for signal in _connected(module))

    assert {(part, signal) for part, signal in connected if signal in signals} == {
        ("app", signal) for signal in signals
    }
    assert len(signals) > 5


def _signals(module: ast.Module) -> Iterator[str]:
    """Yield the names of attributes that are signals."""
    for node in ast.walk(module):
        match node:
            case ast.AnnAssign(target=ast.Attribute(attr=name), value=ast.Call(func=ast.Name(id="Signal"))):
                yield name


def _connected(module: ast.Module) -> Iterator[str]:
    """Yield ``name`` of each call ``….name.connect(…)``."""
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr=name), attr="connect")):
                yield name


def test_no_object_gets_a_callback_by_assignment() -> None:
    places = {
        f"{name}:{line}"
        for name, file in _parts("engine", "plugins").items()
        for line in _foreign_callbacks(ast.parse(file.read_text()))
    }

    assert places == set()


def _foreign_callbacks(module: ast.Module) -> Iterator[int]:
    """Yield lines that set an attribute of another object than ``self`` to a lambda, or to a function of the module."""
    defined = (ast.FunctionDef, ast.AsyncFunctionDef)
    owned = {member for node in ast.walk(module) if isinstance(node, ast.ClassDef) for member in node.body}
    methods = {f"self.{member.name}" for member in owned if isinstance(member, defined) and not member.decorator_list}
    functions = {node.name for node in ast.walk(module) if isinstance(node, defined) and node not in owned}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            owners = {ast.unparse(target.value) for target in targets if isinstance(target, ast.Attribute)}
            if owners - {"self", "cls"} and _is_callback(node.value, methods | functions):
                yield node.lineno


def _is_callback(value: ast.expr | None, functions: Container[str]) -> bool:
    return isinstance(value, ast.Lambda) or (value is not None and ast.unparse(value) in functions)


def test_a_lambda_and_a_method_count_as_callbacks() -> None:
    lines = "def f(): ...", "class C:\n def m(self): ...", "a.b = lambda: 1", "a.b.c = f", "a.b = self.m"
    harmless = "self.b = f", "a.b = m", "a.b = self.f", "a = f"

    assert list(_foreign_callbacks(ast.parse("\n".join([*lines, *harmless])))) == [4, 5, 6]


@pytest.mark.parametrize(
    ("constant", "home"),
    [("RESULT_LIMIT = 6 << 20", "engine.runtimes.protocol"), ("PRE_STOP_GRACE = 1.0", "engine.app.service")],
)
def test_a_constant_that_two_modules_need_is_defined_once(constant: str, home: str) -> None:
    assert [name for name, file in _parts("engine").items() if f"\n{constant}" in file.read_text()] == [home]


def test_files_stay_short() -> None:
    files = _sources("engine", "plugins").values()
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}

    assert {name for name, length in lengths.items() if length > LINES} == set(LONGER)
    assert median(lengths.values()) <= 140
