from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from mmsearch.batch import Modality
from mmsearch.errors import MMSearchError
from mmsearch.methods import METHODS
from mmsearch.search.space import Space, is_ensemble
from mmsearch.training import trial_id

MODALITIES = {
    "voice": Modality("voice", "sound", (16000,), 16000.0),
    "frames": Modality("frames", "frames", (4, 32, 32, 3), 2.0),
}
SHIPPED = Path(__file__).parents[2] / "search_spaces"


def load(tmp_path: Path, text: str) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return Space.load(path, MODALITIES, data="d1", seed=5)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_spaces_suggest_every_method(path: Path) -> None:
    space = Space.load(path, MODALITIES, data="d1")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for method in space.methods:
        for _ in range(5):
            document, params = space.suggest(study.ask(), method)
            again, _ = space.suggest(optuna.trial.FixedTrial(params), method)
            assert again == document
            assert document["method"]["name"] == method


def test_default_space_has_everything_that_is_registered() -> None:
    space = Space.load(SHIPPED / "default.yaml", MODALITIES, data="d1")
    assert sorted(space.methods) == METHODS.names()


def test_papers_space_begins_with_their_protocol() -> None:
    space = Space.load(SHIPPED / "papers.yaml", MODALITIES, data="d1")
    first = space.paper_documents("joint")[0]
    assert first["optimizer"] == {"name": "sgd", "lr": 0.001, "weight_decay": 0.0001, "momentum": 0.9}
    assert (first["epochs"], first["batch_size"], first["fusion"]["name"]) == (100, 64, "concat")
    sound, frames = first["encoders"]["voice"], first["encoders"]["frames"]
    assert sound["backbone"] == frames["backbone"] == "resnet18" and sound["front"] == "ogm_code"
    assert (frames["train_frames"], frames["eval_frames"], frames["size"]) == (3, 3, 224)


def test_conditional_knobs_and_names(tmp_path: Path) -> None:
    space = load(tmp_path, "methods: {unimodal_teacher: }\nfusions: {concat: }\noptimizers: {sgd: , adamw: }\n")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        document, params = space.suggest(study.ask(), "unimodal_teacher")
        seen |= set(params)
        assert ("unimodal_teacher.level" in params) == (document["method"]["teacher"] in ("ume", "auto"))
        assert ("fusion" in params) == (document["method"]["teacher"] in ("umt", "auto"))
        assert ("adamw.lr" in params) == (params.get("optimizer") == "adamw")
        assert set(document["teachers"]) == set(MODALITIES)
    assert {"fusion", "optimizer", "sgd.lr", "adamw.lr", "unimodal_teacher.teacher"} <= seen


def test_paper_points(tmp_path: Path) -> None:
    space = load(tmp_path, "methods: {ogm: , unimodal_teacher: }\nfusions: {sum: , concat: }\noptimizers: {sgd: }\n")
    ogm = space.paper_points("ogm")
    assert [p["fusion"] for p in ogm] == ["sum", "concat"]
    assert all(p["ogm.alpha"] == 0.3 for p in ogm)
    assert [p["unimodal.modality"] for p in space.paper_points("unimodal")] == ["voice", "frames"]
    teachers = [(p["unimodal_teacher.teacher"], p.get("fusion")) for p in space.paper_points("unimodal_teacher")]
    assert teachers == [("umt", "sum"), ("umt", "concat"), ("ume", None), ("auto", "sum"), ("auto", "concat")]


def test_teachers_are_the_paper_trials_of_unimodal(tmp_path: Path) -> None:
    space = load(tmp_path, "optimizers: {sgd: {lr: {low: 0.1, high: 0.4}}}\n")
    points = [space.suggest(optuna.trial.FixedTrial(p), "unimodal")[0] for p in space.paper_points("unimodal")]
    assert points == [space.teacher("voice"), space.teacher("frames")]
    assert points[0]["optimizer"]["lr"] == 0.1
    point = space.paper_points("unimodal_teacher")[0]
    document, _ = space.suggest(optuna.trial.FixedTrial(point), "unimodal_teacher")
    assert document["teachers"]["voice"] == trial_id(points[0])
    moved = space.moved(document, seed=9, fold=2)
    assert moved["seed"] == 9 and moved["teachers"]["voice"] == trial_id(space.teacher("voice", seed=9, fold=2))


