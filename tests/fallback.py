"""What a test that asks for "assign" may expect of a torch that cannot assign."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from transformer_lens.loading import LoadModeFallbackWarning
from transformer_lens.loading.loaders import can_assign


@contextmanager
def may_fall_back(load_mode: str) -> Iterator[None]:
    """Expects exactly one warning where "assign" is asked for and this torch cannot; elsewhere none is allowed."""
    if load_mode != "assign" or can_assign():
        yield
        return
    with pytest.warns(LoadModeFallbackWarning, match="done as 'copy'") as caught:
        yield
    assert len(caught) == 1
