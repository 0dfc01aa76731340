"""The tree of errors: each is documented, is what upstream raised in its place, and is raised by some test."""

import re
from pathlib import Path

import pytest

from transformer_lens.loading import errors

ROOT = Path(__file__).resolve().parents[3]
CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__]
RAISED = [cls for cls in CLASSES if cls is not errors.LoadingError]
UPSTREAM = {
    errors.UnknownModelError: ValueError,
    errors.UnsupportedArchitectureError: NotImplementedError,
    errors.UnhandledConfigError: NotImplementedError,
    errors.CorruptCheckpointError: ValueError,
    errors.MissingTensorError: KeyError,
    errors.UnexpectedTensorError: RuntimeError,
    errors.LayoutMismatchError: RuntimeError,
    errors.QuantizedTensorError: ValueError,
    errors.InsufficientMemoryError: MemoryError,
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_class_has_a_section(cls):
    sections = re.findall(r"^## `(\w+)`", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert sections.count(cls.__name__) == 1


@pytest.mark.parametrize("cls", RAISED, ids=lambda cls: cls.__name__)
def test_each_class_is_produced_by_a_test(cls):
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    assert any(cls.__name__ in path.read_text() for path in tests)


@pytest.mark.parametrize(("cls", "upstream"), UPSTREAM.items(), ids=lambda cls: cls.__name__)
def test_old_except_clauses_hold(cls, upstream):
    assert issubclass(cls, errors.LoadingError)
    with pytest.raises(upstream):
        raise cls("words")


@pytest.mark.parametrize("cls", list(UPSTREAM), ids=lambda cls: cls.__name__)
def test_a_message_keeps_its_lines_and_names_its_section(cls):
    assert str(cls("first\n  second")) == f"first\n  second\n  (docs/errors.md, {cls.__name__})"
