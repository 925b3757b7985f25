"""What griffe does not know of this package's docstrings and stubs."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Gives griffe docstrings and classes as it reads them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Takes a section of one example for one of examples, and roles out of names."""
        if obj.docstring is not None:
            text = re.sub(
                r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )
            obj.docstring.value = re.sub(r":py:\w+:(?=`)", "", text)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Takes the arguments of a C type's ``__new__`` for those of its class."""
        new = cls.members.get("__new__")
        if isinstance(new, griffe.Function) and "__init__" not in cls.members:
            cls.members["__init__"] = new
