"""The docstrings of this library as Markdown.

They are written to be read in the source: sections such as `Arguments:`, tables drawn with equal
signs, sketches and code by indentation, and whatever characters prose needs. Here they become what
a Markdown processor understands, and nothing in them is taken for HTML.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator

# Sections that list names with a description each, and sections of text.
LISTS = ("Arguments", "Attributes", "Raises")
TEXTS = ("Returns", "Yields", "Example", "Examples")

_SECTION = re.compile(rf"(?P<name>{'|'.join(LISTS + TEXTS)}):(?P<rest>( .*)?)")
_ITEM = re.compile(r"(?P<name>[\w*`., ]+?): +(?P<text>.*)", re.DOTALL)
_TABLE_RULE = re.compile(r"=+( +=+)+")
_CODE_SPAN = re.compile(r"(`+)(?P<code>.+?)\1", re.DOTALL)
_LIST_ITEM = re.compile(r"([-*]|\d+\.) ")


def to_markdown(docstring: str) -> str:
    """Translate a docstring into Markdown.

    Arguments:
        docstring: A docstring without its indentation, as `inspect.getdoc` returns it.

    Returns:
        The same text in Markdown; headings of sections are paragraphs with the class ``section``.
    """
    parts = []
    for name, lines in _sections(docstring.splitlines()):
        if name is None:
            parts.append(_prose(lines))
            continue
        body = textwrap.dedent("\n".join(lines)).strip("\n").splitlines()
        parts.append(f'<p class="section">{name}</p>')
        parts.append(_items(body) if name in LISTS else _prose(body))
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


def _sections(lines: list[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Cut a docstring at the headings of its sections; what stands in no section has name None."""
    name, body = None, []
    for line in lines:
        heading = _SECTION.fullmatch(line)
        is_outside = line and not line.startswith(" ")
        if heading or (name and is_outside):
            yield name, body
            name, body = (heading["name"], []) if heading else (None, [line])
            if heading and heading["rest"]:
                # Text right after the heading goes on in the indented lines below.
                body = [f"    {heading['rest'].strip()}"]
        else:
            body.append(line)
    yield name, body


def _items(lines: list[str]) -> str:
    """Turn `name: description` entries, whose further lines are indented, into a Markdown list."""
    entries: list[list[str]] = []
    for line in lines:
        if entries and (not line or line.startswith(" ")):
            entries[-1].append(line)
        else:
            entries.append([line])
    rendered = []
    for first, *others in entries:
        text = "\n".join([first, textwrap.dedent("\n".join(others))])
        item = _ITEM.match(text)
        if item:
            names = re.sub(r"[\w*]+(\.[\w*]+)*", r"`\g<0>`", item["name"].replace("`", ""))
            text = f"**{names}**: {_prose(item['text'].splitlines())}"
        else:
            text = _prose(text.splitlines())
        rendered.append("- " + textwrap.indent(text.strip(), "  ").strip())
    return "\n".join(rendered)


def _prose(lines: list[str]) -> str:
    """Translate text with tables, lists, indented sketches, code and `>>>` examples in it."""
    blocks = []
    for block in _blocks(lines):
        first = block[0]
        if first.startswith(">>> "):
            blocks.append(_fenced(block, "pycon"))
        elif _TABLE_RULE.fullmatch(first):
            blocks.append(_table(block))
        elif first.startswith("    "):
            code = textwrap.dedent("\n".join(block)).splitlines()
            blocks.append(_fenced(code, "python" if _is_python(code) else "text"))
        else:
            blocks.append(_escaped("\n".join(block)))
    return "\n\n".join(blocks)


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Cut text at empty lines, and hold together what is one table, sketch or list."""
    block: list[str] = []
    for i, line in enumerate(lines):
        if line.strip():
            block.append(line)
            continue
        following = next((later for later in lines[i + 1 :] if later.strip()), "")
        if block and following.startswith("  ") and _is_indented_block(block, following):
            block.append("")
        elif block:
            yield block
            block = []
    if block:
        yield block


def _is_indented_block(block: list[str], following: str) -> bool:
    """Whether an indented line goes on with the block before it, across an empty line."""
    return block[0].startswith("    ") or bool(_LIST_ITEM.match(block[0]))


def _fenced(lines: list[str], language: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _is_python(lines: list[str]) -> bool:
    """Whether indented lines are code. A formula or a sketch is not even close to parsing."""
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Call | ast.Import | ast.ImportFrom) for node in ast.walk(tree))


def _table(lines: list[str]) -> str:
    """Turn a table whose columns are drawn with equal signs into one with bars."""
    columns = [match.span() for match in re.finditer(r"=+", lines[0])]
    columns[-1] = (columns[-1][0], None)  # the last one may be wider than its rule
    rows = []
    for line in lines[1:]:
        if _TABLE_RULE.fullmatch(line):
            continue
        cells = [line[start:end].strip() for start, end in columns]
        if cells[0] or len(rows) < 2:
            rows.append(cells)
        else:  # no name in the first column: the row before goes on
            rows[-1] = [f"{a} {b}".strip() for a, b in zip(rows[-1], cells, strict=True)]
    header, *body = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return "\n".join([header, "|" + " --- |" * len(columns), *body])


def _escaped(text: str) -> str:
    """Hide from Markdown and HTML what is neither, except inside of code spans."""

    def escape(plain: str) -> str:
        return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    parts, end = [], 0
    for span in _CODE_SPAN.finditer(text):
        parts += [escape(text[end : span.start()]), f"`{' '.join(span['code'].split())}`"]
        end = span.end()
    return "".join([*parts, escape(text[end:])])
