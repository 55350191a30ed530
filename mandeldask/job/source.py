"""The store of fewer iterations that a field is deepened from, noted in the deeper store for whoever resumes it."""

from __future__ import annotations

import re
from dataclasses import replace

from mandeldask.errors import StoreError
from mandeldask.store import Store, open_store

NOTE = "deepens"
_URL = re.compile("[a-zA-Z][a-zA-Z0-9+.-]+://")


def note_source(store: Store, source: Store) -> None:
    """Note in a store that it is deepened from another."""
    store.write_notes(**{NOTE: {"path": source.path, "identity": source.identity}})


def noted_source(store: Store) -> Store | None:
    """The store of the same field at a smaller max_iter that this one is deepened from; None where it is gone."""
    note = store.read_notes().get(NOTE)
    note = note if isinstance(note, dict) else {}
    path = note.get("path")
    # a folder from elsewhere must not send its reader to a server
    if not isinstance(path, str) or bool(_URL.match(path)) != bool(_URL.match(store.path)):
        return None
    try:
        source = open_store(path)
    except StoreError:
        return None
    old, new = source.description, store.description
    same = replace(old, max_iter=new.max_iter, format_version=new.format_version) == new
    known = note.get("identity") == source.identity and old.max_iter < new.max_iter
    return source if same and known else None
