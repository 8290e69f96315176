"""Bad input: manifests as spreadsheets leave them, paths that lead elsewhere, and clips that cannot be decoded."""

from __future__ import annotations

import codecs
import os

import numpy as np
import pytest

from mmsearch.cli import main
from mmsearch.data import Dataset
from mmsearch.data.decode import DecodeError, decode_clip
from mmsearch.data.manifest import Manifest, printable
from mmsearch.errors import MMSearchError

FILES = ("0", "1", "2", "3")
GOOD = "clip_id,path,label\nc0,0,a\nc1,1,a\nc2,2,b\nc3,3,b\n"


@pytest.fixture
def load(dataset_file, tmp_path):
    """Loads a dataset around a manifest's bytes, or around the paths of its four clips."""

    def load(manifest: bytes | str | list[str], yaml: str = "", **arguments) -> Dataset:
        if isinstance(manifest, list):
            lines = [f'c{i},"{path}",{"aabb"[i]}' for i, path in enumerate(manifest)]
            manifest = "\n".join(["clip_id,path,label", *lines])
        path = dataset_file(None, yaml, FILES)
        content = manifest if isinstance(manifest, bytes) else manifest.encode(errors="surrogateescape")
        (tmp_path / "manifest.csv").write_bytes(content)
        return Dataset.load(path, **arguments)

    return load


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r").encode(),
        GOOD.replace("\n", "\n\n").encode(),
        GOOD.replace("c0,0,a", '"c0","0","a"').encode(),
        GOOD.replace(",", " , ").encode(),
        GOOD.replace("\n", ",,\n").encode(),
        GOOD.removesuffix("\n").encode(),
    ],
    ids=["BOM", "CRLF", "CR", "blank lines", "quotes", "spaces", "nameless columns", "no last newline"],
)
def test_manifests_as_programs_write_them_simply_work(load, content):
    assert [clip.clip_id for clip in load(content).clips] == ["c0", "c1", "c2", "c3"]


def test_quotes_keep_commas_and_lines(load):
    dataset = load(GOOD.replace(",a", ',"a, or\nb ""too"""'))
    assert dataset.classes == ['a, or\nb "too"', "b"]
    assert [clip.row for clip in dataset.clips] == [2, 4, 6, 7], "the line on which a row begins"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD.replace(",", ";"), "columns are separated by semicolons; a manifest has commas"),
        (GOOD.replace(",", "\t"), "columns are separated by tabs; a manifest has commas"),
        (GOOD.replace(",", "|"), "columns are separated by bars; a manifest has commas"),
        (GOOD.encode("utf-16"), "UTF-16 text; save the manifest as UTF-8"),
        (GOOD.replace("c1", "\0c1"), "row 3: has a NUL character"),
        (GOOD.replace("c2,2,b", 'c2,"2,b'), "row 4: not CSV: unexpected end of data"),
        (GOOD.replace("c2,2,b", '"c2"x,2,b'), "row 4: not CSV"),
        (GOOD.replace("c2,2,b", "c2,2"), "row 4: 2 cells, but the header has 3 columns"),
        (GOOD.replace("label", "path"), "column 'path' is there twice"),
        (GOOD.replace("c1,1", "café,1").encode("latin-1"), "row 3: clip_id is not UTF-8 text; save the manifest"),
        (GOOD.replace(",a", ",é").encode("latin-1"), "row 2: label is not UTF-8 text"),
        (GOOD.replace("c1,1", "c1,é").encode("latin-1"), r"row 3: path: .*\\xe9 is not there .*not UTF-8"),
        (b"", "has no rows"),
        (b"\n\n", "has no rows"),
        (bytes(range(1, 255)) * 9, "manifest.csv"),
    ],
)
def test_broken_manifests_have_one_clear_line(load, content, said):
    with pytest.raises(MMSearchError, match=said) as error:
        load(content)
    assert "\n" not in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("path", "said"),
    [("../3", "leads out"), ("a/../../3", "leads out"), ("..", "leads out"), ("/etc/hostname", "is absolute")],
)
def test_a_path_that_leads_out_of_the_root_is_refused(load, path, said):
    with pytest.raises(MMSearchError, match=rf"row 4: path: .* {said}.*--allow-absolute"):
        load(["0", "1", path, "3"])


def test_a_path_that_leads_out_may_be_allowed(load, tmp_path):
    (tmp_path / "sub").mkdir()
    paths = ["0", "sub/../1", str(tmp_path / "2"), f"../{tmp_path.name}/3"]
    clips = load(paths, allow_absolute=True).clips
    assert [clip.paths["sound"].read_bytes() for clip in clips] == [b"0", b"1", b"2", b"3"]
    assert len(load(["0", "sub/../1", "./2", "3"]).clips) == 4, "what stays inside is fine"


