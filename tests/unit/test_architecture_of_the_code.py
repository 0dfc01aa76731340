"""The rules that the code as a whole keeps: who imports whom, how long a file is, what an import pulls in."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "transformer_lens"
FILES = sorted(PACKAGE.rglob("*.py"))
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

LONGEST = 400
LONGER_BY_NATURE = {
    "loading/sources/model_names.py",  # a table
}

# Who may import what is optional, slow to import, or has an owner; a folder owns for all its files.
OWNERS = {
    "accelerate": ("loading/placement/",),
    "bitsandbytes": ("loading/quantization/bitsandbytes.py",),
    "gguf": ("loading/checkpoint/gguf.py",),
    "huggingface_hub": ("loading/sources/hub.py",),
    "peft": (),  # adapters are merged by ourselves, live layers are read as they are
    "rich": ("cli/",),
    "platformdirs": ("loading/memory/processed/folder.py",),
    "safetensors": ("loading/checkpoint/safetensors.py", "loading/saving.py"),
    "transformers": ("loading/sources/tokenizers.py", "loading/checkpoint/live_model.py"),
    "typer": ("cli/",),
}
# Imported inside functions, wherever they are needed, and never by `import transformer_lens`.
ON_DEMAND = {*OWNERS, "datasets", "pandas", "matplotlib", "wandb"}


def imports_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yields each imported name with its line, in functions too, except what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports_of(other)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        else:
            yield from imports_of(node)


def named(path: Path) -> str:
    """The file as messages and tables name it."""
    return path.relative_to(PACKAGE).as_posix()


def offenders(rule: Callable[[Path], Iterable[str]]) -> list[str]:
    """What every file of the package does against a rule."""
    return [offence for path in FILES for offence in rule(path)]


def part_of(path: Path) -> str:
    """The part of the package a file belongs to: its first folder, or its own name."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def ours(path: Path) -> Iterator[tuple[str, int]]:
    for name, line in imports_of(ast.parse(path.read_text())):
        if name.startswith("transformer_lens."):
            yield name.split(".")[1], line


def height() -> dict[str, int]:
    """The layer of each part, 0 the lowest."""
    layers = CONTRACTS["layers"]["layers"]
    return {
        part.strip(): len(layers) - 1 - index
        for index, layer in enumerate(layers)
        for part in layer.replace("|", ":").split(":")
    }


def upward_imports(path: Path) -> Iterator[str]:
    layers = height()
    part = part_of(path)
    if part not in layers:  # the package itself and the façades stand on top of everything
        return
    for imported, line in ours(path):
        if imported not in layers:
            yield f"{named(path)}:{line} imports {imported}, which is a façade"
        elif imported != part and layers[imported] > layers[part]:
            yield f"{named(path)}:{line} imports {imported}: upwards"


def test_imports_point_down():
    assert offenders(upward_imports) == []


def test_every_layer_exists():
    parts = {part_of(path) for path in FILES}
    assert set(height()) <= parts


def test_the_loader_knows_no_model():
    forbidden = {name.split(".")[1] for name in CONTRACTS["loader-knows-no-model"]["forbidden_modules"]}
    for path in (PACKAGE / "loading").rglob("*.py"):
        for imported, line in ours(path):
            assert imported not in forbidden, f"{path}:{line} imports {imported}"


def test_utilities_know_nothing_of_ours():
    for path in (PACKAGE / "utilities").rglob("*.py"):
        assert {imported for imported, _ in ours(path)} <= {"utilities"}, path


def imports_of_others(path: Path) -> Iterator[str]:
    for imported, line in imports_of(ast.parse(path.read_text())):
        library = imported.split(".")[0]
        if library in OWNERS and not named(path).startswith(OWNERS[library]):
            yield f"{named(path)}:{line} imports {library}"


def test_an_optional_library_has_one_importer():
    assert offenders(imports_of_others) == []


