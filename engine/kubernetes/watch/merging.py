"""What is watched of a cluster, together with what dumps or the store say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from framewalk.engine.kubernetes.files import with_earlier

if TYPE_CHECKING:
    from framewalk.engine.kubernetes.inventory import History, Identity, Inventory
    from framewalk.engine.kubernetes.watch.cluster import Changes

# The kind, namespace and name of objects: they have it in common with those that they may be.
_Name = tuple[Any, ...]


class Merged:
    """Merges changes that a watch saw with what was known before: the newer sighting counts."""

    def __init__(self, earlier: Inventory) -> None:
        self._earlier: dict[_Name, list[History[Any]]] = {}
        for history in earlier.histories:
            self._earlier.setdefault(history.identity[:3], []).append(history)
        self._watched: dict[_Name, dict[Identity, History[Any]]] = {}
        self._given: dict[_Name, set[Identity]] = {}
        self._is_begun = False

    def take(self, changes: Changes) -> dict[Identity, History[Any] | None]:
        """Return what is known now of all objects that have changed; None: nothing more."""
        found: dict[Identity, History[Any] | None] = {}
        names: set[_Name] = set()
        for one, history in changes.histories.items():
            name = one[:3]
            if name not in self._earlier:
                found[one] = history
                continue
            names.add(name)
            watched = self._watched.setdefault(name, {})
            if history is None:
                watched.pop(one, None)
            else:
                watched[one] = history
        # A list says what of all that was known is gone.
        is_old = self._is_begun
        names |= {name for name in self._earlier if name[0] in changes.listed or not is_old}
        self._is_begun = True
        for name in names:
            watched = self._watched.get(name, {})
            merged = with_earlier(self._earlier[name], watched.values(), changes.lists)
            now = {one.identity: one for one in merged.histories}
            found |= dict.fromkeys(self._given.get(name, set()) - now.keys())
            found |= now
            self._given[name] = set(now)
        return found
