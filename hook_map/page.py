"""The page of the map: drawings, equations and tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hook_map.drawing import draw
from hook_map.kinds import INSIDE_ATTENTION, INSIDE_MLP, KINDS, Kind
from transformer_lens.anatomy import Hook, hooks_of_layer, hooks_of_model

_INTRODUCTION = """# Map of hook points

A name is a path: `blocks.3.attn.hook_z`. In a cache a short form does as well: `cache["z", 3]`, and
`cache["scale", 3, "ln1"]` for `blocks.3.ln1.hook_scale`. `print(model.hook_points())` prints the table of the model at
hand.

The drawings and tables on this page are made from the records that the model's own blocks are built of; a test compares
them with what passes through the hook points of a model of every kind. The residual stream runs from top to bottom; a
filled dot is always there, an open one needs the switch that is named (`model.set_use_attn_result(True)`).
"""


def write_pages(folder: Path) -> Path:
    """Writes the page and its drawings into a folder, and returns the page; what has not changed is not touched."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        _write(folder / f"block-{kind.name}.svg", draw(kind.model.layers[0], f"Hook points: {kind.title}"))
    page = folder / "hook_map.md"
    _write(page, _page())
    return page


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _page() -> str:
    around = [hook for hook in hooks_of_model(KINDS[0].model) if not hook.name.startswith("blocks.")]
    sections = [
        _INTRODUCTION,
        "## Around the blocks\n\nThe stream begins as `hook_embed + hook_pos_embed` (or `hook_embed` alone).\n",
        _table(around),
        "## What adds up to what\n\nInside every block:\n",
        _listed((*INSIDE_ATTENTION, *INSIDE_MLP)),
        "`cache.decompose_resid`, `cache.accumulated_resid` and `cache.stack_head_results` do these sums.\n",
        *(_section(kind) for kind in KINDS),
    ]
    return "\n".join(sections)


def _section(kind: Kind) -> str:
    layer = kind.model.layers[0]
    return "\n".join(
        [
            f"## {kind.title}\n",
            f"{kind.said}\n",
            _listed(kind.adds_up),
            ":::{container} drawing",
            f"![The stream and its hook points in a block: {kind.title.lower()}; the table below says the same.]"
            f"(block-{kind.name}.svg)",
            ":::\n",
            _table(hooks_of_layer(layer)),
        ]
    )


def _listed(lines: Iterable[str]) -> str:
    return "".join(f"- `{line}`\n" for line in lines)


def _table(hooks: Iterable[Hook]) -> str:
    rows = [
        f"| `{hook.name}` | `{hook.axes}` | {hook.meaning}{f' (with `{hook.switch}`)' if hook.switch else ''} |"
        for hook in hooks
    ]
    return "\n".join(["| hook point | shape | is |", "|---|---|---|", *rows]) + "\n"
