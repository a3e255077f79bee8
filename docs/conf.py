"""How the documentation is built."""

import re

project = "jneuro"
author = "The jneuro authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = [("Other Args", "params_style")]
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # as they are written, which also keeps the types beside them short
python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "jneuro"
exclude_patterns = ["_build"]


def _from_markdown(app, what, name, obj, options, lines):
    """Docstrings are Markdown, autodoc reads reStructuredText: translate formulas and code."""
    text = "\n".join(lines)
    text = re.sub(
        r"^( *)```(\w+)\n(.+?)\n *```$",
        lambda m: f"{m[1]}.. code-block:: {m[2]}\n\n" + re.sub("^(?=.)", "   ", m[3], flags=re.M) + "\n",
        text,
        flags=re.S | re.M,
    )
    text = re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"``\1``", text)
    text = re.sub(r"\\\((.+?)\\\)", lambda m: f":math:`{m[1].replace('|', chr(92) + 'vert ')}`", text, flags=re.S)
    text = re.sub(
        r"^( *)\\\[(.+?)\\\]",
        lambda m: f"{m[1]}.. math::\n\n{m[1]}   " + " ".join(m[2].split()),
        text,
        flags=re.S | re.M,
    )
    lines[:] = text.split("\n")


def _without_aliases(app, what, name, obj, skip, options):
    """The fields of a NamedTuple are described by its docstring; their own only count them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def _short_arrays(app, what, name, obj, options, signature, returns):
    """Show an annotation as it is written: `Float[Array, 'batch time feature']`, without the places of its classes."""
    return tuple(text and text.replace("jaxlib._jax.", "").replace("jax._src.", "") for text in (signature, returns))


def setup(app):
    """Register the translation ahead of napoleon."""
    app.connect("autodoc-process-signature", _short_arrays)
    app.connect("autodoc-process-docstring", _from_markdown, priority=100)
    app.connect("autodoc-skip-member", _without_aliases)
