"""UCF-101 as frames with flow, and as films."""

from __future__ import annotations

from mmsearch.data import Dataset
from mmsearch.data.decode import decode_clip

CLASSES = ["ApplyEyeMakeup", "Archery", "HandstandPushups"]
CLIPS = [f"{c}/v_{c}_g{g:02d}_c{i:02d}.avi" for c in CLASSES for g in (1, 8, 9) for i in (1, 2)]
TRAIN, TEST = [c for c in CLIPS if "_g01_" not in c], [c for c in CLIPS if "_g01_" in c]


def lists(tree, folder: str = "ucfTrainTestlist/") -> None:
    tree.text(f"{folder}classInd.txt", [f"{i} {c}" for i, c in enumerate(CLASSES, start=1)])
    tree.text(f"{folder}trainlist01.txt", [f"{c} {1 + CLASSES.index(c.split('/')[0])}" for c in TRAIN])
    tree.text(f"{folder}testlist01.txt", TEST)


def name(clip: str) -> str:
    return clip.split("/")[1].removesuffix(".avi")


def test_frames_and_two_folders_of_flow(tree, manifest):
    lists(tree)
    for clip in CLIPS:
        tree.pictures(f"jpegs_256/{name(clip)}", ("frame000001.jpg", "frame000002.jpg"))
        for part in "uv":
            tree.pictures(f"tvl1_flow/{part}/{name(clip)}", ("frame000001.jpg",))
    tree.picture(f"tvl1_flow/v/{name(CLIPS[0])}/frame000002.jpg")
    (tree.root / "tvl1_flow" / "u" / name(CLIPS[1]) / "frame000001.jpg").unlink()
    written = manifest("ucf101", tree.root)
    assert "ucf101: 18 clips listed, 16 kept, 2 missing" in written.said
    assert "  no flow: 1" in written.said
    assert "  u and v of the flow have different numbers of pictures: 1" in written.said
    assert "splits: train 12, test 4" in written.said
    assert written.yaml["classes"] == CLASSES
    row = written.rows[0]
    assert row["flow"] == f"tvl1_flow/{{uv}}/{row['clip_id']}" and row["group"] == "ApplyEyeMakeup_g08"
    dataset = Dataset.load(written.folder / "dataset.yaml")
    stored = decode_clip(dataset.sources(dataset.clips[0]))
    assert stored["flow"].shape == (6, 224, 224, 2) and stored["frames"].shape == (6, 224, 224, 3)


def test_the_folders_of_balancebenchmark(tree, manifest):
    lists(tree, "")
    for clip in CLIPS:
        tree.pictures(f"rgb6/{name(clip)}", ("frame_00001.jpg",))
        tree.pictures(f"flow_u/{name(clip)}")
        tree.pictures(f"flow_v/{name(clip)}")
    written = manifest("ucf101", tree.root, "--frames", "rgb6/{name}")
    assert len(written.rows) == 18 and written.rows[0]["flow"].startswith("flow_{uv}/v_")


def test_films_alone(tree, manifest):
    lists(tree)
    for clip in CLIPS:
        tree.path(f"UCF-101/{clip}").touch()
    written = manifest("ucf101", tree.root)
    assert written.rows[0]["flow"] == written.rows[0]["frames"] == f"UCF-101/{TRAIN[0]}"
    assert "mmsearch[flow]" in (written.folder / "dataset.yaml").read_text()


def test_another_fold(tree, manifest, refused):
    lists(tree)
    assert "no trainlist02.txt and no testlist02.txt here" in refused("ucf101", tree.root, "--fold", "2")
    assert "allowed: 1 to 3" in refused("ucf101", tree.root, "--fold", "4")


def test_mistakes(tree, refused):
    assert "no classInd.txt" in refused("ucf101", tree.root)
    lists(tree)
    assert "no folder of frames here; looked for visual/{name}" in refused("ucf101", tree.root)
    tree.path("visual/x").touch()
    tree.path("flow/u/x").touch()
    assert "nothing is left of 18 clips (ucf101): no frames: 18" in refused("ucf101", tree.root)
    tree.text("ucfTrainTestlist/testlist01.txt", ["Archry/v_Archery_g01_c01.avi"])
    assert "testlist01.txt:1: 'Archry' is not among the classes; did you mean 'Archery'" in refused("ucf101", tree.root)
    tree.text("ucfTrainTestlist/testlist01.txt", ["v_Archery_g01_c01.avi"])
    assert "testlist01.txt:1: needs Class/clip.avi" in refused("ucf101", tree.root)