def lines_too_many(path: Path) -> Iterator[str]:
    lines = len(path.read_text().splitlines())
    if lines > LONGEST and named(path) not in LONGER_BY_NATURE:
        yield f"{named(path)} has {lines} lines"


def test_no_file_is_too_long():
    assert offenders(lines_too_many) == []


def probes_and_notes(path: Path) -> Iterator[str]:
    text = path.read_text()
    for number, line in enumerate(text.splitlines(), 1):
        if "TODO" in line or "FIXME" in line:
            yield f"{named(path)}:{number} is left to do"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3):
                yield f"{named(path)}:{node.lineno} probes with {node.func.id}"


def test_nothing_is_probed_or_left_to_do():
    """Attributes are declared, not probed for; what is not done is in the tracker, not in the code."""
    assert offenders(probes_and_notes) == []


OFFENDING = {
    upward_imports: ("utilities/bad.py", "from transformer_lens.loading import errors"),
    imports_of_others: ("loading/bad.py", "def f():\n    import gguf"),
    lines_too_many: ("loading/bad.py", "x = 1\n" * 401),
    probes_and_notes: ("loading/bad.py", "hasattr(x, 'y')\ngetattr(x, 'y', 0)\n# TO" + "DO\ngetattr(x, 'y')"),
}


@pytest.mark.parametrize("rule", OFFENDING, ids=lambda rule: rule.__name__)
def test_a_rule_finds_its_offenders(rule, monkeypatch, tmp_path):
    """One test a rule lists every offender of every file; here each rule is broken on purpose."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    name, text = OFFENDING[rule]
    for place in (tmp_path / name, (tmp_path / name).with_name("worse.py")):
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    found = [offence for path in sorted(tmp_path.rglob("*.py")) for offence in rule(path)]
    assert len(found) == (6 if rule is probes_and_notes else 2)
    assert all(offence.split(":")[0].split(" ")[0].endswith(("bad.py", "worse.py")) for offence in found)


def in_child(code: str) -> str:
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_import_pulls_in_nothing_slow():
    names = in_child("import sys, transformer_lens; print(*{name.split('.')[0] for name in sys.modules})")
    assert not set(names.split()) & ON_DEMAND
    assert "torch" in names.split()


@pytest.mark.parametrize(
    "statement",
    [
        "from transformer_lens.model_bridge import TransformerBridge",
        "import transformer_lens.model_bridge",
        "from transformer_lens import TransformerBridge",
        "from transformer_lens import HookedEncoder",
        "from transformer_lens import HookedEncoderDecoder",
        "from transformer_lens import HookedAudioEncoder",
        "from transformer_lens import BertNextSentencePrediction",
    ],
)
def test_what_is_not_here_says_so(statement):
    with pytest.raises(ImportError) as error:
        exec(statement)
    message = str(error.value)
    assert "does not exist in this version" in message
    assert message.endswith(".") and "\n" not in message


def test_an_unknown_name_is_an_attribute_error():
    import transformer_lens

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        transformer_lens.nonsense


def test_every_name_in_all_is_there():
    import transformer_lens

    for name in transformer_lens.__all__:
        assert hasattr(transformer_lens, name), name


def test_classes_are_not_shadowed_by_their_modules():
    """``transformer_lens.HookedTransformer`` is a class as an attribute, also after its module was imported."""
    import importlib

    import transformer_lens

    for name in ("HookedTransformer", "ActivationCache", "FactoredMatrix", "HookedRootModule", "SVDInterpreter"):
        module = importlib.import_module(f"transformer_lens.{name}")
        assert getattr(transformer_lens, name) is getattr(module, name)


def test_the_version_is_stated_once_more_only():
    import transformer_lens

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert transformer_lens.__version__ == project["version"] == "3.10.0"
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_error_has_its_section():
    from transformer_lens.loading import errors

    sections = {
        line[3:].strip(" `") for line in (ROOT / "docs/errors.md").read_text().splitlines() if line[:3] == "## "
    }
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, (Warning, Exception))
    }
    assert raised <= sections
