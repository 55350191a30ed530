"""Run, resume and deepen: the driver in this process, until the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from distributed import Client

from mandeldask import config as configs
from mandeldask.cluster import Session
from mandeldask.errors import ConfigError, check_type
from mandeldask.job.driver import drive
from mandeldask.job.events import Notice, Observer, Preparing, Summary, ignore, in_notebook
from mandeldask.job.plan import make_plan
from mandeldask.kernels import AUTO, MAX_ITER_LIMIT, choose
from mandeldask.store import Store, open_store
from mandeldask.text import is_url, plural, short_path

AnyConfig: TypeAlias = "configs.Config | Mapping[str, Any] | str | os.PathLike[str]"


def run(
    config: AnyConfig,
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    cluster: configs.AnyCluster | None = None,
    client: Client | None = None,
    trust: bool = False,
    upload: bool = False,
    ignore_space: bool = False,
    tell: Observer | None = None,
) -> Summary:
    """Compute a field into a store; on a store of the same field, compute what is missing.

    Parameters
    ----------
    config : path of a YAML file, name, mapping, or Config
        The run description; `lesson`, `gallery/shell` and others come with mandeldask (`mandeldask init` lists them).
    out : path, optional
        The store; takes precedence over the description's.
    overrides : sequence of "KEY=VALUE"
        Changes to the description, as the command line's --set.
    overwrite : bool
        Replace the store that is there, if it is one of mandeldask's.
    cluster : path of a YAML file, address of a scheduler, or mapping, optional
        Who computes; takes precedence over the description's.
    client : distributed.Client, optional
        A cluster that is already there; by default the one described is started and ended.
    trust : bool
        Use whatever cluster a description from a file names; by default only worker processes on this machine, for any
        other can run programs as you. A mapping is trusted: it is the caller's own.
    upload : bool
        Send this mandeldask to the scheduler and the workers first; by default they must have it.
    ignore_space : bool
        Begin even where the field will surely not fit on the disk.
    tell : callable, optional
        Is given each event as it happens: `Preparing`, `Plan`, `Started`, `TileDone`, `TileFailed`, `Summary`. By
        default a notebook shows a bar and the picture as it forms, and nothing is told elsewhere.

    Returns
    -------
    Summary
        Its `failed` is not 0 when tiles were given up; `resume` tries them again.

    Raises
    ------
    ConfigError, StoreError, ClusterError
        One or two lines that say what is wrong and what to do. What was finished stays in the store.
    """
    described = read_description(config, overrides, out, trust or bool(cluster) or client is not None)
    return _compute_field(described, cluster, client, upload, ignore_space, _observer(tell), overwrite=overwrite)


def resume(
    store: str | os.PathLike[str],
    *,
    kernel: str = AUTO,
    cluster: configs.AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    ignore_space: bool = False,
    tell: Observer | None = None,
) -> Summary:
    """Compute what is missing of a store, with any kernel on any cluster: the bits are the same. See `run`."""
    described = configs.parse(_description_of(store, kernel), source=f"resume {os.fspath(store)}")
    return _compute_field(described, cluster, client, upload, ignore_space, _observer(tell))


def deepen(
    store: str | os.PathLike[str],
    max_iter: int,
    out: str | os.PathLike[str],
    *,
    kernel: str = AUTO,
    cluster: configs.AnyCluster | None = None,
    client: Client | None = None,
    upload: bool = False,
    ignore_space: bool = False,
    tell: Observer | None = None,
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
    source = open_store(store)
    old = source.description.max_iter
    if isinstance(max_iter, bool) or not isinstance(max_iter, int) or not old < max_iter <= MAX_ITER_LIMIT:
        raise ConfigError(
            f"max_iter must be more than the {old} that {source.path} has, and at most {MAX_ITER_LIMIT}; got {max_iter}"
        )
    if source.description.proof != "full":
        raise ConfigError(
            f"{source.path} has proof: {source.description.proof}, so its counts may be wrong: compute the field with "
            "the larger max_iter by a run of its own"
        )
    deeper = _description_of(store, kernel) | {"max_iter": max_iter, "store": os.fspath(out)}
    described = configs.parse(deeper, source="deepen")
    lacks = int((~source.done()).sum())
    whole = f", and {plural(lacks, 'tile')} that it lacks" if lacks else ""
    tell = _observer(tell)
    only = f"computes only the samples that did not escape within {old} iterations"
    tell(Notice(f"{source.path}: {only}{whole}", "deepens"))
    return _compute_field(described, cluster, client, upload, ignore_space, tell, source=source)


def _compute_field(
    config: configs.Config,
    cluster: configs.AnyCluster | None,
    client: Client | None,
    upload: bool,
    ignore_space: bool,
    tell: Observer,
    *,
    overwrite: bool = False,
    source: Store | None = None,
) -> Summary:
    """What `run` does with a description that was read. A `source` knows the field at fewer iterations."""
    kernel, reason = choose(config.kernel, config.view)
    tell(Preparing(kernel, reason))

    def say(text: str) -> None:
        tell(Notice(text))

    folder = os.path.dirname(os.path.abspath(config.store)) if config.store and not is_url(config.store) else None
    new = folder and not os.path.isdir(folder)
    with Session(cluster or config.cluster, kernel=kernel, client=client, upload=upload, say=say) as opened:
        picture = configs.picture_options(config)
        plan = make_plan(
            config, kernel, opened.size, overwrite, ignore_space=ignore_space, source=source, picture=picture
        )
        if folder and new:
            tell(Notice(f"made the directory {short_path(folder)}", "store"))
        tell(plan)
        summary = drive(plan, opened, tell)
        tell(summary)  # while the cluster is there, for who wants to look at it
    return summary


def _observer(tell: Observer | None) -> Observer:
    """The observer that was given; else a cell of a notebook, or nobody."""
    if tell or not in_notebook():
        return tell or ignore
    from mandeldask.job.cell import Cell  # imports what draws pictures, which no worker needs

    return Cell()


def read_description(
    config: AnyConfig, overrides: Sequence[str], out: str | os.PathLike[str] | None, trust: bool
) -> configs.Config:
    """The run description, with what the caller changes in it.

    ConfigError for a cluster other than a local one, unless there is `trust`: a mapping was made by the caller, a
    Config may have been read from a file.
    """
    if isinstance(config, configs.Config):
        read = configs.parse(config.model_dump(), overrides=overrides) if overrides else config
    elif isinstance(config, Mapping):
        read, trust = configs.parse(config, overrides=overrides), True
    else:
        check_type("config", config, str | os.PathLike, "the path of a YAML file, a name such as lesson, or a mapping")
        read = configs.load(config, overrides)
    if not trust:
        configs.refuse_untrusted(read.cluster)
    hint = "Changes to a description go into overrides, such as overrides=['max_iter=500']"
    check_type("out", out, str | os.PathLike | None, "the path of a store", hint)
    return read if out is None else read.model_copy(update={"store": os.fspath(out)})


def _description_of(path: str | os.PathLike[str], kernel: str) -> dict[str, object]:
    """The run description, as a mapping, that goes on with a store."""
    store = open_store(path)
    d = store.description
    return {
        "view": replace(d.view, given=store.given),  # the digits as they were typed
        "max_iter": d.max_iter,
        "fields": list(d.fields),
        "tile": list(d.tile),
        "store": store.path,
        "kernel": kernel,
        "proof": d.proof,
    }
