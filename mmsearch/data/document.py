"""A YAML file with the line of every key, for messages that say where."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mmsearch.errors import MMSearchError, nearest


class Document:
    """A YAML mapping read by the safe loader.

    Attributes:
        path: the file.
        data: its content.
    """

    def __init__(self, path: Path) -> None:
        found = _read(path)
        if len(found) > 1:
            raise MMSearchError(f"{path}:{found[1][0].start_mark.line + 1}: a second document; one is expected")
        self._take(path, *(found or [(None, {})])[0])

    @classmethod
    def several(cls, path: Path) -> list[Document]:
        """The documents of a file in which `---` may stand between them; empty ones are left out."""
        documents = []
        for node, data in _read(path):
            if data is not None:
                documents.append(cls.__new__(cls))
                documents[-1]._take(path, node, data)
        return documents

    def _take(self, path: Path, root: yaml.Node | None, data: Any) -> None:
        self.path, self._root = path, root
        self.data: dict[str, Any] = data
        if not isinstance(data, dict):
            line = root.start_mark.line + 1 if root else 1
            raise MMSearchError(f"{path}:{line}: needs `key: value` lines, not a {type(data).__name__}")
        self._refuse_duplicates(root, 3)

    def at(self, *keys: str) -> str:
        """`file:line` of a key (of a list's entry by its number); an unknown key gives its parent's line."""
        node, line = self._root, 1
        for key in keys:
            found = self._find(node, key)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return f"{self.path}:{line}"

    def texts(self, key: str) -> list[str]:
        """A list of plain values as they were written: `no` stays "no", `01` stays "01".

        Raises:
            MMSearchError: the value is not such a list.
        """
        found = self._find(self._root, key)
        values = found[1].value if found and isinstance(found[1], yaml.SequenceNode) else None
        if values is None or not all(isinstance(v, yaml.ScalarNode) for v in values):
            raise MMSearchError(f"{self.at(key)}: {key} must be a list, as in [a, b]")
        return [v.value for v in values]

    def check_keys(self, known: Iterable[str], *parents: str) -> None:
        """Refuses a key that nothing reads.

        Raises:
            MMSearchError: names its line and the nearest known key.
        """
        inner: Any = self.data
        for parent in parents:
            inner = inner[parent]
        names = list(known)
        for key in inner:
            if key not in names:
                raise MMSearchError(f"{self.at(*parents, str(key))}: unknown key {key!r}{nearest(str(key), names)}")

    def _refuse_duplicates(self, node: yaml.Node | None, depth: int) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise MMSearchError(f"{self.path}:{key.start_mark.line + 1}: {key.value} is given twice")
            seen.add(key.value)
            if depth:
                self._refuse_duplicates(value, depth - 1)

    @staticmethod
    def _find(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
        if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            return node.value[int(key)], node.value[int(key)]
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        return next(((k, v) for k, v in pairs if k.value == key), None)


def _read(path: Path) -> list[tuple[yaml.Node, Any]]:
    """The documents of a file, each with its node."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
        found = []
        while loader.check_node():
            node = loader.get_node()
            found.append((node, loader.construct_document(node)))
        return found
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise MMSearchError(f"{path}: cannot be read: {reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise MMSearchError(f"{path}{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MMSearchError(f"{path}: {error}") from None
