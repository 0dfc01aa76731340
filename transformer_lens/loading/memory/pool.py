"""Several threads that keep promises, in the order of the file, with a bound on what they make on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial

import torch
from torch import Tensor

from transformer_lens.loading.memory.arithmetic import on_the_way
from transformer_lens.loading.memory.mappings import mappings_shared
from transformer_lens.loading.memory.order import in_file_order, place_of, spans_of
from transformer_lens.loading.memory.read_ahead import ReadAhead
from transformer_lens.loading.memory.staging import rings
from transformer_lens.loading.memory.threads import compute_with
from transformer_lens.loading.weights import Held, LazyTensor

# What threads may make on the way together, where the neediest promise takes less.
ROOM = 64 << 20

# Below this a promise takes less time than two threads lose to each other.
SMALL = 256 << 10

Keep = Callable[[LazyTensor], Tensor]
Advance = Callable[[int], None]


def keep_all(
    weights: Mapping[str, LazyTensor], keep: Keep, advance: Advance, threads: int = 1, copies: bool = False
) -> dict[str, Tensor]:
    """Keeps every promise and returns the results, in the order of the weights.

    Those that neither read nor make much come first, and the caller's thread keeps them alone; the others follow in the
    order of the file.

    The caller's thread is one of the threads, and all others have ended when this returns or raises: no pool and no
    lock is left for a forked process to inherit. A promise is kept by one thread alone, so numbers do not depend on how
    many there are.

    Args:
        weights: The promises.
        keep: Keeps one; called by several threads at once.
        advance: Told the bytes of each tensor when it is there, by one thread at a time.
        threads: How many work at most, the caller's included. One does where a result lies on a GPU.
        copies: Whether `keep` also reads what is mapped.

    Raises:
        BaseException: What the first promise in order that failed has raised, or what interrupted the caller. None is
            begun afterwards, and the results so far are let go.
    """
    ordered = in_file_order(weights)
    small = {name for name in ordered if _is_small(weights[name])}
    names = sorted(ordered, key=lambda name: name not in small)
    made = [name for name in names if copies or weights[name].held is Held.FRESH]
    on_cpu = all(promise.device.type == "cpu" for promise in weights.values())
    ahead = ReadAhead(span for name in made for span in spans_of(weights[name]))
    needs = [on_the_way(weights[name], "copy" if copies else "assign") for name in names]
    line = _Line(weights, names, needs, keep, advance, ahead)
    # To map takes no time worth sharing.
    helpers = min(threads, len(set(made) - small)) - 1 if on_cpu else 0
    inference = torch.is_inference_mode_enabled()
    started: list[threading.Thread] = []
    with ahead, rings(), mappings_shared():
        try:
            line.work(len(small))
            for number in range(helpers):
                work = partial(copy_context().run, line.work_as_helper, inference)
                helper = threading.Thread(target=work, name=f"load-{number + 1}")
                helper.start()
                started.append(helper)
            line.work()
        finally:
            line.stop()
            for helper in started:
                helper.join()
    return line.results()


def _is_small(promise: LazyTensor) -> bool:
    return max(promise.nbytes, place_of(promise).nbytes) < SMALL


class _Line:
    """Promises that threads take one after the other.

    What threads make on the way counts as long as they hold it; the next promise in order is only begun when all of
    it is no more than there is room for, which is what the neediest promise takes alone or a little more.
    """

    def __init__(
        self,
        weights: Mapping[str, LazyTensor],
        names: list[str],
        needs: list[int],
        keep: Keep,
        advance: Advance,
        ahead: ReadAhead,
    ) -> None:
        self._weights, self._names, self._keep, self._advance, self._ahead = weights, names, keep, advance, ahead
        self._needs = needs
        self._most = max([ROOM, *needs])
        self._under_way = 0
        self._next = 0
        self._results: dict[str, Tensor] = {}
        self._errors: dict[int, BaseException] = {}
        self._stopped = False
        self._changed = threading.Condition()

    def work_as_helper(self, inference: bool) -> None:
        """Keeps promises as the caller's thread would: torch's modes and its number of threads belong to a thread."""
        compute_with(1)
        with torch.inference_mode(inference):
            self.work()

    def work(self, end: int | None = None) -> None:
        """Keeps promises until none is left or one has failed; what one raises is kept for the end.

        Args:
            end: Number of the promise to stop before.
        """
        end = len(self._names) if end is None else end
        while (number := self._take(end)) is not None:
            name = self._names[number]
            promise = self._weights[name]
            try:
                if not _is_small(promise):
                    self._ahead.reach(place_of(promise))
                tensor = self._keep(promise)
                with self._changed:
                    self._results[name] = tensor
                    self._under_way -= self._needs[number]
                    self._changed.notify_all()
                    self._advance(promise.nbytes)
            except BaseException as error:
                self._errors[number] = error
                self.stop()
                return

    def _take(self, end: int) -> int | None:
        """Returns the number of the next promise once there is room for it, or None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._next >= end or self._has_room())
            if self._stopped or self._next >= end:
                return None
            self._under_way += self._needs[self._next]
            self._next += 1
            return self._next - 1

    def _has_room(self) -> bool:
        return self._under_way + self._needs[self._next] <= self._most

    def stop(self) -> None:
        """Lets no further promise begin."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def results(self) -> dict[str, Tensor]:
        """Returns the results, or raises what the first promise that failed has raised."""
        if self._errors:
            self._results.clear()
            # An interrupt is no fault of a promise, and comes first.
            first = min(self._errors, key=lambda number: (isinstance(self._errors[number], Exception), number))
            error = self._errors[first]
            self._errors.clear()
            raise error
        return {name: self._results[name] for name in self._weights}
