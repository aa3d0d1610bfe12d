"""Links from the names in the text to what they name, across all pages."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import pdoc.doc
from pdoc.render_helpers import qualname_candidates, relative_link

_CODE = re.compile(r"<code>(?P<name>[A-Za-z][\w.]*)(\(\))?</code>(?!</a>)")


class NameIndex:
    """Where the public modules, classes, functions, methods and constants are documented.

    Arguments:
        modules: All modules of the documentation by name.
    """

    def __init__(self, modules: Mapping[str, pdoc.doc.Module]):
        self._anchors: set[tuple[str, str]] = set()
        self._places: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for module in modules.values():
            self._anchors.add((module.modulename, ""))
            self._places[module.modulename].add((module.modulename, ""))
            for member in _public(module.own_members):
                self._add(member)
        inherited = [
            (member.modulename, member.qualname)
            for module in modules.values()
            for item in module.classes
            for members in item.inherited_members.values()
            for member in members
            if member.taken_from in self._anchors
        ]
        for place in inherited:
            self._anchors.add(place)
            self._places[place[1]].add(place)

    def _add(self, member: pdoc.doc.Doc) -> None:
        place = (member.modulename, member.qualname)
        self._anchors.add(place)
        self._places[member.fullname].add(place)
        self._places[member.qualname].add(member.taken_from)  # not where it is passed on
        if isinstance(member, pdoc.doc.Class):
            for inner in _public(member.own_members):
                self._add(inner)

    def is_documented(self, module: str, qualname: str) -> bool:
        """Whether there is a place to link to for something of a module."""
        return (module, qualname) in self._anchors

    def link(
        self, html: str, page: str, namespace: str = "", other_names: frozenset[str] = frozenset()
    ) -> str:
        """Turn the names in a piece of HTML that are code, and no links yet, into links.

        A name means what is nearest: a member of the class that the piece is about, then something
        of the same module, then of any other. If two other modules have something of that name, it
        leads nowhere, because it might lead to the wrong one.

        Arguments:
            html: The piece; names stand in `<code>` elements.
            page: The name of the module that the page is about, or ``''`` for the start page.
            namespace: The class or function that the piece is about, or ``''``.
            other_names: Names that mean something else here, such as the arguments of a function.

        Returns:
            The piece with links relative to the page.
        """

        def replace(match: re.Match[str]) -> str:
            name = match["name"]
            if name in other_names:
                return match[0]
            for qualname in qualname_candidates(name, namespace):
                if (page, qualname) in self._anchors:
                    return f'<a href="#{qualname}">{match[0]}</a>'
            places = {p for p in self._places.get(name, ()) if p in self._anchors}
            if len(places) != 1 or places == {(page, "")}:
                return match[0]
            ((module, qualname),) = places
            address = relative_link(page, module) + (f"#{qualname}" if qualname else "")
            return f'<a href="{address}">{match[0]}</a>'

        return _CODE.sub(replace, html)


def _public(members: list[pdoc.doc.Doc]) -> list[pdoc.doc.Doc]:
    return [member for member in members if not member.name.startswith("_")]
