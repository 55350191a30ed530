"""The driver: from a plan to a finished store, in the client's process as in a task of the cluster."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import partial

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from mandeldask import dashboard
from mandeldask.cluster import Session
from mandeldask.errors import DamagedError, JobCancelledError
from mandeldask.job import lease
from mandeldask.job.cost import Costs, Estimate, expect, makespan, order
from mandeldask.job.dispatcher import CANCELLED, NOT_SUBMITTED, Dispatcher, Submission, cluster_lost
from mandeldask.job.events import ORBIT_BYTES, Event, Expected, Notice, Observer, Orbit, Plan, Started, Summary
from mandeldask.job.ledger import Ledger, cannot_write
from mandeldask.job.periodic import every, if_it_takes
from mandeldask.job.plan import check_memory, recorded, space_warning
from mandeldask.job.reporter import Reporter
from mandeldask.kernels import AUTO, DEEP, Exact, Kernel, block_function, on_cpu, reference_of, tells_of_compilation
from mandeldask.precise import other_counts
from mandeldask.store import Store, StoredReference, read_reference, write_reference
from mandeldask.telemetry import Progress
from mandeldask.text import command, data_size, duration, pip_install, plural, short_path
from mandeldask.tile import tile_name
from mandeldask.view import Deep

ASK_SECONDS = 0.5
SILENT_SECONDS = 2.0
ORBIT_SECONDS = 0.5  # between two looks at a reference orbit
MANY_BITS = 800  # from which gmpy2 is faster than Python's integers
TOLD_SHARE = 0.1  # of other counts
SWEEP_SECONDS = 60.0  # a writer ends within seconds of its scheduler, and its file grows while it writes


def drive(plan: Plan, session: Session, tell: Observer, submission: Submission = NOT_SUBMITTED) -> Summary:
    """Compute what is pending of a plan, make the levels, and finish the store. There is no other driver.

    Where nothing is pending no cluster is started. While it works it holds the store's lease. Whatever StoreError,
    ClusterError or JobCancelledError ends it, what was finished stays in the store.
    """
    store = plan.store
    dispatcher = None
    try:
        with lease.held(store, submission.name, submission.run_id), Ledger(store).flushed() as ledger:
            if plan.source:  # for whoever resumes it
                store.write_notes(deepens={"path": plan.source.path, "identity": plan.source.identity})
            if plan.picture:  # for whoever draws it
                store.write_notes(picture=plan.picture)
            begun = time.time()
            _sweep(store, begun - SWEEP_SECONDS, tell)  # whose writers are certainly dead
            if plan.pending or plan.levels:
                dispatcher = _compute(plan, session, ledger, tell, submission)
            _sweep(store, begun, tell)
            reading = Notice("reading tiles whose figures are not known, and those of the border for the area", "store")
            with if_it_takes(SILENT_SECONDS, partial(tell, reading)):  # from a bucket, say
                return _finish(plan, ledger, dispatcher)
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):  # of Dask's connection
            raise cluster_lost(store) from None
        raise cannot_write(store, error) from None


def _compute(plan: Plan, session: Session, ledger: Ledger, tell: Observer, submission: Submission) -> Dispatcher:
    d, pending = plan.store.description, ~recorded(plan.store)
    if warning := space_warning(plan):
        tell(Notice(warning, about="store"))
    if plan.pending:
        function = _compiled(plan, tell)  # here first, for all workers
    client = session.connect()
    tell_started(client, tell)
    # while the workers of a new cluster start
    costs = None
    if plan.pending:
        if d.exact:
            reference = _prepare_reference(plan, tell, submission.is_cancelled)
            function = block_function(Exact(d.view, reference, d.proof), d.max_iter, d.fields)
        costs = expect(d, pending, function, plan.cluster.threads)
        _tell_rounding(plan, tell)
    if costs is not None and plan.kernel != "cuda":  # whose seconds a look on this CPU does not tell
        tell(_expected(pending, costs, plan.cluster.threads))
    session.ready()
    session.check_store(plan.store)
    reporter = Reporter(client, plan, ledger.columns, ~pending, submission.name)

    def tell_all(event: Event) -> None:
        if isinstance(event, Progress):
            ledger.progress = asdict(event)
        reporter(event)
        tell(event)

    dispatcher = Dispatcher(client, plan, ledger, tell_all, submission)

    def cancel_if_asked() -> None:
        if submission.is_cancelled():
            dispatcher.cancel()

    with reporter, every(ASK_SECONDS, cancel_if_asked, "cancel"):
        dispatcher.run(pending, costs)
    return dispatcher


def _tell_rounding(plan: Plan, tell: Observer) -> None:
    """Say where rounding changes many counts; those of a deep field are exact."""
    d = plan.store.description
    share = 0.0 if d.exact else other_counts(d.view, d.max_iter)
    if share > TOLD_SHARE:
        measured = f"`{command('verify', short_path(plan.store.path), '--precise', '1000')}` measures it"
        changed = f"rounding changes the counts of about {share:.0%} of the samples, each as if c lay a unit"
        tell(Notice(f"{changed} in its last place elsewhere: {measured}", about="rounding"))


def _compiled(plan: Plan, tell: Observer) -> Kernel:
    """The block function of the plan's kernel; of a deep field without the reference orbit that the store has."""
    d = plan.store.description
    compiling = partial(tell, Notice("compiling the Numba kernel; the next run finds it compiled", about="kernel"))
    kernel = on_cpu() if plan.kernel in (AUTO, "cuda") else plan.kernel
    with tells_of_compilation(compiling) if kernel in ("numba", DEEP) else nullcontext():
        return block_function(kernel, d.max_iter, d.fields, d.view)


