"""The map of hook points: every hook of every kind that it draws is in its drawing and in its table."""

import re
import xml.etree.ElementTree as ElementTree

from hook_map.kinds import KINDS
from hook_map.page import write_pages
from transformer_lens.anatomy import hooks_of_layer


def test_drawings_and_tables_have_every_hook_point(tmp_path):
    page = write_pages(tmp_path)
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page.read_text(), re.DOTALL | re.MULTILINE))
    for kind in KINDS:
        hooks = list(hooks_of_layer(kind.model.layers[0]))
        assert re.findall(r"^\| `(.*?)` \|", sections[kind.title], re.MULTILINE) == [hook.name for hook in hooks]
        drawing = ElementTree.parse(tmp_path / f"block-{kind.name}.svg").getroot()
        texts = ["".join(node.itertext()) for node in drawing.iter("{http://www.w3.org/2000/svg}text")]
        assert {hook.name for hook in hooks} <= set(texts)
        height = float(drawing.get("height"))
        assert all(0 < float(node.get("y")) < height for node in drawing.iter("{http://www.w3.org/2000/svg}text"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    write_pages(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
