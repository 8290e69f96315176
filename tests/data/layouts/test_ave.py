"""AVE as published and as extracted."""

from __future__ import annotations

import pickle

import numpy as np

from mmsearch.data import Dataset

CATEGORIES = ["Church bell", "Male speech, man speaking", "Bark"]
EVENTS = [(c, f"{c[:2].strip()}{i}_abcdef-{i}", "good", 0, 10 - i) for c in CATEGORIES for i in range(4)]


def line(event) -> str:
    return "&".join(map(str, event))


def lists(tree) -> None:
    header = "Category&VideoID&Quality&StartTime&EndTime"
    tree.text("Annotations.txt", [header, *map(line, EVENTS)])
    tree.text("trainSet.txt", [line(e) for e in EVENTS if e[1][-1] in "01"])
    tree.text("valSet.txt", [line(e) for e in EVENTS if e[1][-1] == "2"])
    tree.text("testSet.txt", [line(e) for e in EVENTS if e[1][-1] == "3"])


def test_the_published_films(tree, manifest):
    lists(tree)
    for _, video, *_ in EVENTS:
        tree.path(f"AVE/{video}.mp4").touch()
    written = manifest("ave", tree.root)
    assert "ave: 12 clips listed, 12 kept, 0 missing" in written.said
    assert "splits: train 6, val 3, test 3" in written.said
    assert written.yaml["classes"] == sorted(CATEGORIES)
    assert written.rows[0]["sound"] == written.rows[0]["frames"] == f"AVE/{EVENTS[0][1]}.mp4"
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 12


def test_extracted_spectrograms_and_frames(tree, manifest):
    lists(tree)
    for _, video, *_ in EVENTS:
        tree.path(f"Audio-1004-SE/{video}.pkl").write_bytes(pickle.dumps(np.zeros((257, 1004), np.float32)))
        tree.pictures(f"Image-01-FPS-SE/{video}")
    written = manifest("ave", tree.root)
    assert written.yaml["modalities"]["sound"]["kind"] == "series"
    assert "12 files rewritten" in written.said


def test_of_several_events_in_a_film_the_first_counts(tree, manifest):
    lists(tree)
    with (tree.root / "trainSet.txt").open("a") as file:
        file.write(f"Bark&{EVENTS[0][1]}&good&6&10\n")
    for _, video, *_ in EVENTS:
        tree.path(f"AVE/{video}.mp4").touch()
    written = manifest("ave", tree.root)
    assert "  listed more than once: 1, such as" in written.said
    assert written.column("label")[EVENTS[0][1]] == "Church bell"


def test_a_film_in_train_and_test_stays_in_test(tree, manifest):
    lists(tree)
    with (tree.root / "trainSet.txt").open("a") as file:
        file.write(line(EVENTS[3]) + "\n")
    for _, video, *_ in EVENTS:
        tree.path(f"AVE/{video}.mp4").touch()
    assert manifest("ave", tree.root).column("split")[EVENTS[3][1]] == "test"


def test_mistakes(tree, refused):
    assert "no trainSet.txt and no valSet.txt and no testSet.txt here" in refused("ave", tree.root)
    lists(tree)
    assert "no folder of sound here; looked for AVE/{name}.mp4" in refused("ave", tree.root)
    tree.path("AVE/x").touch()
    assert "nothing is left of 12 clips (ave): no sound: 12" in refused("ave", tree.root)
    tree.text("testSet.txt", ["Church bel&abc&good&0&10"])
    assert "testSet.txt:1: 'Church bel' is not among the classes" in refused("ave", tree.root)
    tree.text("testSet.txt", ["Church bell,abc,good,0,10"])
    assert "testSet.txt:1: needs Category&VideoID&Quality&StartTime&EndTime" in refused("ave", tree.root)
