"""What a model shows of itself."""

from __future__ import annotations

from collections.abc import Mapping

from transformer_lens import anatomy
from transformer_lens.hook_table import HookPointsView
from transformer_lens.hooked_transformer.parts import ModelParts
from transformer_lens.utilities.tables import as_html_table


class ShowingMixin(ModelParts):
    """Prints hook points, and shows a model in a notebook."""

    def hook_points(self) -> HookPointsView:
        """Returns the hook points, in the order of ``hook_dict``; printed, they are a table."""
        sizes = {name: size for name, size in anatomy.axis_sizes(self.cfg).items() if size and name != "n_ctx"}
        return HookPointsView(self.hook_dict, self._hook_records, sizes)

    def _hook_records(self) -> Mapping[str, anatomy.Hook]:
        return {hook.name: hook for hook in anatomy.hooks_of_model(anatomy.model_of(self.cfg))}

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: a line that unfolds to the parts and their hook points."""
        cfg = self.cfg
        line = (
            f"{type(self).__name__} {cfg.model_name}: {cfg.n_layers} layers, d_model {cfg.d_model}, "
            f"{cfg.n_heads} heads, {str(cfg.dtype).removeprefix('torch.')} on {cfg.device}, "
            f"{len(self.hook_dict)} hook points"
        )
        return as_html_table(line, ("hook point", "shape", "is"), self.hook_points().rows())
