"""What a call of the model returns, for type checkers: it depends on the arguments."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Literal, overload

    from torch import Tensor
    from typing_extensions import Unpack

    from transformer_lens.ActivationCache import ActivationCache
    from transformer_lens.hooked_transformer.call_options import (
        CacheOptions,
        ForwardOptions,
        HookOptions,
        Input,
        ReturnType,
    )
    from transformer_lens.hooked_transformer.output import Output


class TypedCalls:
    """Signatures of the calls that `ForwardMixin` and `HookedRootModule` implement; empty at run time."""

    if TYPE_CHECKING:

        @overload
        def __call__(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int,
            **options: Unpack[ForwardOptions],
        ) -> Tensor: ...

        @overload
        def __call__(
            self,
            input: Input,
            return_type: Literal["logits", "loss"] = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[ForwardOptions],
        ) -> Tensor: ...

        @overload
        def __call__(
            self,
            input: Input,
            return_type: Literal["both"],
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[ForwardOptions],
        ) -> Output: ...

        @overload
        def __call__(
            self,
            input: Input,
            return_type: None,
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[ForwardOptions],
        ) -> None: ...

        @overload
        def __call__(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int | None = None,
            **options: Unpack[ForwardOptions],
        ) -> Tensor | Output | None: ...

        def __call__(self, *args: Any, **options: Any) -> Any:
            """Runs ``forward``, with hooks."""

        @overload
        def forward(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int,
            **options: Unpack[ForwardOptions],
        ) -> Tensor: ...

        @overload
        def forward(
            self,
            input: Input,
            return_type: Literal["logits", "loss"] = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[ForwardOptions],
        ) -> Tensor: ...

        @overload
        def forward(
            self,
            input: Input,
            return_type: Literal["both"],
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[ForwardOptions],
        ) -> Output: ...

        @overload
        def forward(
            self,
            input: Input,
            return_type: None,
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[ForwardOptions],
        ) -> None: ...

        @overload
        def forward(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int | None = None,
            **options: Unpack[ForwardOptions],
        ) -> Tensor | Output | None: ...

        def forward(self, *args: Any, **options: Any) -> Any:
            """Maps tokens to logits, loss, or the residual stream at some layer."""

        @overload
        def run_with_hooks(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int,
            **options: Unpack[HookOptions],
        ) -> Tensor: ...

        @overload
        def run_with_hooks(
            self,
            input: Input,
            return_type: Literal["logits", "loss"] = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[HookOptions],
        ) -> Tensor: ...

        @overload
        def run_with_hooks(
            self,
            input: Input,
            return_type: Literal["both"],
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[HookOptions],
        ) -> Output: ...

        @overload
        def run_with_hooks(
            self,
            input: Input,
            return_type: None,
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            **options: Unpack[HookOptions],
        ) -> None: ...

        @overload
        def run_with_hooks(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int | None = None,
            **options: Unpack[HookOptions],
        ) -> Tensor | Output | None: ...

        def run_with_hooks(self, *args: Any, **options: Any) -> Any:
            """Runs the model with hooks that are there for this run only."""

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int,
            return_cache_object: Literal[True] = True,
            **options: Unpack[CacheOptions],
        ) -> tuple[Tensor, ActivationCache]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int,
            return_cache_object: Literal[False],
            **options: Unpack[CacheOptions],
        ) -> tuple[Tensor, dict[str, Tensor]]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: Literal["logits", "loss"] = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            return_cache_object: Literal[True] = True,
            **options: Unpack[CacheOptions],
        ) -> tuple[Tensor, ActivationCache]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: Literal["logits", "loss"] = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            return_cache_object: Literal[False],
            **options: Unpack[CacheOptions],
        ) -> tuple[Tensor, dict[str, Tensor]]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: Literal["both"],
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            return_cache_object: Literal[True] = True,
            **options: Unpack[CacheOptions],
        ) -> tuple[Output, ActivationCache]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: Literal["both"],
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            return_cache_object: Literal[False],
            **options: Unpack[CacheOptions],
        ) -> tuple[Output, dict[str, Tensor]]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: None,
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            return_cache_object: Literal[True] = True,
            **options: Unpack[CacheOptions],
        ) -> tuple[None, ActivationCache]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: None,
            loss_per_token: bool = False,
            *,
            stop_at_layer: None = None,
            return_cache_object: Literal[False],
            **options: Unpack[CacheOptions],
        ) -> tuple[None, dict[str, Tensor]]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int | None = None,
            return_cache_object: Literal[True] = True,
            **options: Unpack[CacheOptions],
        ) -> tuple[Tensor | Output | None, ActivationCache]: ...

        @overload
        def run_with_cache(
            self,
            input: Input,
            return_type: ReturnType = "logits",
            loss_per_token: bool = False,
            *,
            stop_at_layer: int | None = None,
            return_cache_object: Literal[False],
            **options: Unpack[CacheOptions],
        ) -> tuple[Tensor | Output | None, dict[str, Tensor]]: ...

        def run_with_cache(self, *args: Any, **options: Any) -> Any:
            """Runs the model and keeps its activations."""
