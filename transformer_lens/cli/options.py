"""The options that the commands share: the arguments of ``from_pretrained``, defined once."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
import typer

from transformer_lens.cli.wording import Wording
from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.sources.model_names import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

REFUSED = 2


class LoadMode(str, Enum):
    """Values of ``--load-mode``."""

    AUTO = "auto"
    ASSIGN = "assign"
    COPY = "copy"


class IO(str, Enum):
    """Values of ``--io``."""

    AUTO = "auto"
    MAP = "map"
    READ = "read"


FLAGS = (
    "fold_ln",
    "center_writing_weights",
    "center_unembed",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
)


def _option(name: str, kind: Any, words: str, *spellings: str, values: tuple[str, ...] = ()) -> inspect.Parameter:
    spellings = spellings or (f"--{name.replace('_', '-')}",)
    complete = (lambda incomplete: [value for value in values if value.startswith(incomplete)]) if values else None
    # typer before 0.15 does not read `kind | None`.
    annotation = Annotated[  # noqa: UP045
        kind | None, typer.Option(*spellings, help=words, autocompletion=complete)
    ]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


# None: as `from_pretrained` has it.
OPTIONS: tuple[inspect.Parameter, ...] = (
    _option(
        "dtype",
        str,
        "Of the parameters: float32 (default), bfloat16, float16, float64, or auto for the file's.",
        values=("auto", "float32", "bfloat16", "float16", "float64"),
    ),
    _option("load_mode", LoadMode, "assign maps or borrows what is right already, copy gives it memory of its own."),
    _option("io", IO, "Whether files are mapped or read."),
    _option("processing", bool, "Every step below, or none that is not named.", "--processing/--no-processing"),
    _option("fold_ln", bool, "Fold norms into what reads them.", "--fold-ln/--no-fold-ln"),
    _option(
        "center_writing_weights",
        bool,
        "Take the mean out of what writes to the residual stream.",
        "--center-writing-weights/--no-center-writing-weights",
    ),
    _option("center_unembed", bool, "Centre the unembedding.", "--center-unembed/--no-center-unembed"),
    _option("fold_value_biases", bool, "Fold value biases into b_O.", "--fold-value-biases/--no-fold-value-biases"),
    _option(
        "refactor_factored_attn_matrices",
        bool,
        "Rotate the factors of each head's circuits to singular vectors.",
        "--refactor-factored-attn-matrices/--no-refactor-factored-attn-matrices",
    ),
    _option("load_in_4bit", bool, "Pack matrices in 4 bits (nf4), behind processing.", "--load-in-4bit"),
    _option("load_in_8bit", bool, "Pack matrices in 8 bits, behind processing.", "--load-in-8bit"),
    _option("dequantize", bool, "Load packed matrices as numbers.", "--dequantize/--no-dequantize"),
    _option(
        "cache_processed",
        bool,
        "Keep processed weights as a file, and map it next time.",
        "--cache-processed/--no-cache-processed",
    ),
    _option(
        "device",
        str,
        "Where the parameters will be: cpu, cuda, cuda:1, mps, xpu.",
        values=("cpu", "cuda", "mps", "xpu"),
    ),
    _option("n_devices", int, "Devices over which the blocks are spread."),
    _option("first_n_layers", int, "Only the first layers."),
    _option("n_ctx", int, "Longest input in tokens."),
    _option("revision", str, "Branch, tag or commit on the hub."),
    _option("subfolder", str, "Folder of the checkpoint inside the repository."),
    _option("checkpoint_index", int, "Place of a training checkpoint in its run."),
    _option("checkpoint_value", int, "Step of a training checkpoint."),
    _option("adapter", str, "A LoRA adapter that is merged: a folder or a hub id."),
    _option("token", str, "Access token of the hub; better given as HF_TOKEN."),
    _option("cache_dir", Path, "The hub's cache folder."),
    _option("local_files_only", bool, "Ask nothing of the network.", "--local-files-only"),
    _option("trust_remote_code", bool, "Let a tokenizer run its own code.", "--trust-remote-code"),
    _option("check_memory", bool, "Refuse what does not fit.", "--check-memory/--no-check-memory"),
)


def _flags_of(option: inspect.Parameter) -> tuple[str, ...]:
    """Returns the flag of an option, and of a switch also the one that turns it off."""
    (info,) = option.annotation.__metadata__
    # typer holds the first spelling as a default until it reads the annotation.
    spelled = [one for one in (info.default, *info.param_decls) if isinstance(one, str)]
    return tuple("/".join(spelled).split("/"))


in_flags = Wording({option.name: _flags_of(option) for option in OPTIONS})


def _names(incomplete: str) -> list[str]:
    """Returns known names that start so; where there is none the shell completes paths."""
    known = (*OFFICIAL_MODEL_NAMES, *(alias for aliases in MODEL_ALIASES.values() for alias in aliases))
    return sorted({name for name in known if incomplete and name.startswith(incomplete)})


NAME = Annotated[
    str, typer.Argument(help="A folder, a GGUF file, a hub id or an alias.", autocompletion=_names, show_default=False)
]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def takes_load_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the shared options; it is handed those that were given as the dict `arguments`.

    What loading refuses, and what an argument cannot be, ends the command with the message and exit code 2. Messages
    and warnings name arguments by their flags.
    """

    def warn(message: Warning | str, *rest: Any) -> None:
        typer.echo(f"warning: {in_flags(str(message))}", err=True)

    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "arguments"
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        found = {option.name: given.pop(option.name) for option in OPTIONS}
        try:
            _check_device(found["device"])
            with warnings.catch_warnings():
                warnings.showwarning = warn
                command(**given, arguments=_given(found))
        except (LoadingError, ValueError, OSError) as error:
            typer.echo(f"{type(error).__name__}: {in_flags(str(error))}", err=True)
            raise typer.Exit(REFUSED) from None

    parameters = [*own, *OPTIONS]
    del run.__dict__["__wrapped__"]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _check_device(name: str | None) -> None:
    """Raises where a device is spelled as none is; whether it is there is asked by those who load onto it."""
    try:
        torch.device(name or "cpu")
    except RuntimeError:
        raise ValueError(f"--device {name} is no device; it is cpu, cuda, cuda:1 … (a GPU), mps or xpu.") from None


def require_device(name: str | None) -> None:
    """Raises before anything is read for a device that is not there.

    Raises:
        ValueError: It is not there.
    """
    try:
        there = torch.empty(1, device=name or "cpu").device.type != "meta"
    except (AssertionError, RuntimeError):
        there = False
    if not there:
        raise ValueError(
            f"--device {name}: this torch sees no such device; `transformer-lens doctor` says what is here."
        )


def _given(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of ``from_pretrained`` that were given."""
    processing = found.pop("processing")
    out = {name: value.value if isinstance(value, Enum) else value for name, value in found.items()}
    if processing is not None:
        # As a whole it stands for the four that are on by default, and for all that are off.
        named = FLAGS[:4] if processing else FLAGS
        out |= {name: processing for name in named if out[name] is None}
    return {name: value for name, value in out.items() if value is not None}
