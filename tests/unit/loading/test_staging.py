"""The ring between main memory and a device, with a device that copies as late as it may."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.loading.laid_out import laid_out, order_in_memory
from transformer_lens.loading.memory.staging import Channel, Ring, moved, rings

CPU = torch.device("cpu")


class LateChannel(Channel):
    """Copies when it is waited for and not before: a buffer that is filled too early sends the wrong numbers."""

    def __init__(self):
        self.taken, self.waiting, self.sent = 0, [], 0

    def pinned(self, nbytes):
        self.taken += nbytes
        return torch.full((nbytes,), 99, dtype=torch.uint8)

    def send(self, source, target):
        self.waiting.append((source, target))
        self.sent += 1
        return self.sent

    def wait(self, mark):
        while self.sent - len(self.waiting) < mark:
            source, target = self.waiting.pop(0)
            target.copy_(source)

    def finish(self):
        self.wait(self.sent)


@given(
    st.lists(st.integers(1, 7), min_size=0, max_size=3),
    st.randoms(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
    st.integers(1, 3),
    st.sampled_from([8, 16, 40, 1000]),
)
def test_every_number_arrives_in_the_same_order_of_axes(shape, random, dtype, slots, nbytes):
    order = list(range(len(shape)))
    random.shuffle(order)
    source = laid_out((torch.randn(shape) * 9).to(dtype), order)
    before = source.clone()
    channel = LateChannel()
    ring = Ring(channel, slots, nbytes)
    for _ in range(2):
        arrived = ring.to_device(source, CPU)
        assert arrived.dtype == dtype and torch.equal(arrived, source) and torch.equal(source, before)
        assert order_in_memory(arrived) == order_in_memory(source)
        assert arrived.untyped_storage().nbytes() == source.numel() * source.element_size()
    assert channel.taken == slots * nbytes
    ring.drain()
    assert not channel.waiting


def test_a_part_of_a_matrix_is_sent_without_the_rest():
    matrix = torch.randn(12, 30)
    channel = LateChannel()
    arrived = Ring(channel, 2, 100).to_device(matrix[:, 5:15], CPU)
    assert torch.equal(arrived, matrix[:, 5:15]) and arrived.is_contiguous()
    assert channel.sent == 6  # two rows of 40 bytes a buffer


def test_buffers_are_filled_while_others_are_under_way():
    channel = LateChannel()
    most = []
    send = channel.send
    channel.send = lambda source, target: (send(source, target), most.append(len(channel.waiting)))[0]
    Ring(channel, 3, 40).to_device(torch.randn(50, 10), CPU)
    assert max(most) == 3


def test_nothing_to_send():
    arrived = Ring(LateChannel(), 2, 8).to_device(torch.zeros(0, 4), CPU)
    assert arrived.shape == (0, 4)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_other_devices_need_no_ring(device):
    source = torch.randn(3)
    with rings():
        assert moved(source, torch.device(device)) is source