def test_the_root_may_be_elsewhere(load, tmp_path):
    (tmp_path / "media").mkdir()
    for name in FILES:
        (tmp_path / "media" / name).write_bytes(b"m")
    dataset = load(list(FILES), "root: media\n")
    assert {clip.paths["sound"].parent.name for clip in dataset.clips} == {"media"}
    with pytest.raises(MMSearchError, match="leads out"):
        load(["../0", "1", "2", "3"], "root: media\n")
    load(list(FILES), f"root: {tmp_path / 'media'}\n")


def test_links_are_followed_and_loops_named(load, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to(outside / "x")
    (tmp_path / "folder").symlink_to(outside)
    assert load(["0", "1", "link", "folder/x"]).clips[3].paths["sound"].read_bytes() == b"x"
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(MMSearchError, match=r"row 4: path: .*/one/x cannot be read: .*/one is a loop of links"):
        load(["0", "1", "one/x", "3"])
    (tmp_path / "broken").symlink_to("gone")
    with pytest.raises(MMSearchError, match=r"row 5: path: .*/broken is a link to gone, which is not there"):
        load(["0", "1", "2", "broken"])


def test_what_is_no_file_is_not_opened(load, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MMSearchError, match=r"row 4: path: .*/pipe is not a file"):
        load(["0", "1", "pipe", "3"])


ODD = os.fsdecode(b"caf\xe9 \xff.npy")


def test_names_that_are_not_utf8_go_all_the_way(tmp_path, capsys, inline):
    """From the manifest to the store, and into what is printed of a clip that cannot be decoded."""
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.full(3, float(i)))
    (tmp_path / "2.npy").rename(tmp_path / ODD)
    cells = ["0.npy", "1.npy", ODD, "3.npy"]
    lines = [f"c{i},{cell},{'aabb'[i]}" for i, cell in enumerate(cells)]
    (tmp_path / "m.csv").write_bytes("\n".join(["clip_id,path,label", *lines]).encode(errors="surrogateescape"))
    (tmp_path / "d.yaml").write_text("name: x\nmanifest: m.csv\nmodalities:\n  v: {kind: vector}\n")
    assert main(["prepare", str(tmp_path / "d.yaml"), "--out", str(tmp_path / "store")]) == 0
    assert "4 clips stored" in capsys.readouterr().out
    (tmp_path / ODD).write_bytes(b"nothing")
    assert main(["prepare", str(tmp_path / "d.yaml"), "--out", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert r"caf\xe9 \xff.npy): v: not an array" in said
    said.encode()
    (tmp_path / ODD).unlink()
    assert main(["validate", str(tmp_path / "d.yaml")]) == 2
    assert r"caf\xe9 \xff.npy is not there" in capsys.readouterr().err


def test_names_that_are_not_utf8_in_parquet(load, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": [b"caf\xe9", b"plain"]}), tmp_path / "m.parquet")
    assert [row["path"] for row in Manifest(tmp_path / "m.parquet").rows] == ["caf\udce9", "plain"]
    assert printable("caf\udce9") == r"caf\xe9" and printable("café") == "café"


def test_inline_texts_and_rows_of_arrays(load, tmp_path):
    np.save(tmp_path / "v.npy", np.arange(8.0).reshape(4, 2))
    (tmp_path / "t").write_text("from a file")
    rows = [f'c{i},"{["good, evening", "", "b", "c"][i]}",v.npy#{i},t,{"aabb"[i]}' for i in range(4)]
    yaml = (
        "modalities:\n  title: {kind: text, inline: true, column: title, bytes: 9}\n"
        "  v: {kind: vector, column: v}\n  body: {kind: text, column: body}\n"
    )
    dataset = load("\n".join(["clip_id,title,v,body,label", *rows]), yaml)
    first, second = dataset.clips[:2]
    assert first.texts == {"title": "good, evening"} and first.rows == {"v": 0}
    assert "title" not in second.texts, "an empty cell is a missing modality"
    arrays = decode_clip(dataset.sources(first))
    assert arrays["title"].tobytes() == b"good, eve" and arrays["body"].tobytes() == b"from a file"
    assert decode_clip(dataset.sources(second))["v"].tolist() == [2, 3]
    assert dataset.sources(first)["v"] == ("vector", str(tmp_path / "v.npy"), {"row": 0})
    assert first.place == str(tmp_path / "v.npy")
    far = load("\n".join(["clip_id,title,v,body,label", *rows]).replace("#0", "#9"), yaml)
    with pytest.raises(DecodeError, match="v: no row 9"):
        decode_clip(far.sources(far.clips[0]))


def test_folders_stand_for_frames_pictures_and_flow(load, tmp_path):
    for folder in ("p/0", "u/0", "v/0", "u/1"):
        (tmp_path / folder).mkdir(parents=True)
    yaml = "modalities:\n  x: {kind: %s}\n"
    assert load(["p/0"] * 4, yaml % "frames").clips[0].paths["x"] == tmp_path / "p" / "0"
    assert load(["p/0"] * 4, yaml % "image").clips[0].paths["x"] == tmp_path / "p" / "0"
    flow = load(["{uv}/0"] * 4, yaml % "flow")
    assert flow.sources(flow.clips[0])["x"][1] == str(tmp_path / "{uv}" / "0")
    for kind, path, said in (
        ("sound", "p/0", "is a folder"),
        ("vector", "p/0", "is a folder"),
        ("flow", "{uv}/1", "v/1 is not there"),
        ("flow", "p/0", "is a folder|pip install 'mmsearch.flow"),
    ):
        with pytest.raises(MMSearchError, match=said):
            load([path] * 4, yaml % kind)


def test_settings_that_change_nothing_are_no_part_of_a_clip(load):
    yaml = "modalities:\n  s: {kind: sound}\n  f: {kind: frames%s}\n"

    def sources(extra, top=""):
        dataset = load(list(FILES), top + yaml % extra)
        return {name: settings for name, (_, _, settings) in dataset.sources(dataset.clips[0]).items()}

    plain = {"s": {"rate": 16000, "seconds": 10.0}, "f": {"frames": 8, "size": 112}}
    assert sources("") == sources(", quality: 30") == sources("", "decoder: pyav\n") == plain
    assert sources(", codec: jpeg")["f"] == {"frames": 8, "size": 112, "codec": "jpeg", "quality": 90}


def test_quality_dials_are_read_and_their_mistakes_named(load):
    yaml = "modalities:\n  s: {kind: sound}\nquality:\n  seed: 3\n  modalities:\n    s: {missing: %s}\n"
    assert load(list(FILES)).quality is None
    assert load(list(FILES), yaml % 0.5).quality.modalities["s"].missing == 0.5
    with pytest.raises(MMSearchError, match=r"dataset\.yaml:8: .*missing"):
        load(list(FILES), yaml % 2)


def test_a_decoder_that_is_not_installed_is_named(load, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MMSearchError, match=r":3: torchcodec is not installed: pip install 'mmsearch\[torchcodec\]'"):
        load(list(FILES), "decoder: torchcodec\n")


@pytest.fixture
def hundred(tmp_path):
    """A hundred clips, so many of them rubbish."""

    def write(bad: int) -> str:
        lines = ["clip_id,path,label"]
        for i in range(100):
            np.save(tmp_path / f"{i}.npy", np.full(3, float(i)))
            lines.append(f"c{i:02},{i}.npy,{'ab'[i % 2]}")
        for i in range(bad):
            (tmp_path / f"{i}.npy").write_bytes(b"rubbish %d" % i)
        (tmp_path / "m.csv").write_text("\n".join(lines))
        (tmp_path / "d.yaml").write_text("name: hundred\nmanifest: m.csv\nmodalities:\n  v: {kind: vector}\n")
        return str(tmp_path / "d.yaml")

    return write


def test_one_bad_clip_of_a_hundred_is_set_aside(hundred, tmp_path, capsys, inline):
    assert main(["prepare", hundred(1), "--out", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert "99 clips stored" in said and "1 clips set aside" in said and "c00" in said and "not an array" in said
    assert main(["prepare", hundred(1), "--out", str(tmp_path / "store"), "--max-bad", "0"]) == 2
    assert "1 of 100 clips cannot be decoded (c00: v: not an array" in capsys.readouterr().err


def test_sixty_bad_clips_of_a_hundred_are_an_error(hundred, tmp_path, capsys, inline):
    path = hundred(60)
    assert main(["prepare", path, "--out", str(tmp_path / "store")]) == 2
    said = capsys.readouterr().err
    assert "60 of 100 clips cannot be decoded" in said and said.count("\n") == 1
    assert main(["prepare", path, "--out", str(tmp_path / "store"), "--max-bad", "0.6"]) == 0
    assert "40 clips stored" in capsys.readouterr().out


@pytest.mark.parametrize("share", ["60", "-1", "half", "nan"])
def test_a_share_is_a_number_from_0_to_1(share, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "d.yaml", "--max-bad", share])
    assert stop.value.code == 2 and "must be a number from 0 to 1" in capsys.readouterr().err
