"""Every public name of transformer-lens 2.16.1 and 3.9.0 is at its path, with a signature that takes what theirs takes.

``upstream.json`` holds the names and the names of parameters. What is left out is in
``transformer_lens.utilities.left_out``, with the reason; where parameters differ, it is here.
"""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from transformer_lens.utilities import left_out

HERE = Path(__file__).parent
UPSTREAM = json.loads((HERE / "upstream.json").read_text())
DOCUMENT = HERE.parents[2] / "docs/differences.md"
OTHER_PARAMETERS = {
    "HookedTransformer.HookedTransformer.from_pretrained": "positions are 2.16.1's",
    "config.hooked_transformer_config.HookedTransformerConfig": "positions are 2.16.1's",
    "config.transformer_lens_config.TransformerLensConfig": "positions are 2.16.1's",
}


def owner_of(path: str) -> Any:
    """Returns a module or a class by its path inside the package."""
    try:
        return importlib.import_module(f"transformer_lens.{path}" if path else "transformer_lens")
    except ImportError:
        above, _, name = path.rpartition(".")
        return getattr(owner_of(above), name)


def has(owner: Any, name: str) -> bool:
    if isinstance(owner, type):
        return any(name in vars(base) or name in vars(base).get("__annotations__", {}) for base in owner.__mro__)
    try:
        getattr(owner, name)
    except AttributeError:
        return False
    except ImportError as error:
        assert "does not exist in this version" in str(error)
        return False
    return True


def listed_names():
    for path, names in UPSTREAM["names"].items():
        yield from ((path, name) for name in names.split())


def missing() -> set[str]:
    found = set()
    for path, name in listed_names():
        if left_out.why_left_out(path) is not None or not has(owner_of(path), name):
            found.add(f"{path}.{name}".strip("."))
    return found


def test_every_name_is_here_or_left_out_with_a_reason():
    absent = missing()
    assert sorted(path for path in absent if left_out.why_left_out(path) is None) == []
    listed = {f"{path}.{name}".strip(".") for path, name in listed_names()}
    assert sorted((set(left_out.LEFT_OUT) & listed) - absent) == []


def test_every_module_is_here_or_left_out_with_a_reason():
    absent = []
    for module in UPSTREAM["modules"].split():
        try:
            importlib.import_module(f"transformer_lens.{module}")
        except ImportError:
            absent.append(module)
    assert [module for module in absent if left_out.why_left_out(module) is None] == []


def positions(parameters: str) -> list[str]:
    before_star = parameters.split(" *")[0].split() if not parameters.startswith("*") else []
    return [name.strip("=") for name in before_star]


def why_narrower(theirs: str, ours: inspect.Signature) -> str | None:
    """Says what a signature of theirs takes that ours does not."""
    own = {name: one for name, one in ours.parameters.items() if name not in ("self", "cls")}
    kinds = {one.kind for one in own.values()}
    any_name, any_place = inspect.Parameter.VAR_KEYWORD in kinds, inspect.Parameter.VAR_POSITIONAL in kinds
    for word in theirs.split():
        name = word.strip("=*")
        if word.startswith("**"):
            if not any_name:
                return "takes no other names"
        elif word == "*":
            continue
        elif word.startswith("*"):
            if not any_place:
                return "takes no other arguments"
        elif name not in own:
            if not any_name:
                return f"lacks {name}"
        elif word.endswith("=") and own[name].default is inspect.Parameter.empty:
            return f"needs {name}"
    by_place = [
        name
        for name, one in own.items()
        if one.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    if not any_place and by_place[: len(positions(theirs))] != positions(theirs):
        return f"has places {by_place}, theirs are {positions(theirs)}"
    known = {word.strip("=*") for word in theirs.split()}
    needed = [
        name
        for name, one in own.items()
        if name not in known
        and one.default is inspect.Parameter.empty
        and one.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    return f"needs {needed}" if needed else None


def test_every_signature_takes_what_upstreams_takes():
    narrower = {}
    for path, parameters in UPSTREAM["signatures"].items():
        if left_out.why_left_out(path) is not None:
            continue
        above, _, name = path.rpartition(".")
        ours = inspect.signature(getattr(owner_of(above), name))
        for theirs in [parameters] if isinstance(parameters, str) else parameters.values():
            why = why_narrower(theirs, ours)
            if why is not None:
                narrower[path] = why
    assert {path: why for path, why in narrower.items() if path not in OTHER_PARAMETERS} == {}
    assert set(OTHER_PARAMETERS) <= set(narrower)


def test_the_page_of_differences_has_the_table():
    text = DOCUMENT.read_text()
    assert left_out.table() in text, "run python -m transformer_lens.utilities.left_out and paste its table"


@pytest.mark.parametrize("path", ["tools", "lit", "benchmarks", "HookedEncoder", "model_bridge"])
def test_a_module_that_is_left_out_says_so(path):
    with pytest.raises(ImportError, match=f"transformer_lens.{path} does not exist in this version: .*"):
        importlib.import_module(f"transformer_lens.{path}")


@pytest.mark.parametrize("path", ["utilities.hf_utils.enable_hf_retry", "loading_from_pretrained.het_safe_view"])
def test_a_name_that_is_left_out_says_so(path):
    module, _, name = path.rpartition(".")
    with pytest.raises(ImportError, match=f"{name} does not exist in this version"):
        exec(f"from transformer_lens.{module} import {name}")


def test_the_rule_finds_what_is_narrower():
    def ours(a, b, *, c=1): ...

    signature = inspect.signature(ours)
    assert why_narrower("a b", signature) is None and why_narrower("a b * c=", signature) is None
    assert why_narrower("a", signature) == "needs ['b']"
    assert why_narrower("a= b", signature) == "needs a"
    assert "places" in str(why_narrower("b a", signature))
    assert why_narrower("a b d=", signature) == "lacks d"
    assert why_narrower("a b **d", signature) == "takes no other names"
