"""`mmsearch predict`: what it takes, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmsearch.batch import Modality
from mmsearch.cli import main
from mmsearch.data.demo import DemoConfig, write_demo
from mmsearch.training import Predictor, resolve
from mmsearch.training.bundle import save_bundle

SETTINGS = {"sound": {"rate": 16000, "seconds": 1.0}, "frames": {"frames": 4, "size": 32, "codec": "raw"}}
CLASSES = ["yes", "no", "[maybe]"]


def made(folder: Path, decoding: dict, modalities: dict[str, Modality], **document: object) -> Path:
    """A model nobody has trained."""
    predictor = Predictor(resolve({"data": "x", **document}, modalities), modalities, CLASSES)
    save_bundle(folder, predictor, decoding, {})
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of sound and frames."""
    modalities = {
        "sound": Modality("sound", "sound", (16000,), 16000.0),
        "frames": Modality("frames", "frames", (4, 32, 32, 3)),
    }
    decoding = {u: {"column": "path", "inline": False, "settings": s} for u, s in SETTINGS.items()}
    return made(tmp_path_factory.mktemp("film"), decoding, modalities)


@pytest.fixture(scope="module")
def pose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a vector and an inline text."""
    modalities = {"pose": Modality("pose", "vector", (3,)), "caption": Modality("caption", "text", (40,))}
    decoding = {
        "pose": {"column": "pose_path", "inline": False, "settings": {}},
        "caption": {"column": "caption", "inline": True, "settings": {"bytes": 4096}},
    }
    return made(tmp_path_factory.mktemp("pose"), decoding, modalities)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with films, in a folder of their own, and files that are none."""
    folder = tmp_path_factory.mktemp("clips")
    write_demo(folder, DemoConfig.of("sound_dominates", n_clips=12, n_classes=3), workers=1)
    return folder


def predicted(capsys: pytest.CaptureFixture, *argv: object) -> tuple[int, list[dict]]:
    code = main(["predict", *map(str, argv), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_json_is_a_list_with_path_label_and_probabilities(film: Path, clips: Path, capsys) -> None:
    files = sorted((clips / "clips").glob("*.mp4"))[:3]
    code, found = predicted(capsys, film, *files)
    assert code == 0
    assert [p["path"] for p in found] == [str(f) for f in files]
    for p in found:
        assert list(p) == ["path", "label", "probabilities", "unimodal", "error"]
        assert p["error"] is None and list(p["probabilities"]) == CLASSES
        assert sum(p["probabilities"].values()) == pytest.approx(1)
        assert p["label"] == max(p["probabilities"], key=p["probabilities"].__getitem__)
        assert set(p["unimodal"]) == {"sound", "frames"}


def test_a_damaged_an_empty_and_a_false_file_are_lines_and_the_rest_is_predicted(
    film: Path, clips: Path, tmp_path: Path, capsys
) -> None:
    good = sorted((clips / "clips").glob("*.mp4"))[:2]
    content = good[0].read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(content[:600] + bytes(len(content) - 600))
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a film\n" * 99)
    bad = [tmp_path / f"{name}.mp4" for name in ("damaged", "empty", "text")]
    code, found = predicted(capsys, film, good[0], *bad, good[1])
    assert code == 1
    assert [p["label"] is not None for p in found] == [True, False, False, False, True]
    assert all(p["error"] for p in found[1:4])
    for style in ([], ["--plain"]):
        assert main(["predict", str(film), *map(str, [good[0], *bad, good[1]]), *style]) == 1
        printed = capsys.readouterr().out
        assert "Traceback" not in printed
        for path, p in zip(bad, found[1:4], strict=True):
            (line,) = [line for line in printed.splitlines() if str(path) in line]
            assert p["error"] in line


def test_plain_is_a_line_a_clip(film: Path, clips: Path, capsys) -> None:
    (file, *_) = sorted((clips / "clips").glob("*.mp4"))
    assert main(["predict", str(film), str(file), "--plain"]) == 0
    path, label, probability, sound, frames = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (path, label in CLASSES) == (str(file), True)
    assert 1 / 3 <= float(probability) <= 1
    assert all(cell.rpartition(" ")[0] in CLASSES for cell in (sound, frames))


def test_a_folder_is_its_clips_at_any_depth_and_a_manifest_its_rows(film: Path, clips: Path, capsys) -> None:
    code, found = predicted(capsys, film, clips)
    assert code == 0 and len(found) == 12, "the manifest and the YAML beside them are no clips"
    code, rows = predicted(capsys, film, clips / "manifest.csv")
    assert code == 0
    by_path = {p["path"]: p for p in found}
    assert {p["path"] for p in rows} == set(by_path)
    for p in rows:
        assert p["probabilities"] == pytest.approx(by_path[p["path"]]["probabilities"], abs=1e-6)


def test_a_manifest_gives_every_modality_its_column(pose: Path, tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "all.npy", np.eye(3, dtype=np.float32))
    (tmp_path / "m.csv").write_text(
        "caption,pose_path\na red ball,all.npy#0\nonly words,\n,all.npy#2\n,gone.npy\n,all.npy#7\n"
    )
    code, found = predicted(capsys, pose, tmp_path / "m.csv")
    assert code == 1
    assert [sorted(p["unimodal"]) for p in found] == [["caption", "pose"], ["caption"], ["pose"], [], []]
    assert [p["path"] for p in found][:2] == [f"{tmp_path}/all.npy#0", f"{tmp_path}/m.csv: row 3"]
    assert "no such file" in found[3]["error"] and "no row 7" in found[4]["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{pose}", "{film}/x.npy"], "a file alone is no clip for this model, which reads pose from column pose_path"),
        (["{pose}", "{clips}/manifest.csv"], "no column 'pose_path' (the files of modality pose)"),
        (["{clips}", "x.mp4"], "no model there (it has no config.json)"),
        (["{film}", "{pose}"], "no clip in this folder: looked for .aac"),
        (["{film}", "{out}/m.csv"], "/etc/passwd is absolute: make it relative"),
        (["{film}", "x.mp4", "--device", "cuda:99"], "--device: cuda:99"),
        (["{film}", "x.mp4", "--jsn"], "unknown argument '--jsn'; did you mean '--json'"),
        (["{film}"], "the following arguments are required: CLIPS"),
    ],
)
def test_a_wrong_request_is_one_line(
    film: Path, pose: Path, clips: Path, tmp_path: Path, capsys, arguments: list[str], message: str
) -> None:
    (tmp_path / "m.csv").write_text("path,label\n/etc/passwd,no\n")
    places = {"film": film, "pose": pose, "clips": clips, "out": tmp_path}
    argv = ["predict", *(a.format(**places) for a in arguments)]
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code
    assert code == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed


def test_a_run_s_folder_is_not_its_model(film: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "best").symlink_to(film)
    assert main(["predict", str(tmp_path), "x.mp4"]) == 2
    assert f"did you mean {tmp_path}/best?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99; this version of mmsearch reads up to 1"),
        ({"classes": ["a", "b"]}, "do not fit together"),
        ({"document": {}}, "do not fit together"),
    ],
)
def test_a_damaged_model_is_one_line(film: Path, tmp_path: Path, capsys, change: dict, message: str) -> None:
    (tmp_path / "model.safetensors").symlink_to(film / "model.safetensors")
    config = json.loads((film / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    assert main(["predict", str(tmp_path), "x.mp4"]) == 2
    assert message in capsys.readouterr().err
