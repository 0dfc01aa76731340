"""Whatever a command shows names arguments by their flags."""

import ast
import re
from pathlib import Path

import pytest

import transformer_lens
from transformer_lens.cli.options import OPTIONS, in_flags

PACKAGE = Path(transformer_lens.__file__).parent
NAMES = [option.name for option in OPTIONS if option.name != "processing"]
SWITCHES = {option.name for option in OPTIONS if option.annotation.__args__[0] == bool | None}
ARGUMENT = re.compile(rf"(?<![\w.-])(?:{'|'.join(NAMES)})(?:=| = )\S")


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_its_flag(name):
    flag = "--" + name.replace("_", "-")
    if name in SWITCHES:
        assert in_flags(f"say {name}=True.") == f"say {flag}."
        assert in_flags(f"say {name}=False.") in (f"say --no{flag[1:]}.", f"say {name}=False.")
        assert in_flags(f"say {name} = True: no") == f"say {flag}: no"
    else:
        for value, written in (("'x y'", "x y"), ("12", "12"), ('"a"', "a"), ("-0.5", "-0.5")):
            assert in_flags(f"say {name}={value}, or") == f"say {flag} {written}, or"
            assert in_flags(f"{name} = {value} is wrong") == f"{flag} {written} is wrong"
        assert in_flags(f"give {name}=.") == f"give {flag}."


@pytest.mark.parametrize(
    ("said", "flags"),
    [
        ("fits: from_pretrained_no_processing, dtype='auto': 1 B", "fits: --no-processing --dtype auto: 1 B"),
        ("from_pretrained_no_processing with dtype='auto' would", "--no-processing --dtype auto would"),
        ("from_pretrained(..., load_in_4bit=True) packs", "--load-in-4bit packs"),
        ("device='cuda', n_devices=2: 1 GiB", "--device cuda --n-devices 2: 1 GiB"),
        ("check_memory=False loads all the same.", "--no-check-memory loads all the same."),
        # What has no flag, and what is no argument, stays.
        ("give hf_model= or tokenizer='x'", "give hf_model= or tokenizer='x'"),
        ("cfg.dtype = 'x', my_dtype='y', /a-device='z'", "cfg.dtype = 'x', my_dtype='y', /a-device='z'"),
        ("dtype is 3, and io", "dtype is 3, and io"),
    ],
)
def test_sentences(said, flags):
    assert in_flags(said) == flags


def messages():
    """Yields every text of the package that could be shown, with something in the place of each value."""
    for path in (*PACKAGE.glob("loading/**/*.py"), *PACKAGE.glob("hooked_transformer/*.py")):
        tree = ast.parse(path.read_text())
        notes = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "'x'" for part in node.values]
                yield path, "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
                yield path, node.value


def test_no_message_of_the_package_keeps_an_argument_that_has_a_flag():
    found = [(path, text) for path, text in messages() if ARGUMENT.search(text)]
    assert len(found) > 20
    left = [f"{path.name}: {text}" for path, text in found if ARGUMENT.search(in_flags(text))]
    assert not left, "\n".join(left)
