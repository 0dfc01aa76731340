"""Who shares a mapping of a file, and who has one alone."""

import threading
from contextvars import copy_context
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from transformer_lens.loading.checkpoint.safetensors import read_header
from transformer_lens.loading.memory import mappings
from transformer_lens.loading.memory.mappings import mappings_shared, to_read


@pytest.fixture
def promises(tmp_path):
    """Promises of twelve tensors of a file."""
    save_file({f"t{number}": torch.randn(64) for number in range(12)}, tmp_path / "a.safetensors")
    return {name: region.promise(name, "map") for name, region in read_header(tmp_path / "a.safetensors").items()}


def same_memory(one, other):
    return one.data_ptr() == other.data_ptr()


def test_readers_of_one_piece_share_a_mapping(promises):
    with mappings_shared():
        first = to_read(promises["t0"])
        assert same_memory(first, to_read(promises["t0"]))
        assert not same_memory(first, to_read(promises["t1"]))


def test_a_parameter_has_a_mapping_of_its_own(promises):
    with mappings_shared():
        read = to_read(promises["t0"])
        parameter = promises["t0"].make()
        assert not same_memory(read, parameter) and not same_memory(promises["t0"].make(), parameter)
        parameter.zero_()
        assert torch.equal(read, to_read(promises["t0"])) and read.any()


def test_nothing_is_shared_where_nobody_says_so(promises):
    assert not same_memory(to_read(promises["t0"]), to_read(promises["t0"]))


def test_what_was_asked_for_last_is_kept_and_no_more(promises):
    with mappings_shared():
        kept = [to_read(promises[f"t{number}"]).data_ptr() for number in range(mappings._KEPT)]
        assert to_read(promises["t0"]).data_ptr() == kept[0]
        # One more than are kept: what was not asked for the longest is mapped anew.
        held = to_read(promises["t1"]), to_read(promises["t0"])
        for number in range(2, mappings._KEPT + 1):
            to_read(promises[f"t{number}"])
        assert same_memory(held[1], to_read(promises["t0"]))
        assert not same_memory(held[0], to_read(promises["t1"]))


def test_threads_in_a_copy_of_the_context_share_too(promises):
    found = []
    with mappings_shared():
        own = to_read(promises["t0"])
        read = partial(copy_context().run, lambda: found.append(to_read(promises["t0"])))
        threads = [
            threading.Thread(target=read),
            threading.Thread(target=lambda: found.append(to_read(promises["t0"]))),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    assert same_memory(own, found[0]) and not same_memory(own, found[1])
