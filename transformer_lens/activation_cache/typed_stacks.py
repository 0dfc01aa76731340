"""What the methods that stack components return, for type checkers: with labels, or without."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Literal, overload

    from torch import Tensor
    from typing_extensions import TypedDict, Unpack

    from transformer_lens.utilities.slice import Slice, SliceInput

    Stack = Tensor
    Labelled = tuple[Tensor, list[str]]
    Positions = Slice | SliceInput

    class _Normed(TypedDict, total=False):
        apply_ln: bool
        pos_slice: Positions

    class _Residual(_Normed, total=False):
        mlp_input: bool

    class _Full(_Residual, total=False):
        expand_neurons: bool
        project_output_onto: Any

    class _Heads(_Normed, total=False):
        incl_remainder: bool

    class _Decomposed(_Residual, total=False):
        mode: Literal["all", "mlp", "attn"]
        incl_embeds: bool

    class _Neurons(_Heads, total=False):
        neuron_slice: Positions
        project_output_onto: Any


class TypedStacks:
    """Signatures of the methods that the mixins of `ActivationCache` implement; empty at run time."""

    if TYPE_CHECKING:

        @overload
        def accumulated_resid(
            self,
            layer: int | None = None,
            incl_mid: bool = False,
            *,
            return_labels: Literal[False] = False,
            **options: Unpack[_Residual],
        ) -> Stack: ...

        @overload
        def accumulated_resid(
            self,
            layer: int | None = None,
            incl_mid: bool = False,
            *,
            return_labels: Literal[True],
            **options: Unpack[_Residual],
        ) -> Labelled: ...

        @overload
        def accumulated_resid(
            self, layer: int | None = None, incl_mid: bool = False, *, return_labels: bool, **options: Unpack[_Residual]
        ) -> Stack | Labelled: ...

        def accumulated_resid(self, *args: Any, **options: Any) -> Any:
            """Stacks the residual stream before each layer, up to one."""

        @overload
        def decompose_resid(
            self, layer: int | None = None, *, return_labels: Literal[False] = False, **options: Unpack[_Decomposed]
        ) -> Stack: ...

        @overload
        def decompose_resid(
            self, layer: int | None = None, *, return_labels: Literal[True], **options: Unpack[_Decomposed]
        ) -> Labelled: ...

        @overload
        def decompose_resid(
            self, layer: int | None = None, *, return_labels: bool, **options: Unpack[_Decomposed]
        ) -> Stack | Labelled: ...

        def decompose_resid(self, *args: Any, **options: Any) -> Any:
            """Stacks what embeddings, attention and MLPs wrote to the residual stream."""

        @overload
        def get_full_resid_decomposition(
            self, layer: int | None = None, *, return_labels: Literal[False] = False, **options: Unpack[_Full]
        ) -> Stack: ...

        @overload
        def get_full_resid_decomposition(
            self, layer: int | None = None, *, return_labels: Literal[True], **options: Unpack[_Full]
        ) -> Labelled: ...

        @overload
        def get_full_resid_decomposition(
            self, layer: int | None = None, *, return_labels: bool, **options: Unpack[_Full]
        ) -> Stack | Labelled: ...

        def get_full_resid_decomposition(self, *args: Any, **options: Any) -> Any:
            """Stacks what every head and neuron wrote to the residual stream."""

        @overload
        def stack_head_results(
            self, layer: int = -1, *, return_labels: Literal[False] = False, **options: Unpack[_Heads]
        ) -> Stack: ...

        @overload
        def stack_head_results(
            self, layer: int = -1, *, return_labels: Literal[True], **options: Unpack[_Heads]
        ) -> Labelled: ...

        @overload
        def stack_head_results(
            self, layer: int = -1, *, return_labels: bool, **options: Unpack[_Heads]
        ) -> Stack | Labelled: ...

        def stack_head_results(self, *args: Any, **options: Any) -> Any:
            """Stacks what each head wrote to the residual stream."""

        @overload
        def stack_neuron_results(
            self, layer: int, *, return_labels: Literal[False] = False, **options: Unpack[_Neurons]
        ) -> Stack: ...

        @overload
        def stack_neuron_results(
            self, layer: int, *, return_labels: Literal[True], **options: Unpack[_Neurons]
        ) -> Labelled: ...

        @overload
        def stack_neuron_results(
            self, layer: int, *, return_labels: bool, **options: Unpack[_Neurons]
        ) -> Stack | Labelled: ...

        def stack_neuron_results(self, *args: Any, **options: Any) -> Any:
            """Stacks what each neuron wrote to the residual stream."""
