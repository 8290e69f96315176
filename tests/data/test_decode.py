"""Decoding: shapes, timing, segments, and what is said of files that cannot be decoded."""

from __future__ import annotations

import wave

import av
import numpy as np
import pytest

from mmsearch.data.decode import DecodeError, decode_clip, decode_frames, decode_sound

SOUND = {"rate": 16000, "seconds": 10.0}


def pitch(sound: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(sound * np.hanning(len(sound)))).argmax() * rate / len(sound))


def test_frames_are_the_middles_of_equal_parts(clip_folder):
    frames = decode_frames(clip_folder / "c00.mp4", frames=4, size=24)
    assert frames.shape == (4, 24, 24, 3) and frames.dtype == np.uint8
    levels = frames.mean(axis=(1, 2, 3))
    assert np.abs(levels - [20 + 4 * i for i in (1, 3, 5, 7)]).max() < 4, levels


def test_short_clips_repeat_frames(clip_folder):
    frames = decode_frames(clip_folder / "c00.mp4", frames=16, size=16)
    assert np.array_equal(frames[0::2], frames[1::2])


def test_sound_keeps_its_pitch_and_is_cut(clip_folder):
    sound = decode_sound(clip_folder / "c05.mp4", **SOUND)
    assert sound.dtype == np.int16 and abs(len(sound) - 16000) <= 1024
    assert abs(pitch(sound, 16000) - 500) < 2
    half = decode_sound(clip_folder / "c05.mp4", rate=8000, seconds=0.5)
    assert len(half) == 4000 and abs(pitch(half, 8000) - 500) < 4


def test_segment(make_clip, tmp_path):
    path = make_clip(tmp_path / "long.mp4", level=10, seconds=4)
    frames = decode_frames(path, frames=2, size=16, start=2.0, end=3.0)
    assert np.abs(frames.mean(axis=(1, 2, 3)) - [10 + 4 * 18, 10 + 4 * 22]).max() < 4
    assert len(decode_sound(path, **SOUND, start=2.0, end=3.0)) == 16000
    whole = decode_sound(path, **SOUND)
    part = decode_sound(path, **SOUND, start=1.5, end=2.5)
    assert np.abs(part[2000:14000].astype(int) - whole[26000:38000]).max() < 400, "same samples at the same time"
    with pytest.raises(DecodeError, match="frames after 9 s"):
        decode_frames(path, frames=2, size=16, start=9.0, end=10.0)


def test_a_missing_track_is_a_missing_modality(make_clip, tmp_path):
    def sources(path):
        return {
            "sound": ("sound", str(path), SOUND),
            "frames": ("frames", str(path), {"frames": 2, "size": 16}),
        }

    silent = make_clip(tmp_path / "silent.mp4", sound=False)
    blind = make_clip(tmp_path / "blind.mp4", picture=False)
    assert set(decode_clip(sources(silent))) == {"frames"}
    assert set(decode_clip(sources(blind))) == {"sound"}
    with pytest.raises(DecodeError, match="no sound in it"):
        decode_clip({"sound": sources(silent)["sound"]})


def test_wav_flac_png_and_npy(tmp_path):
    samples = (8000 * np.sin(np.arange(4000) * 0.3)).astype(np.int16)
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(samples.tobytes())
    with av.open(str(tmp_path / "s.flac"), "w") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = (200, 100, 50)
    with av.open(str(tmp_path / "p.png"), "w", format="image2") as container:
        stream = container.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 60, 20, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    np.save(tmp_path / "v.npy", np.arange(5, dtype=np.float64))
    arrays = decode_clip(
        {
            "wav": ("sound", str(tmp_path / "s.wav"), {"rate": 8000, "seconds": 10.0}),
            "flac": ("sound", str(tmp_path / "s.flac"), {"rate": 8000, "seconds": 10.0}),
            "png": ("image", str(tmp_path / "p.png"), {"size": 20}),
            "vector": ("vector", str(tmp_path / "v.npy"), {}),
        }
    )
    assert np.array_equal(arrays["wav"], samples) and np.array_equal(arrays["flac"], samples)
    assert arrays["png"].shape == (1, 20, 20, 3)
    assert np.abs(arrays["png"][0, 5:15, 3:17].astype(int) - [200, 100, 50]).max() < 3, "the middle is kept"
    assert arrays["vector"].dtype == np.float32 and arrays["vector"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"not a film at all", bytes(range(256)) * 16])
@pytest.mark.parametrize("kind", ["sound", "frames", "image", "vector"])
def test_rubbish_has_a_reason(tmp_path, content, kind):
    (tmp_path / "x").write_bytes(content)
    settings = {"sound": SOUND, "frames": {"frames": 2, "size": 16}, "image": {"size": 16}, "vector": {}}[kind]
    with pytest.raises(DecodeError, match=f"^{kind}: ") as error:
        decode_clip({kind: (kind, str(tmp_path / "x"), settings)})
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3)), np.zeros(0), np.array(["a"]), np.array([np.nan, 1.0]), np.array([{}])]
)
def test_vectors_that_are_none(tmp_path, array):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(DecodeError):
        decode_clip({"v": ("vector", str(tmp_path / "v.npy"), {})})


def test_a_file_cut_short(make_clip, tmp_path):
    path = make_clip(tmp_path / "x.mp4", seconds=4)
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    content = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    for kind, settings in (("sound", SOUND), ("frames", {"frames": 2, "size": 16})):
        with pytest.raises(DecodeError):
            decode_clip({kind: (kind, str(tmp_path / "cut.mp4"), settings)})


def test_real_clips(real_clips):
    for path in sorted((real_clips / "grid").glob("*.mp4"))[:3]:
        frames = decode_frames(path, frames=8, size=112)
        sound = decode_sound(path, **SOUND)
        assert frames.shape == (8, 112, 112, 3) and 20 < frames.mean() < 235 and frames.std() > 10
        assert 2.9 * 16000 < len(sound) < 3.1 * 16000 and np.abs(sound).max() > 1000
