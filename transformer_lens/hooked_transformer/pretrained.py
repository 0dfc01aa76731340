"""``from_pretrained`` and its relatives."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from typing_extensions import Unpack

from transformer_lens import loading
from transformer_lens.components.parameter import pending_parameter_device
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hooked_transformer.arguments import checked_request, named, noting_what_is_named
from transformer_lens.hooked_transformer.call_options import (
    IO,
    LoadMode,
    LoadOptions,
    OtherArguments,
    PaddingSide,
    PlanOptions,
)
from transformer_lens.loading.memory.ambient import plain_thread

T = TypeVar("T", bound="PretrainedMixin")


class PretrainedMixin:
    """Makes a model of a checkpoint. The work is done by ``transformer_lens.loading``; here is its front door."""

    cfg: HookedTransformerConfig
    tokenizer: Any
    load_report: loading.LoadReport | None = None
    stop_tokens: tuple[int, ...]
    move_model_modules_to_device: Callable[[], None]

    @classmethod
    @noting_what_is_named
    def from_pretrained(
        cls: type[T],
        model_name: str | Path | None = None,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        refactor_factored_attn_matrices: bool = False,
        checkpoint_index: int | None = None,
        checkpoint_value: int | None = None,
        hf_model: Any = None,
        device: str | torch.device | None = None,
        n_devices: int = 1,
        tokenizer: Any = None,
        move_to_device: bool = True,
        fold_value_biases: bool = True,
        default_prepend_bos: bool | None = None,
        default_padding_side: PaddingSide | None = "right",
        dtype: str | torch.dtype = "float32",
        first_n_layers: int | None = None,
        n_ctx: int | None = None,
        *,
        checkpoint_label: int | str | None = None,
        load_mode: LoadMode = "auto",
        io: IO = "auto",
        revision: str | None = None,
        subfolder: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        adapter: str | Path | None = None,
        check_memory: bool = True,
        progress: bool | None = None,
        quantization_config: Any = None,
        load_in_4bit: bool | None = None,
        load_in_8bit: bool | None = None,
        dequantize: bool = False,
        cache_processed: bool | None = None,
        **from_pretrained_kwargs: Unpack[OtherArguments],
    ) -> T:
        """Loads a checkpoint into a new model.

        The five processing flags change weights and keep the function: log-probs stay as they are (logits shift by a
        constant under `center_unembed`). A flag that is not legal for the architecture is left out, and
        ``model.load_report`` says why. No input is changed: not the files, not `hf_model`.

        Args:
            model_name: A folder, a GGUF file, a hub id or an alias; may be None when `hf_model` is given, and then
                only says where the tokenizer is.
            fold_ln: Folds each norm's weight and bias into the linear maps that read it.
            center_writing_weights: Takes the mean over d_model out of what writes to the residual stream.
            center_unembed: Takes the mean over the vocabulary out of the unembedding.
            refactor_factored_attn_matrices: Rotates W_Q, W_K and W_V, W_O to singular vectors of their products.
            checkpoint_index: Place of a training checkpoint in its run (Pythia, Stanford GPT-2).
            checkpoint_value: Step of a training checkpoint.
            checkpoint_label: The same as `checkpoint_value`, in the name of transformer-lens 3.
            hf_model: A live transformers model, borrowed: under ``load_mode="assign"`` its tensors are shared.
            device: Where the parameters will be; None takes cuda, then mps, then cpu.
            n_devices: Number of devices over which the blocks are spread.
            tokenizer: Kept as the object it is; None loads the one beside the weights, if there is one.
            move_to_device: False leaves the parameters on the CPU.
            fold_value_biases: Moves each head's value bias into its layer's output bias.
            default_prepend_bos: Whether a BOS token is put before text by default; None takes the family's custom.
            default_padding_side: "left" or "right"; None takes the tokenizer's.
            dtype: Of the parameters; ``"auto"`` takes the checkpoint's.
            first_n_layers: Loads these layers only; only the shards that hold them are read, or downloaded.
            n_ctx: Longest input in tokens; None takes the checkpoint's.
            load_mode: ``"assign"`` makes parameters of the mapped or borrowed tensors themselves, ``"copy"`` gives
                them memory of their own, ``"auto"`` assigns where this torch can.
            io: ``"map"`` maps files, ``"read"`` reads them into memory (for files that others may rewrite, and where
                mapping is slow), ``"auto"`` looks at the platform and the file system.
            revision: Branch, tag or commit on the hub.
            subfolder: Folder of the checkpoint inside the repository.
            token: Access token of the hub.
            cache_dir: The hub's cache folder.
            local_files_only: Asks nothing of the network.
            trust_remote_code: Lets transformers run a tokenizer's own code. Weights never run code.
            adapter: A LoRA adapter (a folder or a hub id) that is merged into the weights it touches; `model_name` may
                also be an adapter itself, which names its base, and `hf_model` a ``PeftModel``.
            check_memory: Whether the load is planned first (:meth:`plan_load`), and refused with what would fit before
                anything is read where the machine, or its container, cannot hold it.
            progress: Whether a byte progress bar is shown; None: in a terminal, after a second.
            quantization_config: A ``BitsAndBytesConfig``, or its dict: matrices are processed, and then packed, one
                at a time. A checkpoint that is packed already needs no argument.
            load_in_4bit: Packs matrices as nf4, with scales in float32; `quantization_config` says anything else.
            load_in_8bit: Packs matrices in 8 bits, with the defaults of ``BitsAndBytesConfig``.
            dequantize: Loads packed matrices as numbers: every step of processing is legal then.
            cache_processed: Keeps the processed weights as a file, which the next load of the same checkpoint under
                the same arguments maps (``docs/processed_cache.md``); None asks ``TRANSFORMER_LENS_CACHE_PROCESSED``.
            **from_pretrained_kwargs: Arguments of transformers' ``from_pretrained`` that mean something here
                (``torch_dtype``); any other is refused by name.

        Returns:
            A model of this class; its ``load_report`` says what was done.

        Raises:
            LoadingError: Of the kind that ``docs/errors.md`` lists.
        """
        prepared = loading.admit(
            checked_request(
                dict(from_pretrained_kwargs),
                model_name=model_name,
                fold_ln=fold_ln,
                center_writing_weights=center_writing_weights,
                center_unembed=center_unembed,
                refactor_factored_attn_matrices=refactor_factored_attn_matrices,
                checkpoint_index=checkpoint_index,
                checkpoint_value=checkpoint_value,
                checkpoint_label=checkpoint_label,
                hf_model=hf_model,
                device=device,
                n_devices=n_devices,
                move_to_device=move_to_device,
                fold_value_biases=fold_value_biases,
                default_prepend_bos=default_prepend_bos,
                dtype=dtype,
                first_n_layers=first_n_layers,
                n_ctx=n_ctx,
                load_mode=load_mode,
                io=io,
                revision=revision,
                subfolder=subfolder,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                trust_remote_code=trust_remote_code,
                adapter=adapter,
                check_memory=check_memory,
                progress=progress,
                quantization_config=quantization_config,
                load_in_4bit=load_in_4bit,
                load_in_8bit=load_in_8bit,
                dequantize=dequantize,
                cache_processed=cache_processed,
            )
        )
        return cls._of(prepared, tokenizer, default_padding_side)

    @classmethod
    def _of(cls: type[T], prepared: loading.Prepared, tokenizer: Any, default_padding_side: str | None) -> T:
        """Makes the model that a load was prepared for."""
        with plain_thread():
            if tokenizer is None:
                tokenizer = prepared.load_tokenizer()
            stop_tokens = prepared.stop_tokens()
            with pending_parameter_device("meta"):
                model = cls(  # type: ignore[call-arg]
                    prepared.cfg, tokenizer, move_to_device=False, default_padding_side=default_padding_side
                )
            model.stop_tokens = stop_tokens
            model.load_report = prepared.load_into(model)  # type: ignore[arg-type]
            model.cfg.load_in_4bit = any(kind in model.load_report.quantization for kind in ("nf4", "fp4"))
        return model

    @classmethod
    def plan_load(
        cls,
        model_name: str | Path | None = None,
        *positional: Any,
        memory: loading.Memory | None = None,
        **arguments: Unpack[PlanOptions],
    ) -> loading.LoadPlan:
        """Says what a load would take, for every load mode and device, and whether it fits; reads no numbers.

        Config and headers are read, and fetched where they are not here: of a name on the hub config.json, the index
        and, by their first bytes, the headers of safetensors files. A ``.bin`` checkpoint can only be planned when its
        files are here.

        Args:
            model_name: As :meth:`from_pretrained` takes it.
            *positional: As :meth:`from_pretrained` takes them.
            memory: What the machine has that is planned for: a size of main memory, in bytes or as "16GiB", or sizes by
                device, ``{"cpu": "64GiB", "cuda": "24GiB"}``; None asks this machine.
            **arguments: As :meth:`from_pretrained` takes them, with the same defaults. What changes no memory
                (``tokenizer``, ``progress``, ``check_memory``) changes nothing here.

        Returns:
            The plan; ``print(plan)`` shows it, ``plan.as_dict()`` and ``plan.to_json()`` are for programs.

        Raises:
            LoadingError: What the load itself would raise before it reads a number.
        """
        return loading.plan_load(request_of(model_name, *positional, **arguments), memory)

    @classmethod
    def from_pretrained_no_processing(
        cls: type[T],
        model_name: str | Path | None = None,
        fold_ln: bool = False,
        center_writing_weights: bool = False,
        center_unembed: bool = False,
        refactor_factored_attn_matrices: bool = False,
        fold_value_biases: bool = False,
        dtype: str | torch.dtype = torch.float32,
        default_prepend_bos: bool | None = None,
        default_padding_side: PaddingSide | None = "right",
        **from_pretrained_kwargs: Unpack[LoadOptions],
    ) -> T:
        """Loads a checkpoint as it is: ``from_pretrained`` with every step of processing off unless named.

        With ``dtype="auto"`` nothing is copied: the parameters are the mapped file.
        """
        return cls.from_pretrained(
            model_name,
            fold_ln=fold_ln,
            center_writing_weights=center_writing_weights,
            center_unembed=center_unembed,
            refactor_factored_attn_matrices=refactor_factored_attn_matrices,
            fold_value_biases=fold_value_biases,
            dtype=dtype,
            default_prepend_bos=default_prepend_bos,
            default_padding_side=default_padding_side,
            **from_pretrained_kwargs,
        )

    @classmethod
    def from_state_dict(
        cls: type[T],
        state_dict: loading.StateDict,
        cfg: HookedTransformerConfig | dict[str, Any] | None = None,
        *,
        fold_ln: bool = False,
        center_writing_weights: bool = False,
        center_unembed: bool = False,
        refactor_factored_attn_matrices: bool = False,
        fold_value_biases: bool = False,
        tokenizer: Any = None,
        default_padding_side: PaddingSide | None = "right",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        load_mode: LoadMode = "auto",
        io: IO = "auto",
        check_memory: bool = True,
        progress: bool | None = None,
    ) -> T:
        """Loads weights of one's own into a new model: in our names, or in nanoGPT's.

        Where this torch can assign there is no second copy: the parameters are the file's mapped pages, or the tensors
        of the dict themselves. Every name in the state dict is used, or dropped by name with a reason; every parameter
        of the model is there, or it is an error.

        Args:
            state_dict: What ``model.state_dict()`` gave; or a nanoGPT state dict; or a dict that holds one of them
                under "model", "state_dict" or "model_state_dict"; or the path of a file (safetensors, or a zip of
                ``torch.save``: .pt, .pth, .bin, .ckpt) or of a folder (sharded or not) with one of them. Never written
                to, and no code of a file is run.
            cfg: What the model is, as a config or a dict of its fields; left as it is. None takes the ``model_args``
                that a nanoGPT checkpoint brings. A config of normalization type "LNPre" with weights that have norms
                needs `fold_ln`.
            fold_ln: As in :meth:`from_pretrained`.
            center_writing_weights: As in :meth:`from_pretrained`.
            center_unembed: As in :meth:`from_pretrained`.
            refactor_factored_attn_matrices: As in :meth:`from_pretrained`.
            fold_value_biases: As in :meth:`from_pretrained`.
            tokenizer: Kept as the object it is; None loads ``cfg.tokenizer_name``, if that is set.
            default_padding_side: "left" or "right"; None takes the tokenizer's.
            device: Where the parameters will be; None takes ``cfg.device``.
            dtype: Of the parameters; None takes ``cfg.dtype``, "auto" the state dict's.
            load_mode: ``"assign"`` shares what needs no change, ``"copy"`` shares nothing, ``"auto"`` assigns where
                this torch can.
            io: ``"map"`` or ``"read"`` files; ``"auto"`` looks at the platform and the file system.
            check_memory: Whether a load that the machine cannot hold is refused before anything is read.
            progress: Whether a byte progress bar is shown; None: in a terminal, after a second.

        Returns:
            A model of this class; its ``load_report`` says what was done.

        Raises:
            LoadingError: Of the kind that ``docs/errors.md`` lists.
            ValueError: There is no config, or it leaves open what nothing else says.
        """
        config = None if cfg is None else HookedTransformerConfig.unwrap(cfg)
        if config is not None and tokenizer is not None:
            # That of the config is not looked for.
            config = copy.copy(config)
            config.tokenizer_name = None
        if dtype is None:
            dtype = torch.float32 if config is None else config.dtype
        prepared = loading.prepare_state_dict(
            state_dict,
            config,
            loading.Request(
                model_name="" if isinstance(state_dict, Mapping) else str(state_dict),
                flags=loading.Flags(
                    fold_ln=fold_ln,
                    center_writing_weights=center_writing_weights,
                    center_unembed=center_unembed,
                    fold_value_biases=fold_value_biases,
                    refactor_factored_attn_matrices=refactor_factored_attn_matrices,
                ),
                device=device,
                dtype=loading.requested_dtype(dtype),
                load_mode=load_mode,
                io=io,
                trust_remote_code=config is not None and config.trust_remote_code,
                check_memory=check_memory,
                progress=progress,
            ),
        )
        return cls._of(prepared, tokenizer, default_padding_side)


def request_of(*positional: Any, **arguments: Any) -> loading.Request:
    """Returns a call of ``from_pretrained`` as a request."""
    given = inspect.signature(PretrainedMixin.from_pretrained).bind(*positional, **arguments)
    token = named.set(frozenset(given.arguments))
    given.apply_defaults()
    found = dict(given.arguments)
    for name in ("tokenizer", "default_padding_side"):
        del found[name]
    try:
        return checked_request(dict(found.pop("from_pretrained_kwargs")), **found)
    finally:
        named.reset(token)
