"""Copy or assign: the whole truth table."""

import warnings

import pytest
from torch import nn

from transformer_lens.loading.errors import LoadModeFallbackWarning
from transformer_lens.loading.loaders import AssigningLoader, CopyingLoader, can_assign, choose, warn_of_fallback

TABLE = [
    # asked, this torch assigns -> done, warns, word of the reason
    ("auto", True, "assign", False, "auto"),
    ("auto", False, "copy", False, "2.1"),
    ("assign", True, "assign", False, "asked for"),
    ("assign", False, "copy", True, "2.1"),
    ("copy", True, "copy", False, "asked for"),
    ("copy", False, "copy", False, "asked for"),
]


@pytest.mark.parametrize(("asked", "assigns", "mode", "warns", "word"), TABLE)
def test_truth_table(asked, assigns, mode, warns, word):
    choice = choose(asked, assigns)
    assert choice.mode == mode and choice.falls_back == warns and word in choice.reason
    assert type(choice.loader()) is {"assign": AssigningLoader, "copy": CopyingLoader}[mode]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_fallback(choice)
    assert [warning.category for warning in caught] == [LoadModeFallbackWarning] * warns
    assert all("load_mode='assign' is done as 'copy'" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("asked", ["Assign", "", "mmap"])
@pytest.mark.parametrize("assigns", [True, False])
def test_unknown_mode(asked, assigns):
    with pytest.raises(ValueError, match="auto, assign, copy"):
        choose(asked, assigns)


def test_capability_is_read_from_the_signature(monkeypatch):
    def without(self, state_dict, strict=True):
        raise NotImplementedError

    def with_assign(self, state_dict, strict=True, assign=False):
        raise NotImplementedError

    monkeypatch.setattr(nn.Module, "load_state_dict", without)
    assert not can_assign()
    monkeypatch.setattr(nn.Module, "load_state_dict", with_assign)
    assert can_assign()
