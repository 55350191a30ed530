"""Deepen: the same field with more iterations, from what a finished store knows already."""

from __future__ import annotations

import os
from dataclasses import replace

from distributed import Client

from mandeldask import cluster as clusters
from mandeldask import config as configs
from mandeldask.errors import ConfigError
from mandeldask.job.description import AnyCluster, of_store
from mandeldask.job.events import Notice, Observer, Summary, ignore
from mandeldask.job.runs import carry_out
from mandeldask.kernels import AUTO, MAX_ITER_LIMIT
from mandeldask.store import metadata, open_store
from mandeldask.words import plural


def deepen(
    store: str | os.PathLike[str],
    max_iter: int,
    out: str | os.PathLike[str],
    *,
    kernel: str = AUTO,
    cluster: AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    ignore_space: bool = False,
    tell: Observer = ignore,
) -> Summary:
    """Compute the field of `store` with a larger `max_iter` into the store `out`: to the bit what a run would give.

    Only the samples that had not escaped are computed again; the others are copied, tile by tile. A tile that the old
    store lacks, or that is damaged there, is computed whole. What was begun is finished by the same call, or by
    `resume`; where the old store is gone by then, that computes whole tiles.

    Parameters
    ----------
    max_iter : int
        More than the store's own.
    kernel, cluster, client, upload, ignore_space, tell
        As for `run`.

    Raises
    ------
    ConfigError
        A max_iter that is not larger.
    StoreError, ClusterError
        As for `run`; StoreError also where `out` holds another field.
    """
    if client is None:
        clusters.leave_if_being_spawned()
    source = open_store(store)
    old = source.description
    if isinstance(max_iter, bool) or not isinstance(max_iter, int) or not old.max_iter < max_iter <= MAX_ITER_LIMIT:
        raise ConfigError(
            f"max_iter must be more than the {old.max_iter} that {source.path} has, and at most {MAX_ITER_LIMIT}; "
            f"got {max_iter}"
        )
    config = configs.parse(of_store(store, kernel) | {"max_iter": max_iter, "store": os.fspath(out)}, source="deepen")
    given = (metadata.read_manifest(source.place) or {}).get("given")
    if isinstance(given, dict):  # the digits as they were typed
        config = config.model_copy(update={"view": replace(config.view, given=given)})
    lacks = int((~source.done()).sum())
    whole = f", and {plural(lacks, 'tile')} that it lacks" if lacks else ""
    tell(Notice(f"{source.path}: only the samples that it has at {old.max_iter}{whole} are computed", "deepens"))
    how = {"cluster": cluster, "client": client, "upload": upload, "ignore_space": ignore_space, "tell": tell}
    return carry_out(config, source=source, **how)  # type: ignore[arg-type]
