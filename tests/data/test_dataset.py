"""Dataset YAML and manifest: what is read, and one clear message for every mistake."""

from __future__ import annotations

import codecs

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsearch.data import Dataset
from mmsearch.errors import MMSearchError

FILES = ("0", "1", "2", "3")


def rows(**columns):
    base = {"clip_id": ["c0", "c1", "c2", "c3"], "path": list(FILES), "label": list("aabb")} | columns
    return [dict(zip(base, cells, strict=True)) for cells in zip(*base.values(), strict=True)]


def refused(path) -> str:
    with pytest.raises(MMSearchError) as error:
        Dataset.load(path)
    return str(error.value)


def test_only_name_and_manifest_are_needed(dataset_file):
    dataset = Dataset.load(dataset_file(rows(), files=FILES))
    assert (dataset.name, dataset.label_column, dataset.classes) == ("test", "label", ["a", "b"])
    assert {name: config.kind for name, config in dataset.modalities.items()} == {"sound": "sound", "frames": "frames"}
    assert dataset.modalities["sound"].settings == {"rate": 16000, "seconds": 10.0}
    assert [clip.label for clip in dataset.clips] == [0, 0, 1, 1]
    assert dataset.clips[2].paths["sound"].read_bytes() == b"2"
    assert dataset.clips[0].row == 2, "the header is row 1 of a CSV file"


def test_everything_given(dataset_file):
    table = rows(digit=[10, 9, 10, 9], depth=["0", "", "2", "3"], split=["test", "test", "train", "val"])
    yaml = (
        "label: digit\nclasses: [10, 9]\nmodalities:\n  sound: {rate: 8000, seconds: 2}\n"
        "  depth: {kind: frames, column: depth, frames: 3, size: 32}\n"
    )
    dataset = Dataset.load(dataset_file(table, yaml, FILES))
    assert dataset.classes == ["10", "9"]
    assert dataset.modalities["depth"].settings == {"frames": 3, "size": 32, "codec": "raw", "quality": 90}
    assert "depth" not in dataset.clips[1].paths, "an empty cell is a missing modality"
    assert [clip.split for clip in dataset.clips] == ["test", "test", "train", "val"]


def test_numbers_are_ordered_as_numbers(dataset_file):
    assert Dataset.load(dataset_file(rows(label=[10, 9, 10, 9]), files=FILES)).classes == ["9", "10"]


def test_bom_crlf_and_blank_lines_simply_work(dataset_file, tmp_path):
    path = dataset_file(None, files=FILES)
    text = "clip_id,path,label\r\nc0,0,a\r\nc1,1,a\r\n\r\nc2,2,b\r\nc3, 3 ,b\r\n"
    (tmp_path / "manifest.csv").write_bytes(codecs.BOM_UTF8 + text.encode())
    assert [clip.row for clip in Dataset.load(path).clips] == [2, 3, 5, 6]


def test_parquet(dataset_file, tmp_path):
    table = pa.table(
        {"clip_id": [0, 1, 2, 3], "path": list(FILES), "label": [1.0, 1.0, 2.0, 2.0], "end": [1.5, None, 2.0, 3.0]}
    )
    pq.write_table(table, tmp_path / "m.parquet")
    dataset = Dataset.load(dataset_file(yaml="name: p\nmanifest: m.parquet\n", files=FILES))
    assert dataset.classes == ["1", "2"]
    assert [clip.end for clip in dataset.clips] == [1.5, None, 2.0, 3.0]


def test_links_are_followed(dataset_file, tmp_path):
    path = dataset_file(rows(), files=FILES[:3])
    (tmp_path / "elsewhere").write_bytes(b"x")
    (tmp_path / "3").symlink_to(tmp_path / "elsewhere")
    assert len(Dataset.load(path).clips) == 4


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("lable: digit\n", [":3:", "'lable'", "'label'"]),
        ("modalities:\n  sound:\n    rat: 8000\n", [":5:", "'rat'", "'rate'"]),
        ("modalities:\n  sound:\n    rate: fast\n", [":5:", "rate must be a number", "'fast'"]),
        ("modalities:\n  sound: {seconds: .nan}\n", [":4:", "seconds is nan"]),
        ("modalities:\n  sound: {rate: true}\n", [":4:", "rate must be a number", "True"]),
        ("modalities:\n  x: {kind: sond}\n", [":4:", "unknown kind 'sond'", "'sound'"]),
        ("modalities:\n  touch:\n", [":4:", "unknown kind 'touch'"]),
        ("modalities:\n  frames: {size: 16.5}\n", [":4:", "size must be a whole number"]),
        ("modalities:\n  frames: {codec: jpg}\n", [":4:", "codec is 'jpg'", "'jpeg'"]),
        ("modalities:\n  words: {kind: text, inline: 1}\n", [":4:", "inline is 1"]),
        ("modalities:\n  words: {kind: text, rate: 1}\n", [":4:", "unknown key 'rate'", "bytes"]),
        ("root: nowhere\n", [":3:", "nowhere is not a folder"]),
        ("decoder: pyva\n", [":3:", "unknown decoder 'pyva'", "'pyav'"]),
        ("modalities:\n  a/b: {kind: sound}\n", [":4:", "'a/b'"]),
        ("modalities: [sound]\n", [":3:", "modalities"]),
        ("modalities:\n  sound: 3\n", [":4:", "mapping"]),
        ("label: [a]\n", [":3:", "label must be a text"]),
        ("label: digit\nlabel: b\n", [":4:", "label is given twice"]),
        ("label: {a\n", [":4:"]),
        ("label: !!python/object:os.system x\n", [":3:", "constructor"]),
        ("classes: [a, a, b]\n", [":3:", "'a' is there twice"]),
        ("classes: [a]\n", ["row 4", "'b' is not among the classes"]),
        ("label: digit\n", ["manifest.csv", "no column 'digit'", "label"]),
        ("modalities:\n  v: {kind: vector, column: pat}\n", ["no column 'pat'", "modality v", "'path'"]),
    ],
)
def test_yaml_mistakes_name_file_and_line(dataset_file, yaml, said):
    message = refused(dataset_file(rows(), yaml, FILES))
    assert "\n" not in message
    assert all(part in message for part in said), message


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("", "needs the key 'name'"),
        ("- a\n", "key: value"),
        ("name: x\n", "needs the key 'manifest'"),
        ("name: \x01\n", "yaml"),
    ],
)
def test_not_a_dataset(tmp_path, yaml, said):
    path = tmp_path / "d.yaml"
    path.write_text(yaml)
    assert said in refused(path)


