"""Render the docstrings of the whole library, and a start page, to HTML.

    python -m docs.build              # writes docs/html
    python -m docs.build --output DIR

Needs the extra `docs`. The pages need no network: open docs/html/index.html in a browser. Whatever
the generator warns about, and every link that leads nowhere, is an error.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import os
import re
import sys
import typing
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jinja2
import pdoc.doc
import pdoc.extract
import pdoc.render
import pdoc.render_helpers
from markupsafe import Markup

from docs.check import problems
from docs.docstrings import to_markdown
from docs.links import NameIndex
from misc_utils.files import atomic_folder

FOLDER = Path(__file__).resolve().parent
# In the order in which an image goes through them.
PACKAGES = (
    "bounding_box_utils",
    "ssd_encoder_decoder",
    "data_generator",
    "keras_layers",
    "models",
    "keras_loss_function",
    "eval_utils",
    "misc_utils",
)
# In signatures: where NumPy and Keras hide what they export, and links whose text is a long name.
PRIVATE_MODULE = re.compile(
    r'<span class="n">_generator</span><span class="o">\.</span>'
    r'|<span class="n">keras</span><span class="o">\.</span><span class="n">src</span>'
    r'<span class="o">\.</span>(<span class="n">[a-z]\w*</span><span class="o">\.</span>)*'
)
LONG_LINK = re.compile(r"(<a [^>]*>)[\w.]+\.(\w+</a>)")


def build(output: Path, packages: tuple[str, ...] = PACKAGES) -> None:
    """Write one page a module, one a package, the start page, and the index for searching.

    Arguments:
        output: The folder to make or to replace.
        packages: The packages to document, with all their modules.

    Raises:
        Warning: whatever pdoc warns about, for example a type hint that it cannot resolve.
    """
    modules = load(packages)
    with warnings.catch_warnings(), atomic_folder(output) as folder:
        warnings.simplefilter("error")
        configure(NameIndex(modules))
        for name, module in modules.items():
            page = folder / f"{name.replace('.', '/')}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(pdoc.render.html_module(module, modules), encoding="utf-8")
        (folder / "index.html").write_text(pdoc.render.html_index(modules), encoding="utf-8")
        (folder / "search.js").write_text(pdoc.render.search_index(modules), encoding="utf-8")


def load(packages: tuple[str, ...]) -> dict[str, pdoc.doc.Module]:
    """Import all public modules of some packages, and translate their docstrings to Markdown."""
    modules = {}
    for package in packages:
        for name in pdoc.extract.walk_specs([package]):
            if not any(part.startswith("_") for part in name.split(".")):
                modules[name] = pdoc.doc.Module(importlib.import_module(name))
                for item in modules[name].classes:
                    resolve_named_tuple(item)
                    explain_fields(item)
    for package in packages:
        modules[package].docstring = room(package)
    for module in modules.values():
        translate(module)
    return modules


def resolve_named_tuple(item: pdoc.doc.Class) -> None:
    """Give a named tuple the types that its hints name: what makes it knows no import."""
    if issubclass(item.obj, tuple) and hasattr(item.obj, "_fields"):
        item.obj.__new__.__annotations__ = typing.get_type_hints(item.obj)
        for member in item.members.values():
            if re.match("Alias for field number|Create new instance of", member.docstring):
                member.docstring = ""  # Python's own, which tells nothing


def explain_fields(item: pdoc.doc.Class) -> None:
    """Take the `help` of a data class' fields, where they have some, for their docstrings."""
    if dataclasses.is_dataclass(item.obj):
        for field in dataclasses.fields(item.obj):
            if "help" in field.metadata and field.name in item.members:
                item.members[field.name].docstring = field.metadata["help"]


def room(package: str) -> str:
    """Read what there is to say about a package: its `__init__.py` is empty."""
    return (FOLDER / "rooms" / f"{package}.md").read_text(encoding="utf-8")


def translate(item: pdoc.doc.Doc) -> None:
    """Translate the docstrings of a module, or of a class, and of everything in it."""
    docstring = inspect.cleandoc(item.docstring)
    is_room = isinstance(item, pdoc.doc.Module) and item.is_package
    item.docstring = docstring if is_room or not docstring else to_markdown(docstring)
    if isinstance(item, pdoc.doc.Class):
        drop_bare_attributes(item, are_listed="Attributes:" in docstring.splitlines())
    if isinstance(item, pdoc.doc.Namespace):
        for member in item.members.values():
            if not isinstance(member, pdoc.doc.Module):
                translate(member)


def drop_bare_attributes(item: pdoc.doc.Class, are_listed: bool) -> None:
    """Leave out attributes of which there is a name only, or that the class itself explains."""
    for member in list(item.members.values()):
        is_bare = isinstance(member, pdoc.doc.Variable) and not member.docstring
        if is_bare and (are_listed or not member.annotation_str):
            del item.members[member.name]


def configure(names: NameIndex) -> None:
    """Set up pdoc: plain Markdown, the templates beside this file, links for short names."""
    pdoc.render.configure(docformat="markdown", template_directory=FOLDER / "templates")
    environment = pdoc.render.env
    environment.globals["packages"] = PACKAGES
    environment.globals["start_page"] = (FOLDER / "start.md").read_text(encoding="utf-8")
    environment.globals["is_documented"] = names.is_documented
    environment.filters["summary"] = summary

    @jinja2.pass_context
    def linkify(
        context: jinja2.runtime.Context, html: str, namespace: str = "", shorten: bool = True
    ) -> Markup:
        module = context.get("module")
        if module is None:
            return Markup(names.link(html, page=""))
        if shorten:  # a signature
            html = PRIVATE_MODULE.sub("", str(html))
            linked = str(pdoc.render_helpers.linkify(context, html, namespace))
            return Markup(LONG_LINK.sub(r"\1\2", linked))
        arguments = argument_names(module, namespace)
        return Markup(names.link(html, module.modulename, namespace, arguments))

    environment.filters["linkify"] = linkify


def argument_names(module: pdoc.doc.Module, qualname: str) -> frozenset[str]:
    """List the arguments of a function or class: a docstring means these by their names."""
    item = module.get(qualname) if qualname else None
    if isinstance(item, pdoc.doc.Class):
        item = item.get("__init__")
    if isinstance(item, pdoc.doc.Function):
        return frozenset(item.signature.parameters)
    return frozenset()


def summary(markdown: str) -> str:
    """Return the first paragraph, as one line."""
    return " ".join(markdown.strip().partition("\n\n")[0].split())


def main(arguments: list[str] | None = None) -> int:
    """Build and check the pages; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=FOLDER / "html")
    output = parser.parse_args(arguments).output
    build(output)
    found = problems(output, FOLDER.parent, PACKAGES)
    for problem in found:
        print(problem, file=sys.stderr)
    n_pages = len(list(output.rglob("*.html")))
    print(f"{n_pages} pages in {output}, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
