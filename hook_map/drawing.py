"""A block as an SVG: the residual stream from top to bottom, its branches beside it, a row for each hook point."""

from __future__ import annotations

from html import escape

from transformer_lens.anatomy import Branch, Hook, Layer, hooks_of_layer

_ROW, _TOP, _STREAM_X, _BRANCH_X, _TEXT_X, _WIDTH = 26, 30, 40, 110, 140, 900
_INK, _QUIET, _ATTENTION, _MLP = "#1a1a1a", "#555555", "#0b5cad", "#9a3412"


def draw(layer: Layer, title: str) -> str:
    """Returns the drawing of a block.

    Args:
        layer: Its record.
        title: What a reader who does not see it is told first.
    """
    rows = list(hooks_of_layer(layer))
    height = _TOP + _ROW * len(rows) + 20
    place = {hook.name: _TOP + _ROW * index + _ROW // 2 for index, hook in enumerate(rows)}
    last = place["hook_resid_post"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape('; '.join(f'{hook.name} [{hook.axes}]: {hook.meaning}' for hook in rows))}</desc>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<path d="M{_STREAM_X} 8 V{last + 22}" stroke="{_INK}" stroke-width="4" fill="none"/>',
    ]
    for branch in layer.branches:
        parts += _branch(branch, layer, rows, place)
    closing = tuple(f"{branch.closes.name}." for branch in layer.branches if branch.closes is not None)
    for hook in rows:
        stands_in_stream = hook.name.startswith(("hook_resid", *closing))
        parts.append(_row(hook, _STREAM_X if stands_in_stream else _BRANCH_X, place[hook.name]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _branch(branch: Branch, layer: Layer, rows: list[Hook], place: dict[str, int]) -> list[str]:
    """Returns the lines of a branch: out of the stream, past its hook points, and back by a sum."""
    inside = [hook.name for hook in rows if _color(hook.name) == _color(f"hook_{branch.name}_out")]
    closing = 0 if branch.closes is None else 2
    begins, ends = place[inside[0]], place[inside[len(inside) - 1 - closing]]
    leaves = place["hook_resid_pre"] + 8 if layer.is_parallel else begins - 13
    lane = 62 if layer.is_parallel and branch.name == "mlp" else _STREAM_X
    color = _color(inside[0])
    joins = ends + 10
    enters = begins - (13 if lane == _STREAM_X else 9)
    out = [
        f'<path d="M{_STREAM_X} {leaves} H{lane} V{enters} H{_BRANCH_X} V{joins} H{_STREAM_X + 9}" '
        f'stroke="{color}" stroke-width="2" fill="none"/>',
        f'<circle cx="{_STREAM_X}" cy="{joins}" r="9" fill="#ffffff" stroke="{_INK}" stroke-width="2"/>',
        f'<text x="{_STREAM_X}" y="{joins + 5}" text-anchor="middle" font-size="16" fill="{_INK}">+</text>',
    ]
    return out


def _row(hook: Hook, x: int, y: int) -> str:
    """Returns the row of a hook point: a dot where it stands, its name, its axes."""
    color = _color(hook.name)
    fill = "#ffffff" if hook.switch else color
    switch = f"  (with {hook.switch})" if hook.switch else ""
    return (
        f'<circle cx="{x}" cy="{y}" r="5" fill="{fill}" stroke="{color}" stroke-width="2"/>'
        f'<text x="{_TEXT_X}" y="{y + 4}" fill="{color}">{escape(hook.name)}</text>'
        f'<text x="{_TEXT_X + 300}" y="{y + 4}" fill="{_QUIET}">[{escape(hook.axes)}]{escape(switch)}</text>'
    )


def _color(name: str) -> str:
    """Returns the colour of what a hook point belongs to: the stream, attention or the MLP."""
    if name.startswith("hook_resid"):
        return _INK
    return _ATTENTION if name.startswith(("attn.", "ln1", "hook_attn", "hook_q_", "hook_k_", "hook_v_")) else _MLP
