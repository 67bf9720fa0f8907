"""The configuration of Sphinx, which builds the site: ``make docs``."""

from __future__ import annotations

import posixpath
import re
import sys
import tomllib
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from pygments.lexers.sql import PostgresLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

project = "sqla_rls"
author = "the authors of sqla_rls"
project_copyright = author
release = installed("sqla-rls").partition("+")[0]
html_title = "sqla_rls"
html_baseurl = _PROJECT["urls"]["Documentation"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_external_toc",
]
exclude_patterns = ["_build", "**/conftest.py", "inventories"]
external_toc_exclude_missing = False

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # the landing page begins with HTML

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Emits", "Reverse"]

# The inventories are files of the repository, so that a build needs no network and links stay.
intersphinx_mapping = {
    "alembic": ("https://alembic.sqlalchemy.org/en/latest/", "inventories/alembic.inv"),
    "psycopg": ("https://www.psycopg.org/psycopg3/docs/", "inventories/psycopg.inv"),
    "python": ("https://docs.python.org/3/", "inventories/python.inv"),
    "sqlalchemy": ("https://docs.sqlalchemy.org/en/21/", "inventories/sqlalchemy.inv"),
}

# The modules in which SQLAlchemy defines a class, and those under which it documents the class.
_DOCUMENTED = {
    "sqlalchemy.engine.base": "sqlalchemy.engine",
    "sqlalchemy.engine.row": "sqlalchemy.engine",
    "sqlalchemy.engine.url": "sqlalchemy.engine",
    "sqlalchemy.ext.asyncio.engine": "sqlalchemy.ext.asyncio",
    "sqlalchemy.ext.asyncio.session": "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm.session": "sqlalchemy.orm",
    "sqlalchemy.sql.base": "sqlalchemy.sql.expression",
    "sqlalchemy.sql.elements": "sqlalchemy.sql.expression",
    "sqlalchemy.sql.schema": "sqlalchemy.schema",
    "sqlalchemy.sql.type_api": "sqlalchemy.types",
}
# Names that a module imports for type checkers only.
_SHORT = {
    "AsyncEngine": "sqlalchemy.ext.asyncio.AsyncEngine",
    "Engine": "sqlalchemy.engine.Engine",
    "MetaData": "sqlalchemy.schema.MetaData",
    "Row": "sqlalchemy.engine.Row",
    "URL": "sqlalchemy.engine.URL",
}

copybutton_exclude = ".linenos, .gp, .go"
highlight_language = "none"
pygments_style = "tango"
pygments_dark_style = "github-dark"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_theme_options = {
    "source_repository": _PROJECT["urls"]["Homepage"],
    "source_branch": "main",
    "source_directory": "docs/",
}
html_extra_path = ["../llms.txt"]
html_show_sphinx = False

_LINK = re.compile(r"\]\((\.\./[^)#\s]+)")


def link_to_repository(app: Sphinx, name: str, source: list[str]) -> None:
    """Turn the links to files outside of docs/ into addresses of the repository."""

    def linked(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(name), found[1]))
        if path.startswith("docs/"):
            return found[0]
        return f"]({_PROJECT['urls']['Homepage']}/blob/main/{path}"

    source[0] = _LINK.sub(linked, source[0])


def help_readers(app: Sphinx, name: str, template: str, context: dict[str, Any], _: object) -> None:
    """Give the headings of the sidebar their level, and let the keyboard scroll listings."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')
    context["body"] = context.get("body", "").replace("<pre>", '<pre tabindex="0">')


def name_as_documented(app: Sphinx, env: object, node: dict[str, str], _: object) -> None:
    """Change the target of a reference to the name under which SQLAlchemy documents it."""
    target = node.get("reftarget", "")
    module, _dot, name = target.rpartition(".")
    if module in _DOCUMENTED:
        node["reftarget"] = f"{_DOCUMENTED[module]}.{name}"
    elif target in _SHORT:
        node["reftarget"] = _SHORT[target]


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_to_repository)
    # Before intersphinx looks it up.
    app.connect("missing-reference", name_as_documented, priority=100)
    # After Furo has made its tree.
    app.connect("html-page-context", help_readers, priority=900)
    app.add_lexer("sql", PostgresLexer)