def test_files_that_are_not_there(tmp_path):
    assert "cannot be read" in refused(tmp_path / "none.yaml")
    (tmp_path / "d.yaml").write_text("name: x\nmanifest: none.csv\n")
    assert "none.csv" in refused(tmp_path / "d.yaml")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"clip_id": ["c0", "c1", "c0", "c3"]}, ["row 4", "'c0'", "row 2"]),
        ({"clip_id": ["c0", "", "c2", "c3"]}, ["row 3", "clip_id is empty"]),
        ({"label": ["a", "a", "", "b"]}, ["row 4", "label is empty"]),
        ({"label": list("aaab")}, ["row 5", "class 'b'", "at least 2"]),
        ({"label": list("aaaa")}, ["single class"]),
        ({"path": ["0", "1", "gone", "also"]}, ["row 4", "gone", "1 more row"]),
        ({"path": ["0", "1", "", "3"]}, ["row 4", "path is empty"]),
        ({"path": ["0", "1", ".", "3"]}, ["row 4", "is a folder"]),
        ({"path": ["0", "1", "x" * 300, "3"]}, ["row 4", "File name too long"]),
        ({"split": ["train", "test", "trian", "val"]}, ["row 4", "unknown split 'trian'", "'train'"]),
        ({"split": ["test"] * 4}, ["none is left for train"]),
        ({"split": ["val", "test", "val", "test"]}, ["train split is empty"]),
        ({"split": ["train", "train", "test", "test"]}, ["class 'b' has no clip outside the test split"]),
        ({"start": ["0", "x", "0", "0"]}, ["row 3", "start is 'x'"]),
        ({"start": ["0", "inf", "0", "0"]}, ["row 3", "start is 'inf'"]),
        ({"start": ["0", "2", "0", "0"], "end": ["1", "2", "", ""]}, ["row 3", "end 2 s is not after start 2 s"]),
        ({"group": ["g", "", "g", "g"]}, ["row 3", "group is empty"]),
    ],
)
def test_manifest_mistakes_name_the_row(dataset_file, columns, said):
    message = refused(dataset_file(rows(**columns), files=FILES))
    assert "manifest.csv" in message and all(part in message for part in said), message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("clip_id,path,label\n", "no rows"),
        ("clip_id,label\nc0,a\n", "no column 'path'"),
        ("path,label\n0,a\n", "no column 'clip_id'"),
        ("clip_id,path,path,label\n0,0,0,a\n", "'path' is there twice"),
        ("clip_id,path,label\nc0,0,a,b\n", "row 2: 4 cells"),
        ("clip_id,path,label\nc0,0\n", "row 2: 2 cells"),
    ],
)
def test_broken_csv(dataset_file, text, said):
    assert said in refused(dataset_file(text, files=FILES))


def test_not_text_and_not_parquet(dataset_file, tmp_path):
    path = dataset_file(None, files=FILES)
    (tmp_path / "manifest.csv").write_bytes("clip_id,path,label\né,0,a\n".encode("latin-1"))
    assert "UTF-8" in refused(path)
    (tmp_path / "m.parquet").write_bytes(b"nothing")
    assert "not a Parquet file" in refused(dataset_file(yaml="name: p\nmanifest: m.parquet\n"))


def test_a_listed_class_without_clips_keeps_its_place(tmp_path, capsys):
    from mmsearch.cli import main

    (tmp_path / "x.mp4").touch()
    rows = "".join(f"{i},x.mp4,{label}\n" for i, label in enumerate("acacacac"))
    (tmp_path / "m.csv").write_text("clip_id,path,label\n" + rows)
    (tmp_path / "d.yaml").write_text("name: x\nmanifest: m.csv\nclasses: [a, b, c]\n")
    assert {clip.label for clip in Dataset.load(tmp_path / "d.yaml").clips} == {0, 2}
    assert main(["validate", str(tmp_path / "d.yaml")]) == 0
    assert "classes without a clip here (1): b" in capsys.readouterr().out
