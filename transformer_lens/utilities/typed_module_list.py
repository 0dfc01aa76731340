"""A module list that knows what it holds."""

from collections.abc import Iterator
from typing import Generic, TypeVar, cast, overload

from torch import nn

Member = TypeVar("Member", bound=nn.Module)


class TypedModuleList(nn.ModuleList, Generic[Member]):
    """An ``nn.ModuleList`` whose members a type checker knows: ``blocks: TypedModuleList[TransformerBlock]``."""

    @overload  # type: ignore[override]
    def __getitem__(self, idx: int) -> Member: ...

    @overload
    def __getitem__(self, idx: slice) -> "TypedModuleList[Member]": ...

    def __getitem__(self, idx: int | slice) -> "Member | TypedModuleList[Member]":
        return cast("Member | TypedModuleList[Member]", super().__getitem__(idx))

    def __iter__(self) -> Iterator[Member]:
        return cast("Iterator[Member]", super().__iter__())
