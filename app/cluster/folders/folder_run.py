"""`box2mask run --ray`: the walk over a run's images by Ray Data, where `app.folders.batch` walks in one process.

The process that starts it holds names and what failed, never an image or a result: those go from stage to stage, and
into shards. Ray asks no stage for more than the next can take.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import ray.data
from tqdm import tqdm

from app.cluster.folders.connecting import READING_CPUS, WRITING_CPUS, ClusterError, Pool, Pools
from app.cluster.folders.models import Known, ModelsError, OpenModels, known
from app.cluster.folders.stages import Find, Job, read, rows_of, write
from app.folders import storage
from app.folders.batch import Summary, failures
from app.folders.destination import Destination
from app.folders.image_work import Asked, ToDo, to_do
from app.folders.journal import FAILED, Journal
from app.folders.outputs import Outputs
from app.folders.prompts import BoxPrompts
from app.folders.sources import Sources
from app.prediction import Predictor
from models.images.notes import PhotoNotes

# A block is what is lost, and done again, with a machine: large ones ask Ray less often, small ones end together.
_MOST_OF_A_BLOCK, _BLOCKS_OF_AN_ACTOR = 32, 50
# Of a process with models: by itself Ray never gives up, not even a photo that kills whoever decodes it.
_RESTARTS = 10
_CALLS_AT_ONCE = 2  # of a process with models: while one block ends, the next keeps the networks busy

Open = Callable[[], Predictor]

# Errors that say in a sentence what to do. Ray hands on the text of a traceback, and seldom the error itself.
_TOLD = (
    "app.cluster.folders.connecting.ClusterError",
    "app.cluster.folders.models.ModelsError",
    "OSError",
    "FileNotFoundError",
    "PermissionError",
)


class FolderRun:
    """The processes of a run, and their models. models: what there is to know of these."""

    def __init__(self, open_models: Open, pools: Pools) -> None:
        """open_models: is called in each process, and so sent there. Raises ClusterError where it fails."""
        self._pools = pools
        self._opens = [open_models]
        if pools.detector is not None:
            assert isinstance(open_models, OpenModels)
            self._opens = [open_models.alone("segmenter"), open_models.alone("detector")]
        found = [
            _look(opens) if pools.here and not pool.gpus else _ask(opens, pool)
            for opens, pool in zip(self._opens, pools.every, strict=True)
        ]
        self.models = found[0]
        if len(found) > 1:
            segmenter, detector = found
            self.models = Known(
                detector.class_names,
                {**segmenter.description, "detector": detector.description["detector"]},
                {**segmenter.of_models, "detector": detector.of_models["detector"]},
            )

    def process(
        self,
        sources: Sources,
        asked: Asked,
        journal: Journal,
        outputs: Outputs,
        prompts: BoxPrompts | None,
        notes: PhotoNotes,
        destination: Destination,
    ) -> Summary:
        """As `batch.process`. Raises ClusterError where the cluster cannot go on; what was done by then is kept."""
        todo = to_do(sources, journal, outputs, prompts)
        job = Job(asked, outputs, destination.place, destination.number, storage.environment())
        paths = {source.name: source.path for source in sources.images}
        failed = 0
        with (
            failures(journal.folder / FAILED) as tell,
            tqdm(total=todo.total, initial=todo.total - todo.left, unit="image", disable=None) as bar,
        ):
            for row in self._rows(todo, job):
                name = row["name"]
                if row["pages"]:
                    notes.add(paths[name], row["pages"], row["reading"] or None)
                if row["failed"]:
                    failed += 1
                    if journal.stamp(name) is not None:
                        journal.forget(name)
                    bar.write(f"box2mask: {paths.get(name, name)}: {row['failed']}; skipped", file=sys.stderr)
                    tell.write(json.dumps({"image": name, "reason": row["failed"]}) + "\n")
                    tell.flush()
                bar.update()
        destination.flush()
        destination.gather(journal)
        return Summary(todo.resumed, len(sources.images) - todo.resumed - failed, failed)

    def _rows(self, todo: ToDo, job: Job) -> Iterator[dict[str, Any]]:
        """A row of `stages.SUMMARY` for each image, as they are done."""
        if not todo.left:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        actors = sum(pool.actors or 1 for pool in self._pools.every)
        at_once = max(1, min(_MOST_OF_A_BLOCK, todo.left // (actors * _BLOCKS_OF_AN_ACTOR)))
        pools = self._pools
        # Of all of Ray's ways this one alone asks no process for the size of each block before the first is begun.
        rows = ray.data.from_blocks(_Blocks(todo, at_once))
        if not pools.reads:
            rows = self._apart(rows, read, job, READING_CPUS)
        if pools.detector is not None:
            boxes = replace(job, asked=Asked("detector", job.asked.score_threshold, "none"))
            rows = self._find(rows, self._opens[1], boxes, pools.detector, {"boxes_alone": True})
            job = replace(job, asked=Asked("prompts", agreement=job.asked.agreement))
        stages = {"reads": pools.reads, "writes": pools.writes}
        rows = self._find(rows, self._opens[0], job, pools.models, stages)
        if not pools.writes:
            rows = self._apart(rows, write, job, WRITING_CPUS)
        try:
            for block in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from block.to_pylist()
        except (ray.exceptions.RayError, ray.data.exceptions.RayDataUserCodeException) as error:
            raise ClusterError(_sentence(error)) from error

    def _apart(self, rows: Any, stage: Callable[..., Any], job: Job, cpus: float) -> Any:
        """A stage by processes without models."""
        return rows.map_batches(
            stage,
            fn_kwargs={"job": job},
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=self._pools.at_once),
            num_cpus=cpus,
        )

    def _find(self, rows: Any, opens: Open, job: Job, pool: Pool, stages: dict[str, bool]) -> Any:
        """stages: the options of `Find` besides."""
        with warnings.catch_warnings():
            # Of Ray 2.60, for `max_restarts`, which has no other place yet.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            return rows.map_batches(
                Find,
                fn_constructor_args=(opens, job),
                fn_constructor_kwargs=stages,
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    size=pool.actors, max_concurrent_calls_per_actor=_CALLS_AT_ONCE, enable_true_multi_threading=True
                ),
                num_gpus=pool.gpus or None,
                num_cpus=pool.cpus,
                max_restarts=_RESTARTS,
            )


@dataclass(frozen=True)
class _Blocks:
    """A run's images by so many. Ray goes over them twice, and each is made anew: one is here at a time."""

    todo: ToDo
    size: int

    def __iter__(self) -> Iterator[pa.Table]:
        tasks = iter(self.todo)
        while part := list(islice(tasks, self.size)):
            yield rows_of(part)


def _look(opens: Open) -> Known:
    """What models are there. Raises ClusterError."""
    try:
        predictor = opens()
    except ModelsError as error:
        raise ClusterError(str(error)) from error
    try:
        return known(predictor)
    finally:
        predictor.close()


def _ask(opens: Open, pool: Pool) -> Known:
    """The same, told by a process that has what an actor of the pool has, and ends then."""
    task = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus)(_look)
    try:
        return ray.get(task.remote(opens))
    except ray.exceptions.RayError as error:
        raise ClusterError(_sentence(error)) from error


def _sentence(error: BaseException) -> str:
    """What the user is to know of an error in another process: what our own code there said, or Ray's last line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    for line in reversed(lines):
        name, _, text = line.partition(": ")
        if name.endswith(_TOLD):
            return text
    return f"the cluster: {lines[-1]}" if lines else type(error).__name__
