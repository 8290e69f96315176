"""Whole sweeps on real clips: what is recommended, how sure it is, and what it cost.

    MMSEARCH_CLIPS=clips python scripts/bench_sweeps.py --out runs/real

digit, letter, colour: what is said in the clips of GRID (one talker, sound and picture of the face), three datasets
over the same 760 clips. written: spoken with written digits, as `scripts/written_digits.py` pairs them.

Every sweep is `python -m mmsearch.sweep` with SPACE, 12 methods with their papers' settings first and three trained
fusions beside the post-hoc ones, TRIALS trials and SEEDS fresh seeds of every finalist. A second call goes on where the
first one stopped. A row: clips (development and test) and classes; the verdict; what is handed over, its gain over
plain joint training on select with the 95 % interval, its accuracy on test and that of joint training, read once; the
trials, joint epochs and core-hours of the whole sweep, and hours from its beginning to its end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from mmsearch.files import write_text
from mmsearch.recommend import card
from mmsearch.recommend.spending import spending
from mmsearch.recommend.words import percent_interval, points_interval
from mmsearch.search.journal import read_events

TRIALS, SEEDS = 36, 5

GRID = """\
name: grid-{label}
manifest: {folder}/grid/labels.csv
label: {label}
modalities:
  sound: {{column: path, rate: 16000, seconds: 3}}
  frames: {{column: path, frames: 8, size: 64}}
"""

SPACE = """\
epochs: {epochs}
batch_size: 32
encoders:
  {picture}: {{name: {picture}, size: 48}}
methods:
  joint:
  unimodal:
  unimodal_teacher: {{teacher: [ume, umt], weighting: lambda, init: scratch, level: prob}}
  uniform:
  ogm: {{ge: true, tensors: matrices}}
  opm:
  mla:
  mmpareto:
  inforeg: {{window_rule: fisher}}
  diagnose_relearn:
  qmf:
  lfm:
fusions:
  concat:
  gated:
  film:
  late_logits:
  temperature:
optimizers:
  sgd: {{lr: {{low: 0.02, high: 0.2, log: true}}, weight_decay: 0.0001}}
"""

EPOCHS = {"digit": 18, "letter": 18, "colour": 12, "written": 12}


def dataset(name: str, clips: Path, out: Path) -> Path:
    """The dataset YAML of a task, written if it is not there."""
    if name == "written":
        folder = out / "written-clips"
        if not (folder / "digits.yaml").exists():
            script = Path(__file__).with_name("written_digits.py")
            subprocess.run([sys.executable, str(script), str(folder)], check=True)
        return folder / "digits.yaml"
    path = out / f"{name}.yaml"
    write_text(path, GRID.format(label=name, folder=clips.absolute()))
    return path


def sweep(name: str, clips: Path, out: Path, trials: int, seeds: int) -> Path:
    """The run of a task, to its end."""
    space = out / f"{name}-space.yaml"
    write_text(space, SPACE.format(epochs=EPOCHS[name], picture="image" if name == "written" else "frames"))
    run = out / name
    if not (run / card.FILE).exists() or read_events(run)[-1].get("name") != "done":
        command = ["--dataset", str(dataset(name, clips, out)), "--space", str(space), "--out", str(run), "--resume"]
        asked = ["--trials", str(trials), "--seeds", str(seeds), "--allow-absolute", "--plain"]
        with (out / f"{name}.log").open("a") as log:
            subprocess.run([sys.executable, "-m", "mmsearch.sweep", *command, *asked], stdout=log, check=True)
    return run


def row(name: str, run: Path) -> str:
    """The line of a task."""
    found, events = card.read(run), read_events(run)
    decision = found["decision"]
    test = {f["label"]: percent_interval(f["test"]) for f in found["finalists"]}
    parts, cost = found["provenance"]["dataset"], found["provenance"]["run_cost"]
    of, used = parts["parts"], spending(events)
    hours = (events[-1]["time"] - events[0]["time"]) / 3600
    cells = [
        name,
        f"{sum(of.values()) - of['test']} + {of['test']}",
        f"{len(parts['classes'])}",
        decision["headline"],
        decision["label"],
        points_interval(decision["gain_over_joint"]),
        test[decision["label"]],
        test[decision["reference"]],
        f"{cost['trials']}",
        f"{cost['joint_epochs']:.0f}",
        f"{used.used:.2f}" if used else "",
        f"{hours:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(EPOCHS), default=list(EPOCHS), metavar="TASK")
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args()
    if "MMSEARCH_CLIPS" not in os.environ:
        print("error: MMSEARCH_CLIPS: the folder with grid/ and digits/ is needed", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    print(
        "| task | clips | classes | verdict | handed over | gain over joint, points | its test | joint on test "
        "| trials | joint epochs | core-hours | hours |\n|" + "---|" * 12,
        flush=True,
    )
    for name in args.only:
        run = sweep(name, Path(os.environ["MMSEARCH_CLIPS"]), args.out, args.trials, args.seeds)
        print(row(name, run), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
