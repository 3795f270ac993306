"""How the documentation is built: ``sphinx-build -W docs docs/_build``."""

from importlib import metadata

project = "hitl_nb"
author = "hitl_nb developers"
project_copyright = "2026, hitl_nb developers"
release = metadata.version("hitl-nb")
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "People check what a model was not sure of.",
    "fixed_sidebar": True,
    "page_width": "1100px",
}
html_extra_path = ["nginx.conf"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
