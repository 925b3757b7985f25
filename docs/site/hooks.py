"""What MkDocs does not do by itself. Paths of the repository become text on the site, which has no such files, and
no page asks another host for anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent

#: A link that leads out of the page's folder, upwards.
_UPWARDS = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")
#: What a browser fetches by itself.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|link(?![^>]*rel="canonical"))\b[^>]*\s(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page's text without links to files of the repository that are no pages.

    Raises:
        PluginError: there is no such file.
    """
    folder = (DOCS / page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        text, path = match[1], (folder / match[2]).resolve()
        if path.is_relative_to(DOCS):
            return match[0]
        if not path.is_relative_to(ROOT) or not path.exists():
            raise PluginError(f"{page.file.src_uri}: {match[2]} is no file of the repository")
        return text

    return _UPWARDS.sub(replace, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The page as it is.

    Raises:
        PluginError: it would have a browser ask another host.
    """
    if fetched := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} fetches from another host: {fetched[0][:200]}")
    return output
