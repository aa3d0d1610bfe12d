"""Does every link of the pages lead somewhere, and is everything public on them?"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
# What a docstring's layout leaves behind when it was not understood.
_LEFTOVER = re.compile(
    r"={5,}|</?(a|code|p|span|strong)\b|^(Arguments|Returns|Raises|Attributes|Yields|Examples?):",
    re.MULTILINE,
)


class Page(HTMLParser):
    """The anchors, links and text of an HTML page.

    Arguments:
        path: The file.

    Attributes:
        ids: The anchors, as often as they occur.
        links: All addresses that the page refers to: links, pictures, scripts and styles.
        text: What a reader reads, code blocks left out.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.text = ""
        self._skipping: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's anchor and addresses."""
        values = dict(attrs)
        if values.get("id"):
            self.ids[values["id"]] += 1
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        if tag in ("pre", "script", "style"):
            self._skipping.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Note the end of code, a script, or a style."""
        if self._skipping and tag == self._skipping[-1]:
            self._skipping.pop()

    def handle_data(self, data: str) -> None:
        """Gather the text between elements."""
        if not self._skipping:
            self.text += data


def problems(folder: Path, repository: Path, packages: tuple[str, ...]) -> list[str]:
    """Look for everything that should not be as it is.

    Arguments:
        folder: Where the pages are.
        repository: Where the packages are.
        packages: The packages that the pages document.

    Returns:
        One line for each broken internal link or anchor, anchor that occurs twice, malformed
        external link, layout that was not understood, public thing without a place or docstring.
    """
    page_of = cache(Page)
    found = []
    for path in sorted(folder.rglob("*.html")):
        page = page_of(path)
        name = path.relative_to(folder).as_posix()
        found += [f"{name}: anchor #{i} occurs {n} times" for i, n in page.ids.items() if n > 1]
        found += [f"{name}: unreadable layout: {m[0]}" for m in _LEFTOVER.finditer(page.text)]
        for link in sorted(set(page.links)):
            if not _is_good(link, path, page_of):
                found.append(f"{name}: broken link {link}")
    for package in packages:
        for source in sorted((repository / package).rglob("*.py")):
            found += _missing(source, repository, folder, page_of)
    return found


def _is_good(link: str, path: Path, page_of) -> bool:
    """Whether a link leads to a page and an anchor that exist, or could exist outside."""
    parts = urlsplit(link)
    if parts.scheme == "data":
        return True
    if parts.scheme or parts.netloc:
        return parts.scheme == "https" and bool(_HOST.fullmatch(parts.netloc))
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return False
    return not parts.fragment or unquote(parts.fragment) in page_of(target).ids


def _missing(source: Path, repository: Path, folder: Path, page_of) -> Iterator[str]:
    """Name what a module's source defines in public and its page does not show.

    The source is parsed rather than imported: what the generator thinks is public is not asked.
    """
    module = source.relative_to(repository).with_suffix("")
    if module.name.startswith("_") and module.name != "__init__":
        return
    module = module.parent if module.name == "__init__" else module
    path = folder / f"{module.as_posix()}.html"
    if not path.is_file():
        yield f"{module}: has no page"
        return
    tree = ast.parse(source.read_text(encoding="utf-8"))
    if tree.body and not ast.get_docstring(tree):
        yield f"{module}: has no docstring"
    listed = _listed(tree)
    for name, node in _public(tree.body):
        if listed and name.partition(".")[0] not in listed:
            continue
        if name not in page_of(path).ids:
            yield f"{module}: {name} is not on its page"
        if not ast.get_docstring(node):
            yield f"{module}: {name} has no docstring"


def _listed(tree: ast.Module) -> list[str]:
    """Return a module's `__all__`, or nothing."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.stmt]]:
    """Yield the functions, classes and methods without a leading underscore."""
    for node in body:
        is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if is_definition and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{prefix}{node.name}.")
