"""`box2mask run`: detect and segment folders of images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.commands.arguments import chosen_settings, failed, typed
from app.commands.list_options import list_options
from app.commands.mask_options import corners, mask_params
from app.commands.run_options import FORMATS, RunError, add_run, check, check_places
from app.commands.run_plan import Plan, make_plan
from app.commands.tile_options import tile_params

if TYPE_CHECKING:
    from app.folders.batch import Summary
    from app.folders.destination import Destination
    from app.folders.journal import Journal
    from app.folders.outputs import Outputs
    from app.folders.prompts import BoxPrompts
    from app.folders.sources import Sources
    from app.results.whole_file import Make
    from app.settings import Settings
    from models.images.notes import PhotoNotes

    # Brings every image's result into the journal, and its own files to where they belong.
    Walk = Callable[[Journal, Outputs, PhotoNotes], Summary]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    add_run(commands).set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from app.folders.sources import SourceError, find_images
    from app.folders.storage import StorageError, place
    from app.settings import SettingsError

    try:
        out = place(args.out)
        sources = find_images([place(one) for one in args.images], recursive=args.recursive, leave_out=out)
        settings = chosen_settings(args)
        check(args)
        check_places(args, sources, out, settings.image_urls)
    except (SourceError, StorageError, SettingsError, RunError) as error:  # told before the models' libraries are here
        return failed(error)
    for note in sources.notes:
        print(f"box2mask: {note}", file=sys.stderr)

    from app.engine.loading import EXPLAINED
    from app.folders.destination import Destination
    from app.folders.journal import JournalError
    from app.folders.prompts import PromptsError, read_prompts
    from app.prediction import PredictorError

    try:
        prompts = None
        if args.prompts is not None:
            prompts = read_prompts(
                args.prompts,
                sources.images,
                args.score_threshold,
                options=list_options(args),
                annotation_file=args.prompts_images,
                skip_bad=args.skip_bad,
            )
            for note in prompts.notes:
                print(f"box2mask: {note}", file=sys.stderr)
        if args.prompts is not None or args.everything:
            settings = settings.model_copy(update={"detector": "none"})
        if args.masks == "detector":
            settings = settings.model_copy(update={"segmenter": "none"})
        run = _here if args.ray is None else _on_ray
        return run(args, settings, mask_params(args) | tile_params(args), sources, prompts, Destination(out))
    except (PromptsError, JournalError, PredictorError, RunError, *EXPLAINED) as error:
        return failed(error)


def _here(
    args: argparse.Namespace,
    settings: Settings,
    params: dict[str, Any],
    sources: Sources,
    prompts: BoxPrompts | None,
    destination: Destination,
) -> int:
    """In this process, or by the service at --url."""
    from app.engine.loading import choose
    from app.folders.batch import images_in_networks, process
    from app.predictor import open_predictor

    choice = choose(settings, typed=typed(args)) if args.url is None else None
    with open_predictor(settings, args.url, choice, params, for_folders=True) as predictor:
        plan = make_plan(args, sources, prompts, predictor)
        predict, at_once = plan.asked.predict(predictor), images_in_networks(predictor)

        def walk(journal: Journal, outputs: Outputs, notes: PhotoNotes) -> Summary:
            return process(sources, predict, journal, outputs, prompts, notes, in_networks=at_once)

        return _carry_out(args, sources, plan, destination, walk)


def _on_ray(
    args: argparse.Namespace,
    settings: Settings,
    params: dict[str, Any],
    sources: Sources,
    prompts: BoxPrompts | None,
    destination: Destination,
) -> int:
    """By processes with the models on a Ray cluster."""
    from app.cluster.folders.connecting import ClusterError, connected

    try:
        with connected(args.ray, _pools(args)) as pools:
            from app.cluster.folders import texts
            from app.cluster.folders.folder_run import FolderRun
            from app.cluster.folders.models import OpenModels

            run = FolderRun(OpenModels(settings, typed(args), params), pools)
            plan = make_plan(args, sources, prompts, run.models)

            def walk(journal: Journal, outputs: Outputs, notes: PhotoNotes) -> Summary:
                return run.process(sources, plan.asked, journal, outputs, prompts, notes, destination)

            return _carry_out(args, sources, plan, destination, walk, texts.make)
    except ClusterError as error:
        return failed(error)


def _carry_out(
    args: argparse.Namespace,
    sources: Sources,
    plan: Plan,
    destination: Destination,
    walk: Walk,
    make: Make | None = None,
) -> int:
    """From the journal's first line to the last file, and what is said of it. make: see `Outputs.write_all`."""
    from importlib.metadata import version

    from app.folders import outputs
    from app.folders.journal import FAILED
    from app.folders.order import ByUncertainty
    from models.images.notes import PhotoNotes

    header = {"box2mask": version("box2mask"), "settings": plan.settings}
    journal = destination.open_journal(header, restart=args.restart)
    try:
        # What an earlier run has written here is kept in step, asked for again or not.
        formats = tuple(one for one in FORMATS if one in plan.formats or destination.has(outputs.NAMES[one]))
        writing = outputs.Outputs(
            destination.folder,
            formats,
            sources.here,
            args.image_url or sources.address_from(destination.remote),
            plan.model_version,
            args.page,
            corners(args),
            destination.remote,
        )
        notes = PhotoNotes(args.page)
        summary = walk(journal, writing, notes)
        order = ByUncertainty(journal) if args.order is not None else None
        written = writing.write_all(journal, plan.class_names, order, make)
        destination.finish(journal)
        objects = sum(len(result.objects) for result in journal)
        again = f", {summary.resumed} of them from before" if summary.resumed else ""
        print(f"{len(journal)} images{again}, {objects} objects: {', '.join(written)} in {args.out}")
        for note in notes.lines():
            print(f"box2mask: {note}", file=sys.stderr)
    finally:
        destination.close(journal)
    if summary.failed:
        print(
            f"box2mask: {summary.failed} of {len(sources.images)} images could not be used; "
            f"{destination.place / FAILED} says why; the same command tries them again",
            file=sys.stderr,
        )
    return int(summary.failed > 0)


def _pools(args: argparse.Namespace) -> Any:
    from app.cluster.folders.connecting import Pool, Pools

    detector = None
    if args.detector_actors is not None:
        detector = Pool(args.detector_actors, args.detector_gpus, args.detector_cpus)
    models = Pool(args.actors, args.actor_gpus, args.actor_cpus)
    return Pools(models, detector, separate_io=bool(args.separate_io))
