"""How sphinx makes the pages: `make docs`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import transformer_lens  # noqa: E402
from hook_map.page import write_pages  # noqa: E402

project = "transformer-lens"
author = "the authors of this project"
project_copyright = author
version = release = transformer_lens.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["colon_fence"]

default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# The groups of fields of HookedTransformerConfig.
napoleon_custom_sections = [
    (name, "params_style")
    for name in ("Shape", "Blocks", "MLP", "Attention", "Positions", "Output", "Which activations are computed",
                 "Numerics and placement", "Initialization of a model that is not loaded", "Origin and tokens")
]  # fmt: skip
# A class is found under the package and under its module; both are one object.
suppress_warnings = ["ref.python", "autodoc.mocked_object"]
nitpicky = False

html_theme = "furo"
html_title = f"transformer-lens {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
mermaid_version = "11.4.1"

# What has no page of its own yet is drawn and written from the records, each time.
write_pages(HERE / "generated")
