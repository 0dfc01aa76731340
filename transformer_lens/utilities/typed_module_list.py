"""A module list that knows what it holds."""

from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from torch import nn

Member = TypeVar("Member", bound=nn.Module)


class TypedModuleList(nn.ModuleList, Generic[Member]):
    """An ``nn.ModuleList`` whose members a type checker knows: ``blocks: TypedModuleList[TransformerBlock]``."""

    def __getitem__(self, idx: int) -> Member:  # type: ignore[override]
        return cast(Member, super().__getitem__(idx))

    def __iter__(self) -> Iterator[Member]:
        return cast("Iterator[Member]", super().__iter__())
