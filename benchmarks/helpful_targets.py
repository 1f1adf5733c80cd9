"""Temperature of the student's likelihoods as a reranker's target, by what the reranker finds on development questions.

    python benchmarks/helpful_targets.py [--taus 0.1 0.3 1 3 10] [--world 1] [--seed 0] [--out FILE]
    python benchmarks/helpful_targets.py --dataset obqa --data-dir DIR --questions 100

KARD's target, the student's and both (`kard/helpful.py`) from the same candidates in as many steps. Gold and silver
Hits@k of a development world's test questions, or gold ones of a real dataset's development questions. No other number
is from these; the last line is JSON.
"""

import argparse
from pathlib import Path

from line import tell

from kardlib.artifacts.provenance import provenance
from kardlib.kard import helpful
from kardlib.kard.experiment import open_experiment
from kardlib.kard.prepare import find_silver, prepare
from kardlib.kard.rankings import rank, train_rerankers
from kardlib.report.evaluate import hits

KS = (1, 3, 10)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taus", nargs="+", type=float, default=[0.1, 0.3, 1, 3, 10])
    parser.add_argument("--world", type=int, default=1, help="its seed")
    parser.add_argument("--seed", type=int, default=0, help="of student and reranker")
    parser.add_argument("--dataset", default="world", help="a real one is asked at the scale real")
    parser.add_argument("--data-dir", help="its folder")
    parser.add_argument("--questions", type=int, help="reranker.questions, instead of the scale's")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    world, few = options.dataset == "world", {"reranker.questions": options.questions} if options.questions else {}
    where = ("embedded" if world else "real", options.dataset, options.data_dir)
    experiment = open_experiment(*where, {"world.seed": options.world} | few if world else few)
    prepared = prepare(experiment)
    variant = {"": (prepared, options.seed)}
    folders = {("retriever", 0.0): train_rerankers(experiment, variant)[""]}
    for tau in options.taus:
        helpful.TAU = {"student": tau, "both": tau}
        folders |= {(t, tau): helpful.train_helpful(experiment, variant, t)[""] for t in helpful.TAU}
    split = "test" if world else "dev"  # nobody wrote rationales of a real dataset's, which silver passages take
    relevant = {"gold": experiment.data.gold} | ({"silver": find_silver(prepared, split)} if world else {})
    ranked = rank(experiment, split, {key: (prepared, folder) for key, folder in folders.items()})
    questions = [q.id for q in experiment.data.splits[split] if world or experiment.data.gold.get(q.id)]
    rows = []
    for (target, tau), run in ranked.items():
        found = {f"{name}@{k}": round(float(hits(run, p, k, questions).mean()), 4)
                 for name, p in relevant.items() for k in KS}  # fmt: skip
        rows.append({"target": target, "tau": tau} | found)
        print(rows[-1], flush=True)
    described = {"benchmark": "helpful_targets", "dataset": options.dataset, "seed": options.seed} | few
    described |= {"world": options.world} if world else {"questions": len(questions)}
    tell(described | {"provenance": provenance(), "rows": rows}, options.out)
