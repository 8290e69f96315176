"""Media as people have them: timing, rotation, channels, offsets, long files, pictures of every sort."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmsearch.data import _pyav, decode
from mmsearch.data.decode import DecodeError, decode_clip, decode_frames, decode_image, decode_sound

TICKS = 1000


def film(path: Path, pictures, times=None, *, rate=8, codec="libx264", rotation=0, options=None, **wave) -> Path:
    """A film of uint8 pictures `[H, W, 3]`, each shown from its time in seconds, with the sound of `add_sound`."""
    times = [i / rate for i in range(len(pictures))] if times is None else times
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={"preset": "ultrafast", "crf": "10"} | (options or {}))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
        if rotation:
            stream.set_display_rotation(rotation)
        audio = _sound_stream(out, **wave) if wave else None
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio:
            _fill(out, audio, **wave)
    return path


def sound_file(path: Path, **wave) -> Path:
    with av.open(str(path), "w") as out:
        _fill(out, _sound_stream(out, **wave), **wave)
    return path


def _sound_stream(out, *, sound_codec="aac", sound_rate=16000, layout="mono", **_):
    return out.add_stream(sound_codec, rate=sound_rate, layout=layout)


def _fill(out, stream, *, samples, sound_rate=16000, layout="mono", late=0.0, **_) -> None:
    """Samples float32 `[channels, T]`, from `late` seconds on."""
    resampler = av.AudioResampler(stream.format.name, layout, sound_rate, frame_size=stream.frame_size or 0)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), "fltp", layout)
    frame.sample_rate, frame.time_base, frame.pts = sound_rate, Fraction(1, sound_rate), round(late * sound_rate)
    for piece in (*resampler.resample(frame), *resampler.resample(None)):
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


def tone(seconds: float, rate: int = 16000, channels: int = 1, hertz: float = 440.0) -> np.ndarray:
    return np.tile(0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), (channels, 1))


def grey(*levels: int) -> list[np.ndarray]:
    return [np.full((32, 40, 3), level, np.uint8) for level in levels]


def levels(frames: np.ndarray) -> np.ndarray:
    return frames.mean(axis=(1, 2, 3))


def wav(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """A float WAV that says nothing about its channels, samples `[T, channels]`."""
    data = samples.astype("<f4").tobytes()
    channels = samples.shape[1]
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, channels, rate, rate * channels * 4, channels * 4, 32)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    return path


@pytest.fixture
def counted(monkeypatch) -> dict[str, int]:
    """How many packets were read and pictures decoded."""
    counts = {"packets": 0, "pictures": 0}
    demux, take = _pyav._Track._demux, _pyav._Track.decode

    def counting_demux(track):
        for packet in demux(track):
            counts["packets"] += 1
            yield packet

    def counting_decode(track, packets):
        for picture in take(track, packets):
            counts["pictures"] += 1
            yield picture

    monkeypatch.setattr(_pyav._Track, "_demux", counting_demux)
    monkeypatch.setattr(_pyav._Track, "decode", counting_decode)
    return counts


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_variable_frame_rate_is_spread_over_time(tmp_path, name):
    """Ten pictures in the first second, then one a second."""
    times = [*(i / 10 for i in range(10)), 1, 2, 3, 3.875]
    path = film(tmp_path / name, grey(*[40] * 10, 80, 120, 160, 160), times)
    assert np.abs(levels(decode_frames(path, frames=4, size=16)) - [40, 80, 120, 160]).max() < 4


def test_a_moment_between_pictures_shows_the_one_before(tmp_path):
    path = film(tmp_path / "slow.mp4", grey(40, 80, 120, 160), [0, 1, 2, 3], rate=1)
    assert np.abs(levels(decode_frames(path, frames=1, size=16, start=2.4, end=2.6)) - 120).max() < 4


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_honoured(tmp_path, angle, turns):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16], picture[16:, 24:] = (220, 40, 40), (40, 40, 220)
    film(tmp_path / "r.mp4", [picture] * 4, rotation=angle)
    film(tmp_path / "s.mp4", [picture] * 4)
    if angle == -90:
        clockwise = struct.pack(">4i", 0, 1 << 16, 0, -1 << 16)
        assert clockwise in (tmp_path / "r.mp4").read_bytes(), "what phones write for portraits"
    straight, rotated = (decode_frames(tmp_path / name, frames=1, size=32) for name in ("s.mp4", "r.mp4"))
    assert np.abs(rotated[0].astype(int) - np.rot90(straight[0], turns)).max() < 12


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_any_sample_rate(tmp_path, rate):
    path = sound_file(tmp_path / "s.flac", samples=tone(1, rate), sound_codec="flac", sound_rate=rate)
    sound = decode_sound(path, rate=16000, seconds=10.0)
    assert abs(len(sound) - 16000) <= 2
    peak = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))).argmax() * 16000 / len(sound)
    assert abs(peak - 440) < 2


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_channels_are_mixed_without_clipping(tmp_path, layout, channels):
    loud = 1.9 * tone(1, channels=channels)
    path = sound_file(tmp_path / "s.flac", samples=loud, sound_codec="flac", layout=layout)
    sound = decode_sound(path, rate=16000, seconds=10.0) / 32768
    assert 0.5 < np.abs(sound).max() < 0.97 and np.corrcoef(sound[:15000], loud[0][:15000])[0, 1] > 0.999


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 7])
def test_channels_without_names(tmp_path, channels):
    path = wav(tmp_path / "s.wav", tone(1, channels=channels).T)
    assert np.abs(decode_sound(path, rate=16000, seconds=1.0)).max() > 4000


def test_the_kind_of_sound_may_change_on_the_way(tmp_path):
    sound_file(tmp_path / "a.mp3", samples=tone(1), sound_codec="libmp3lame")
    sound_file(tmp_path / "b.mp3", samples=tone(1, channels=2), sound_codec="libmp3lame", layout="stereo")
    (tmp_path / "c.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() + (tmp_path / "b.mp3").read_bytes())
    sound = decode_sound(tmp_path / "c.mp3", rate=16000, seconds=10.0)
    assert np.abs(sound[-8000:-4000]).max() > 4000


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_sound_shorter_or_longer_than_the_picture(tmp_path, seconds):
    path = film(tmp_path / "x.mp4", grey(*range(40, 200, 20)), samples=tone(seconds))
    assert abs(len(decode_sound(path, rate=16000, seconds=10.0)) - seconds * 16000) <= 1100
    assert np.abs(levels(decode_frames(path, frames=8, size=16)) - range(40, 200, 20)).max() < 4


def test_sound_that_begins_late_has_silence_before_it(tmp_path):
    path = film(tmp_path / "x.mkv", grey(*range(40, 200, 10)), samples=tone(1), late=0.5)
    sound = decode_sound(path, rate=16000, seconds=10.0)
    assert not sound[:7000].any() and np.abs(sound[8500:9500]).max() > 4000
    assert abs(len(sound) - 24000) <= 1100
    part = decode_sound(path, rate=16000, seconds=10.0, start=0.25, end=1.0)
    assert len(part) == 12000 and not part[:3000].any() and np.abs(part[4500:5500]).max() > 4000
    with pytest.raises(DecodeError, match=r"begins 0\.5 s late"):
        decode_sound(path, rate=16000, seconds=0.25)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_a_picture_that_begins_late(tmp_path, name):
    times = [0.5 + i / 8 for i in range(8)]
    path = film(tmp_path / name, grey(*range(40, 200, 20)), times, samples=tone(2))
    assert np.abs(levels(decode_frames(path, frames=8, size=16)) - range(40, 200, 20)).max() < 4
    shown = decode_frames(path, frames=1, size=16, start=1.0, end=1.125)
    assert abs(levels(shown)[0] - 120) < 4, "time counts from the beginning of the file, not of the track"
    assert abs(len(decode_sound(path, rate=16000, seconds=10.0)) - 32000) <= 1100


def test_a_segment_reads_and_decodes_nothing_else(tmp_path, counted):
    """A minute, a key picture every second."""
    path = film(tmp_path / "long.mp4", grey(*[i // 3 for i in range(480)]), options={"g": "8"})
    shown = decode_frames(path, frames=4, size=16, start=50.0, end=51.0)
    assert np.abs(levels(shown) - [(400 + i) // 3 for i in (1, 3, 5, 7)]).max() < 4
    assert counted["packets"] <= 24 and counted["pictures"] <= 16


def test_a_sound_segment_reads_nothing_after_it(tmp_path, monkeypatch):
    path = sound_file(tmp_path / "long.m4a", samples=tone(60))
    add, seen = _pyav.Mono.add, []
    monkeypatch.setattr(_pyav.Mono, "add", lambda self, frame: seen.append(frame) or add(self, frame))
    sound = decode_sound(path, rate=16000, seconds=10.0, start=50.0, end=51.0)
    assert len(sound) == 16000 and len(seen) <= 24


def test_only_the_key_pictures_before_the_wanted_ones_are_decoded_from(tmp_path, counted):
    path = film(tmp_path / "x.mp4", grey(*[i // 3 for i in range(480)]), options={"g": "8"})
    shown = decode_frames(path, frames=4, size=16)
    assert np.abs(levels(shown) - [i // 3 for i in (60, 180, 300, 420)]).max() < 4
    assert counted["pictures"] <= 4 * 10


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts"])
def test_a_large_file_is_sought_and_gives_the_same(tmp_path, monkeypatch, counted, name):
    options = {"g": "40", "bf": "2", "b_strategy": "0"}
    path = film(tmp_path / name, grey(*[20 + i // 3 for i in range(480)]), options=options)
    for frames in (1, 3, 8, 100):
        kept = decode_frames(path, frames=frames, size=16)
        monkeypatch.setattr(_pyav, "KEPT_BYTES", 2000)
        counted["packets"] = 0
        sought = decode_frames(path, frames=frames, size=16)
        assert np.abs(levels(sought) - levels(kept)).max() <= 1
        if name != "x.ts":
            assert counted["packets"] < 100, "it was not read to its end"
        monkeypatch.undo()


def ten_hours(path: Path) -> Path:
    """A picture and a breath of sound every second for ten hours."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=1, options={"preset": "ultrafast", "g": "1"})
        video.width, video.height, video.pix_fmt, video.thread_count = 16, 16, "yuv420p", 1
        audio = out.add_stream("aac", rate=8000, layout="mono")
        pictures = []
        for i, picture in enumerate(grey(*range(0, 250, 5))):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:16, :16]), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1)
            pictures += video.encode(frame)
        pictures += video.encode(None)
        sounds = []
        frame = av.AudioFrame.from_ndarray(tone(1, 8000)[:, :4096].astype(np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        sounds += [*audio.encode(frame), *audio.encode(None)]
        film_bytes, sound_bytes = [bytes(p) for p in pictures], bytes(sounds[1])
        for second in range(36000):
            for stream, content, base in (
                (video, film_bytes[min(49, second // 720)], Fraction(1)),
                (audio, sound_bytes, Fraction(1)),
            ):
                packet = av.Packet(content)
                packet.stream, packet.pts, packet.dts, packet.duration = stream, second, second, 1
                packet.time_base, packet.is_keyframe = base, True
                out.mux(packet)
    return path


def test_ten_hours(tmp_path, counted, monkeypatch):
    path = ten_hours(tmp_path / "long.mkv")
    arrays = decode_clip(
        {
            "sound": ("sound", str(path), {"rate": 8000, "seconds": 10.0}),
            "frames": ("frames", str(path), {"frames": 5, "size": 16}),
        }
    )
    assert len(arrays["sound"]) == 80000
    assert np.abs(levels(arrays["frames"]) - [5 * (5 + 10 * i) for i in range(5)]).max() < 6
    assert counted["pictures"] < 20
    monkeypatch.setattr(_pyav, "KEPT_BYTES", 10000)
    counted["packets"] = 0
    sought = decode_frames(path, frames=5, size=16)
    assert np.abs(levels(sought) - levels(arrays["frames"])).max() < 6 and counted["packets"] < 1000


def test_sound_that_is_not_finite(tmp_path):
    wave = tone(1).T
    wave[8000] = np.nan
    with pytest.raises(DecodeError, match="sound: the sound has values that are not finite"):
        decode_clip({"sound": ("sound", str(wav(tmp_path / "nan.wav", wave)), {"rate": 16000, "seconds": 10.0})})
    wave[8000] = np.inf
    with pytest.raises(DecodeError, match="not finite"):
        decode_sound(wav(tmp_path / "inf.wav", wave), rate=16000, seconds=10.0)


def test_clipped_sound_is_kept(tmp_path):
    sound = decode_sound(wav(tmp_path / "loud.wav", 40 * tone(1).T), rate=16000, seconds=10.0)
    assert sound.max() == 32767 and sound.min() == -32768 and len(sound) == 16000


def test_a_film_without_frames(tmp_path):
    path = film(tmp_path / "x.mkv", grey(40), samples=tone(1))
    with av.open(str(path)) as source, av.open(str(tmp_path / "none.mkv"), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    with pytest.raises(DecodeError, match=r"^frames: no frames"):
        decode_clip({"frames": ("frames", str(tmp_path / "none.mkv"), {"frames": 2, "size": 16})})


def test_a_cover_is_no_film(tmp_path):
    sound_file(tmp_path / "plain.mp3", samples=tone(1), sound_codec="libmp3lame")
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "cover.png")
    with (
        av.open(str(tmp_path / "plain.mp3")) as source,
        av.open(str(tmp_path / "cover.png")) as cover,
        av.open(str(tmp_path / "x.mp3"), "w") as out,
    ):
        stream = out.add_stream_from_template(source.streams.audio[0])
        picture = out.add_stream_from_template(cover.streams.video[0])
        for packet in (*source.demux(audio=0), *cover.demux(video=0)):
            if packet.size:
                packet.stream = picture if packet.stream.type == "video" else stream
                out.mux(packet)
    assert decode_frames(tmp_path / "x.mp3", frames=2, size=16) is None


def colours(size=(60, 20)) -> Image.Image:
    picture = Image.new("RGB", size, (10, 10, 10))
    picture.paste((200, 100, 50), (size[0] // 3, 0, 2 * size[0] // 3, size[1]))
    return picture


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("x.jpg", lambda p: p),
        ("cmyk.jpg", lambda p: p.convert("CMYK")),
        ("palette.png", lambda p: p.quantize(8)),
        ("alpha.png", lambda p: p.convert("RGBA")),
        ("x.webp", lambda p: p),
        ("x.bmp", lambda p: p),
        ("x.gif", lambda p: p),
        ("x.tif", lambda p: p),
        ("50%d.png", lambda p: p),
        ("[1]*?.png", lambda p: p),
    ],
)
def test_pictures_of_every_sort(tmp_path, name, convert):
    convert(colours()).save(tmp_path / name)
    picture = decode_image(tmp_path / name, size=20, start=3.0, end=4.0)
    assert picture.shape == (1, 20, 20, 3), "a segment is not for pictures"
    assert np.abs(picture[0, 5:15, 3:17].astype(int) - [200, 100, 50]).max() < 30


def test_grey_pictures_keep_their_values(tmp_path):
    level = np.full((20, 20), 128)
    Image.fromarray(level.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(level.astype(np.uint8)).save(tmp_path / "8.jpg", quality=95)
    Image.fromarray((level * 257).astype(np.uint16)).save(tmp_path / "16.png")
    for name in ("8.png", "8.jpg", "16.png"):
        assert np.abs(decode_image(tmp_path / name, size=20).astype(int) - 128).max() <= 1, name


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_stand_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    picture = colours((40, 40))
    picture.paste((20, 200, 20), (0, 0, 20, 10))
    picture.save(tmp_path / "x.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "x.jpg") as opened:
        upright = np.array(Image.composite(opened, opened, Image.new("L", opened.size)))
    turned = np.rot90(upright, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert np.abs(decode_image(tmp_path / "x.jpg", size=40)[0].astype(int) - turned).mean() < 6


def test_a_slim_picture_has_a_reason(tmp_path):
    Image.new("RGB", (1, 20000)).save(tmp_path / "slim.png")
    with pytest.raises(DecodeError, match="1 x 20000 is too slim"):
        decode_image(tmp_path / "slim.png", size=112)


def test_names_that_are_not_utf8(tmp_path):
    path = Path(str(tmp_path / "x") + "\udcff\udce9.mp4")
    film(tmp_path / "plain.mp4", grey(40, 80), samples=tone(1))
    path.write_bytes((tmp_path / "plain.mp4").read_bytes())
    assert len(decode_frames(path, frames=2, size=16)) == 2
    assert len(decode_sound(path, rate=16000, seconds=10.0)) > 10000


def test_what_the_disk_says_is_not_the_files_fault(tmp_path):
    for kind, settings in (("sound", {"rate": 8000, "seconds": 1.0}), ("frames", {"frames": 1, "size": 16})):
        with pytest.raises(FileNotFoundError):
            decode_clip({kind: (kind, str(tmp_path / "none.mp4"), settings)})


def test_layouts_name_every_kind():
    from mmsearch.batch import KINDS

    assert tuple(decode.LAYOUT) == KINDS