def test_baselines_are_always_there(tmp_path: Path) -> None:
    space = load(tmp_path, "methods: {ogm: }\n")
    assert list(space.methods) == ["ogm", "joint", "unimodal", "unimodal_teacher"]
    for point in space.paper_points("unimodal_teacher"):
        assert is_ensemble(space.suggest(optuna.trial.FixedTrial(point), "unimodal_teacher")[0])


def test_overrides(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        "methods:\n  ogm:\n    alpha: {low: 0.5, high: 0.9, log: false}\n    ge: false\n    tensors: [conv]\n"
        "    end: 0.5\nbatch_size: 8\nepochs: 4\nencoders:\n  voice: {name: spectrogram, n_mels: 24}\n",
    )
    point = space.paper_points("ogm")[0]
    assert point["ogm.alpha"] == 0.5 and "ogm.ge" not in point and point["ogm.tensors"] == "conv"
    document, _ = space.suggest(optuna.trial.FixedTrial(point), "ogm")
    assert document["method"]["ge"] is False and document["batch_size"] == 8 and document["epochs"] == 4
    assert document["encoders"]["voice"]["n_mels"] == 24


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("methods:\n  joint:\n  ogmm:\n", 3, "did you mean 'ogm'"),
        ("methods:\n  ogm:\n    alfa: 1\n", 3, "did you mean 'alpha'"),
        ("methods:\n  ogm:\n    alpha: 99\n", 3, "allowed: 0.05 to 3"),
        ("methods:\n  ogm:\n    alpha: {low: 0.9, high: 0.1}\n", 3, "low must be below high"),
        ("methods:\n  ogm:\n    alpha: {lo: 0.9}\n", 3, "did you mean 'low'"),
        ("methods:\n  ogm:\n    tensors: {low: 1, high: 2}\n", 3, "has no range"),
        ("methods:\n  ogm:\n    tensors: [matrixes]\n", 3, "did you mean 'matrices'"),
        ("methods: [joint]\n", 1, "one `name:` a line"),
        ("epochs: 3\nfusion:\n  concat:\n", 2, "did you mean 'fusions'"),
        ("epochs: none\n", 1, "epochs must be a whole number"),
        ("epochs: [10, 20]\n", 1, "epochs is the same in every trial"),
        ("epochs: 3\nsampler: balanced\n", 2, "did you mean 'class_balanced'"),
        ("encoders:\n  vioce: spectrogram\n", 2, "did you mean 'voice'"),
        ("encoders:\n  frames: spectrogram\n", 2, "reads sound"),
        ("epochs: 3\n  bad: [\n", 2, ""),
    ],
)
def test_errors_name_file_line_and_nearest(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(MMSearchError) as error:
        load(tmp_path, text)
    assert f"space.yaml:{line}" in str(error.value)
    assert message in str(error.value)


def test_the_sampler_is_a_setting_of_every_trial_and_teacher(tmp_path: Path) -> None:
    space = load(tmp_path, "sampler: class_balanced\n")
    documents = [space.teacher("voice"), *space.paper_documents("joint"), *space.paper_documents("unimodal_teacher")]
    assert all(d["sampler"] == {"name": "class_balanced"} for d in documents)


def test_post_hoc_fusions_are_evaluated_in_every_trial_and_trained_in_none(tmp_path: Path) -> None:
    space = load(tmp_path, "fusions:\n  concat:\n  decision:\n  stacking:\n")
    documents = space.paper_documents("joint")
    assert {d["fusion"]["name"] for d in documents} == {"concat"}
    assert all(d["held"] for d in documents) and space.teacher("voice")["held"]
    labels = {(d["name"], d.get("rule")) for d in documents[0]["post_hoc"]}
    assert ("stacking", None) in labels and {("decision", r) for r in ("mean", "vote", "cascade")} <= labels


def test_a_method_that_goes_with_no_fusion_of_the_space_is_left_out_or_refused_by_line(tmp_path: Path) -> None:
    assert "greedy" not in load(tmp_path, "fusions:\n  concat:\n").methods
    with pytest.raises(MMSearchError, match=r"space.yaml:2: method greedy"):
        load(tmp_path, "methods:\n  greedy:\nfusions:\n  concat:\n")


def test_a_space_of_post_hoc_fusions_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MMSearchError, match="add one such as concat"):
        load(tmp_path, "fusions:\n  stacking:\n")