def _prepare_reference(plan: Plan, tell: Observer, is_cancelled: Callable[[], bool]) -> StoredReference:
    """See to it that the store has its orbit, and that it fits in the workers' memory; what gives it to them.

    One that is damaged, or of another field, is made again. Raises ClusterError where it does not fit,
    JobCancelledError where the job is cancelled meanwhile.
    """
    d, begun, made = plan.store.description, time.monotonic(), ""
    look = _Look(plan, tell, is_cancelled)
    try:
        found = read_reference(plan.store)
    except DamagedError as error:
        tell(Notice(f"what the store has {error.problem}: it is made again", "reference"))
        found = None
    if not found:
        orbit = reference_of(d.view, d.max_iter, look)
        look.check(orbit.length)
        made = f", made in {duration(time.monotonic() - begun)}"
        found = write_reference(plan.store, orbit), orbit
    loader, orbit = found
    look.check(orbit.length)
    size = data_size(ORBIT_BYTES * orbit.length)
    tell(Notice(f"{plural(orbit.length, 'step')} of {orbit.bits} bits, {size} in each worker{made}", "reference"))
    return loader


class _Look:
    """Looks at an orbit while it is made: tells how far it is, and ends it where it does not fit or is not wanted."""

    def __init__(self, plan: Plan, tell: Observer, is_cancelled: Callable[[], bool]) -> None:
        self.plan, self.tell, self.is_cancelled = plan, tell, is_cancelled
        self.begun = self.told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self.told < ORBIT_SECONDS:
            return
        if self.is_cancelled():
            raise JobCancelledError(CANCELLED)
        self.check(done)
        if self.told == self.begun:
            self._advise()
        self.told = now
        self.tell(Orbit(done, of))

    def check(self, length: int) -> None:
        d = self.plan.store.description
        check_memory(d.fields, d.tile, self.plan.cluster, d.exact, ORBIT_BYTES * length)

    def _advise(self) -> None:
        frame = self.plan.store.description.frame
        assert isinstance(frame, Deep)
        if -frame.finest > MANY_BITS and not importlib.util.find_spec("gmpy2"):
            faster = "gmpy2 makes the orbit up to seven times as fast, with the same bits"
            self.tell(Notice(f"{faster}: `{pip_install('deep')}`", "reference"))


def tell_started(client: Client, tell: Observer) -> str:
    """Put our page into the scheduler's dashboard, and tell that the scheduler is up; gives the link."""
    link, problem = dashboard.page_of(client)
    if link and problem:
        tell(Notice(f"Dask's own pages only: {problem}", "dashboard"))
    tell(Started(link, client))
    return link


def _finish(plan: Plan, ledger: Ledger, dispatcher: Dispatcher | None) -> Summary:
    """The summary of a run that has come to its end, and the store's last touches."""
    store, done = plan.store, plan.store.done()
    ledger.complete(done)
    store.finish()
    run = dispatcher.estimate if dispatcher else Estimate(np.zeros((1, 1), np.bool_), None, 0)
    failed = dispatcher.failed if dispatcher else []
    seconds = max(0.0, run.last - run.first)
    return Summary(
        store=store.path,
        tiles=plan.tiles,
        done=int(done.sum()),
        computed=run.done,
        levels=dispatcher.made if dispatcher else 0,
        failed=len(failed),
        seconds=seconds,
        kernel_seconds=run.kernel,
        threads=dispatcher.threads if dispatcher else 0,
        thread_seconds=run.thread_seconds,
        iterations=run.iterations,
        iterations_per_second=run.iterations / seconds if seconds else 0.0,
        total_iterations=int(ledger.columns["iterations"][done].sum()),
        not_escaped=int(ledger.columns["not_escaped"][done].sum()),
        samples=plan.samples,
        area=ledger.area(done),
        unit=store.description.unit,
        proofs=ledger.proofs(done),
        errors={tile_name(tile): ledger.errors.get(tile_name(tile), "") for tile in failed},
        kernels=dict(run.kernels),
    )


def _sweep(store: Store, older: float, tell: Observer) -> None:
    """Remove the partial files that killed writers left before a time. Hold the store's lease meanwhile."""
    with suppress(OSError):  # of files that nobody reads
        if size := store.place.sweep(older):
            tell(Notice(f"removed {data_size(size)} of partial files that killed writers had left", "store"))
        for removed in store.place.sweep_removed():
            tell(Notice(f"removing {removed}, which a killed run had begun to overwrite", "store"))


def _expected(pending: NDArray[np.bool_], costs: Costs, threads: int) -> Expected:
    costly_first = [float(costs[tile]) for batch in order(pending, costs) for tile in batch]
    return Expected(makespan(costly_first, threads), makespan(costs[pending].tolist(), threads))
