"""A user's script type-checks under mypy and pyright: what is right passes, what is wrong is refused, by line."""

import inspect
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import transformer_lens
from transformer_lens import HookedRootModule, HookedTransformer
from transformer_lens.hooked_transformer.call_options import (
    CacheOptions,
    ForwardOptions,
    HookOptions,
    LoadOptions,
    OtherArguments,
    PlanOptions,
)

SCRIPT = Path(__file__).with_name("script.py")
PACKAGE = Path(transformer_lens.__file__).parent
WRONG = {number for number, line in enumerate(SCRIPT.read_text().splitlines(), 1) if line.endswith("# wrong")}


def require(name: str) -> None:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")


def in_sources() -> bool:
    return "site-packages" not in PACKAGE.parts


def compare(found: dict[int, list[str]]) -> None:
    said = "\n".join(f"{number}: {text}" for number, texts in sorted(found.items()) for text in texts)
    assert set(found) == WRONG, said


def test_mypy(request):
    require("mypy")
    environment = {**os.environ, **({"MYPYPATH": str(PACKAGE.parent)} if in_sources() else {})}
    options = [
        "--strict",
        "--follow-imports=silent",
        "--config-file=",
        f"--cache-dir={request.config.cache.mkdir('mypy')}",
        "--no-error-summary",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(SCRIPT)], capture_output=True, text=True, env=environment
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[int, list[str]] = {}
    for number, text in re.findall(r"script\.py:(\d+): error: (.*)", done.stdout):
        found.setdefault(int(number), []).append(text)
    compare(found)


def test_pyright(tmp_path):
    require("basedpyright")
    settings = {
        "include": [str(SCRIPT)],
        "typeCheckingMode": "strict",
        "extraPaths": [str(PACKAGE.parent)] if in_sources() else [],
        # Of what a script says on purpose, and of torch, whose own functions are typed in part.
        "reportUnusedExpression": "none",
        "reportUnknownMemberType": "none",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "-p", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"],
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[int, list[str]] = {}
    for one in json.loads(done.stdout)["generalDiagnostics"]:
        if one["severity"] == "error":
            found.setdefault(one["range"]["start"]["line"] + 1, []).append(one["message"])
    compare(found)


NAMED_BY_NO_PROCESSING = set(PlanOptions.__annotations__) - set(LoadOptions.__annotations__)
TOLD = [
    (PlanOptions, HookedTransformer.from_pretrained, {"model_name"}),
    (LoadOptions, HookedTransformer.from_pretrained, {"model_name", *NAMED_BY_NO_PROCESSING}),
    (ForwardOptions, HookedTransformer.forward, {"self", "input", "return_type", "loss_per_token", "stop_at_layer"}),
    (HookOptions, HookedRootModule.run_with_hooks, {"self", "model_args"}),
    (CacheOptions, HookedRootModule.run_with_cache, {"self", "model_args"}),
]


@pytest.mark.parametrize(("options", "function", "named"), TOLD, ids=[one[0].__name__ for one in TOLD])
def test_what_checkers_are_told_is_what_the_functions_take(options, function, named):
    handed_on = {"from_pretrained_kwargs", "model_kwargs"}
    told = set(options.__annotations__)
    told -= set(OtherArguments.__annotations__) if options in (LoadOptions, PlanOptions) else set()
    told -= set(ForwardOptions.__annotations__) if options in (HookOptions, CacheOptions) else set()
    assert told == set(inspect.signature(function).parameters) - named - handed_on


def test_what_no_processing_takes_itself_is_not_handed_on():
    own = set(inspect.signature(HookedTransformer.from_pretrained_no_processing).parameters)
    assert not own & set(LoadOptions.__annotations__)
