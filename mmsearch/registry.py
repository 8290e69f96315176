"""One registry idea for methods, fusions, encoders and optimisers: a package is scanned for files."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar

from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import check_knobs, knobs_of

T = TypeVar("T")


class Registry(Generic[T]):
    """The components of one kind: one file each in a package, or an entry point of a third party.

    A component is a dataclass below `base` with a class attribute `name`. Files whose name starts
    with an underscore are not scanned. The entry-point group has the package's name.

    Args:
        kind: the word for error messages, such as `"method"`.
        base: the class every component derives from.
        package: the package to scan, such as `"mmsearch.methods"`.
    """

    def __init__(self, kind: str, base: type[T], package: str) -> None:
        self.kind = kind
        self.base = base
        self.package = package
        self._found: dict[str, type[T]] | None = None

    def _scan(self) -> dict[str, type[T]]:
        if self._found is not None:
            return self._found
        found: dict[str, type[T]] = {}
        package = importlib.import_module(self.package)
        modules = [
            importlib.import_module(f"{self.package}.{m.name}")
            for m in pkgutil.iter_modules(package.__path__)
            if not m.name.startswith("_")
        ]
        classes = [
            c
            for module in modules
            for _, c in inspect.getmembers(module, inspect.isclass)
            if c.__module__ == module.__name__ and issubclass(c, self.base) and "name" in vars(c)
        ]
        classes += [point.load() for point in metadata.entry_points(group=self.package)]
        for c in classes:
            self._add(found, c)
        self._found = found
        return found

    def _add(self, found: dict[str, type[T]], component: type[T]) -> None:
        name = component.name  # type: ignore[attr-defined]
        if name in found and found[name] is not component:
            raise MMSearchError(
                f"{self.kind} {name!r} is given twice: in {found[name].__module__} and in {component.__module__}"
            )
        found[name] = component

    def register(self, component: type[T]) -> type[T]:
        """Adds a component by hand (a notebook, a test). Usable as a decorator.

        Raises:
            MMSearchError: the name is taken.
        """
        self._add(self._scan(), component)
        return component

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._scan())

    def __contains__(self, name: object) -> bool:
        return name in self._scan()

    def get(self, name: str, where: str | None = None) -> type[T]:
        """The class of that name.

        Raises:
            MMSearchError: there is none; the message has the nearest name.
        """
        found = self._scan()
        if name not in found:
            prefix = f"{where}: " if where else ""
            raise MMSearchError(f"{prefix}unknown {self.kind} {name!r}{nearest(name, found)}")
        return found[name]

    def create(self, document: Mapping[str, Any], where: str | None = None) -> T:
        """The component of a document such as `{"name": "ogm", "alpha": 0.3}`.

        Raises:
            MMSearchError: unknown name or knob, or a value out of range.
        """
        if "name" not in document:
            raise MMSearchError(f"{where or self.kind}: a {self.kind} needs a name")
        cls = self.get(document["name"], where)
        values = {k: v for k, v in document.items() if k != "name"}
        return cls(**check_knobs(cls, values, where or f"{self.kind} {document['name']}"))

    def document(self, component: T) -> dict[str, Any]:
        """The document that :meth:`create` turns back into this component (active knobs only)."""
        values = {k: getattr(component, k) for k in knobs_of(component)}
        active = {k: v for k, v in values.items() if knobs_of(component)[k].active(values)}
        return {"name": component.name, **active}  # type: ignore[attr-defined]
