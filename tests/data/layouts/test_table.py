"""Someone's own CSV."""

from __future__ import annotations

import pytest

from mmsearch.data import Dataset

FILES = [f"clips/{i}.mp4" for i in range(6)]


@pytest.fixture
def table(tree):
    """Writes six films and a table of them."""
    for file in FILES:
        tree.path(file).touch()

    def write(text: str):
        return tree.text("my.csv", text)

    return write


def rows(separator: str = ",", end: str = "\n", header: str = "") -> str:
    lines = [separator.join((file, "cat" if i % 2 else "dog")) for i, file in enumerate(FILES)]
    return header + "".join(line + end for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        rows(),
        rows(header="path,label\n"),
        rows(";", "\r\n", "\ufefffile;class\r\n"),
        rows("\t", header="Filename\tCategory\n"),
        rows("|"),
        rows(" "),
        rows().replace(".mp4", ""),
        rows(header="video,emotion\n").replace("clips/", '"clips/').replace(".mp4", '.mp4"'),
        rows().replace("/", "\\"),
    ],
    ids=["plain", "header", "semicolon", "tab", "bar", "space", "no-ending", "quotes", "backslash"],
)
def test_separators_headers_and_paths_as_people_write_them(text, table, manifest):
    written = manifest("csv", table(text))
    assert "my: 6 clips listed, 6 kept, 0 missing" in written.said
    assert written.column("path") == {f"clips/{i}": file for i, file in enumerate(FILES)}
    assert list(written.yaml["modalities"]) == ["sound", "frames"]
    assert written.yaml["classes"] == ["cat", "dog"]
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 6


def test_all_columns_by_their_usual_names(table, manifest):
    lines = [
        f"c{i},{file},{'ab'[i % 2]},{('train', 'Test')[i // 4]},s{i // 2},{i},{i + 2.5}" for i, file in enumerate(FILES)
    ]
    written = manifest("csv", table("\n".join(["clip_id,path,label,split,speaker,start,end", *lines])))
    assert written.rows[5] == {
        "clip_id": "c5", "label": "b", "split": "test", "group": "s2", "start": "5", "end": "7.5", "path": FILES[5],
    }  # fmt: skip
    clip = Dataset.load(written.folder / "dataset.yaml").clips[5]
    assert (clip.start, clip.end, clip.group) == (5.0, 7.5, "s2")


def test_columns_given_by_name_or_number(table, manifest):
    lines = [f"{'ab'[i % 2]},x,{file}" for i, file in enumerate(FILES)]
    written = manifest("csv", table("\n".join(lines)), "--path", "3", "--label", "1")
    assert written.rows[0]["path"] == FILES[0] and written.rows[0]["label"] == "a"
    named = manifest("csv", table("\n".join(["was,n,wo", *lines])), "--path", "wo", "--label", "was", out="named")
    assert named.rows == written.rows


def test_a_column_a_modality(tree, table, manifest):
    for i in range(6):
        tree.sound(f"wav/{i}.wav")
    lines = [f"wav/{i}.wav,{file},saying {i},{'ab'[i % 2]}" for i, file in enumerate(FILES)]
    path = table("\n".join(["a,v,t,label", *lines]))
    written = manifest("csv", path, "--sound", "a", "--frames", "v", "--text", "t")
    assert {m: c["column"] for m, c in written.yaml["modalities"].items()} == {
        m: m for m in ("sound", "frames", "text")
    }
    assert written.rows[0]["text"] == "saying 0"
    assert Dataset.load(written.folder / "dataset.yaml").clips[0].texts == {"text": "saying 0"}


def test_a_clip_without_a_speaker_is_a_group_of_its_own(table, manifest):
    lines = [f"{file},{'ab'[i % 2]},{'s' if i < 4 else ''}" for i, file in enumerate(FILES)]
    written = manifest("csv", table("\n".join(["path,label,speaker", *lines])))
    assert list(written.column("group").values()) == ["s"] * 4 + ["clips/4", "clips/5"]


def test_several_segments_of_one_film(table, manifest):
    lines = [f"clips/0.mp4,{'ab'[i % 2]},{i},{i + 1}" for i in range(6)]
    assert len(manifest("csv", table("\n".join(["path,label,start,end", *lines]))).rows) == 6


def test_media_elsewhere_and_absolute_paths(tree, table, manifest, tmp_path):
    path = table(rows().replace("clips/", f"{tree.root}/clips/"))
    assert manifest("csv", path).rows[0]["path"] == FILES[0]
    path.rename(tmp_path / "other.csv")
    written = manifest("csv", tmp_path / "other.csv", "--media", str(tree.root), out="other")
    assert written.rows[0]["path"] == FILES[0] and written.yaml["root"] == str(tree.root)


def test_what_is_missing_or_outside_is_counted(tree, table, manifest, tmp_path):
    (tmp_path / "secret.mp4").touch()
    more = "../secret.mp4,cat\n/etc/hostname,dog\nclips/9.mp4,cat\n,cat\nclips/0.xyz,cat\n"
    tree.path("clips/0.xyz").touch()
    more += f"{'long' * 100},dog\n"
    written = manifest("csv", table(rows(header="path,label\n") + more))
    assert "12 clips listed, 6 kept, 6 missing" in written.said
    assert f"  outside of {tree.root} (--media names the folder that holds all): 2" in written.said
    for line in ("no file: 2, such as clips/9.mp4", "no file is named: 1", "an ending that nothing reads: 1"):
        assert f"  {line}" in written.said


def test_numbers_as_classes_are_in_the_order_of_numbers(table, manifest):
    text = "".join(f"{file},{i % 2 * 8 + 2}\n" for i, file in enumerate(FILES))
    assert manifest("csv", table(text)).yaml["classes"] == ["2", "10"]


def test_folders_of_pictures(tree, manifest):
    for i in range(4):
        tree.pictures(f"frames/{i}")
    path = tree.text("t.csv", "".join(f"frames/{i},{'ab'[i % 2]}\n" for i in range(4)))
    assert list(manifest("csv", path).yaml["modalities"]) == ["frames"]


def test_mistakes(tree, table, refused):
    assert "is no file; ROOT is the CSV itself" in refused("csv", tree.root)
    for text, options, says in (
        ("", [], "my.csv: the list is empty"),
        ("a,b,c\n", [], "my.csv: which column is the label? has 3 columns without names; say --label COLUMN"),
        ("path,lable\nx,y\n", [], "which column is the label? has path, lable; say --label COLUMN"),
        (rows(), ["--label", "5"], "--label: no column '5'"),
        (rows(header="path,label\n"), ["--label", "lable"], "--label: no column 'lable'; did you mean 'label'?"),
        (rows() + "a,b,c\n", ["--path", "1", "--label", "2"], "my.csv:1: 2 cells, but there are 3 columns"),
        (rows(header="path,label\n") + "a\n", [], "my.csv:8: 1 cells, but there are 2 columns"),
        ("path,label,start\nclips/0.mp4,a,soon\n", [], "my.csv:2: 'soon' is no time in seconds"),
        ("path,label,split\nclips/0.mp4,a,tset\n", [], "my.csv:2: unknown split 'tset'; did you mean 'test'?"),
        ("path,label\nclips/8.mp4,a\nclips/9.mp4,b\n", [], "nothing is left of 2 clips (csv): no file: 2"),
        (rows(), ["--media", "no/such"], "no/such is no folder"),
    ):
        assert says in refused("csv", table(text), *options), text
    classes = tree.text("classes.txt", "dog\nowl\n")
    assert "my.csv:2: label 'cat' is not among the classes" in refused("csv", table(rows()), "--classes", str(classes))
