"""Which steps of processing are asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Flags:
    """The five steps, as the arguments of ``from_pretrained`` name them.

    Attributes:
        explicit: Those that the caller has named: what is illegal for packed weights is refused there, and left out
            where a default asks for it.
    """

    fold_ln: bool = True
    center_writing_weights: bool = True
    center_unembed: bool = True
    fold_value_biases: bool = True
    refactor_factored_attn_matrices: bool = False
    explicit: frozenset[str] = frozenset()

    @classmethod
    def none(cls) -> Flags:
        """Returns flags that ask for nothing."""
        return cls(False, False, False, False, False)

    def only_explicit(self) -> Flags:
        """Returns flags that ask for what the caller has named, and for nothing else."""
        steps = [field.name for field in fields(self) if field.name != "explicit"]
        return Flags(**{name: name in self.explicit and getattr(self, name) for name in steps}, explicit=self.explicit)
