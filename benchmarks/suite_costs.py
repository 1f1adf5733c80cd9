"""Where a first run of the suite spends its time: the seconds that its artifacts took to make, by notebook and kind.

    python benchmarks/suite_costs.py [RUN] [--store FOLDER] [--out FILE]

RUN is the folder of a `kard reproduce`, whose notebooks name what they needed; the store knows what each artifact took,
on one core, when it was made. What two notebooks need counts for the one with the lower number. A training that was
stopped and went on knows its last part alone, and is refused. The last line is JSON.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import nbformat
from line import tell

from kardlib import REPOSITORY
from kardlib.artifacts.provenance import provenance
from kardlib.artifacts.store import Store, read_manifest

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=REPOSITORY / "runs" / "embedded-world")
    parser.add_argument("--store", type=Path, help="default: the one that kard takes")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    store, seen, notebooks = Store(options.store), set[str](), {}
    for path in sorted(options.run.glob("[0-9]*.ipynb")):
        needed = nbformat.read(path, as_version=4).metadata["kard"]["artifacts"]
        made: defaultdict[str, list[float]] = defaultdict(list)
        for manifest in (read_manifest(store.root / name) for name in needed if name not in seen):
            if manifest["resumed"]:
                raise SystemExit("suite_costs: a training of this run was stopped and went on: take one that was not")
            made[manifest["kind"]].append(manifest["seconds"])
        notebooks[path.stem] = {kind: [len(took), round(sum(took))] for kind, took in made.items()}
        print(path.stem, notebooks[path.stem], flush=True)
        seen.update(needed)
    tell({"benchmark": "suite_costs", "provenance": provenance(), "notebooks": notebooks}, options.out)
