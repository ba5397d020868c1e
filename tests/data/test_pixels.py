"""From a file to RGB: every mode of Pillow's, 16 bits, transparency, orientation, odd shapes."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from radapter.data.pixels import (
    IMAGE_EXTENSIONS,
    NO_PICTURES,
    Reading,
    is_hidden,
    is_picture,
    read_picture,
    to_rgb,
)
from radapter.errors import BrokenInput

GRADIENT = np.add.outer(np.arange(0, 240, 15), np.arange(16)).astype(np.uint8)


def saved(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    buffer.seek(0)
    return buffer


def sixteen(samples):
    return Image.frombytes("I;16", samples.shape[::-1], samples.astype("<u2").tobytes())


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(form):
    grey = read_picture(saved(Image.fromarray(GRADIENT), "PNG"))
    deep = read_picture(saved(sixteen(GRADIENT.astype(np.uint32) * 257), form))
    assert np.array_equal(np.asarray(deep), np.asarray(grey))
    assert np.array_equal(np.asarray(deep)[..., 0], GRADIENT)


def test_a_sixteen_bit_pgm_too():
    """Pillow gives it in the mode of 32-bit integers."""
    samples = (GRADIENT.astype(np.uint32) * 257).astype(">u2").tobytes()
    file = io.BytesIO(b"P5 16 16 65535\n" + samples)
    assert np.array_equal(np.asarray(read_picture(file))[..., 0], GRADIENT)


def test_sixteen_bits_with_a_transparent_value():
    samples = GRADIENT.astype(np.uint32) * 257
    file = saved(sixteen(samples), "PNG", transparency=int(samples[3, 4]))
    assert read_picture(file, "a.png").getpixel((4, 3)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("picture", "what"),
    [
        (Image.fromarray(GRADIENT.astype(np.float32) / 255), "floats"),
        (Image.fromarray(GRADIENT.astype(np.int32)), "32-bit integers"),
    ],
)
def test_samples_without_a_known_white_are_refused_by_name(picture, what):
    with pytest.raises(BrokenInput, match=f"deep.tif: its samples are {what}"):
        read_picture(saved(picture, "TIFF"), "deep.tif")


MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV",
)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_eight_bits_keeps_what_is_seen(mode):
    """White stays white and black black, whatever stores them."""
    picture = Image.new("RGB", (8, 4), "white")
    picture.paste("black", (0, 0, 4, 4))
    if mode in ("La", "PA", "RGBa"):  # only reached from the mode with plain alpha
        picture = picture.convert({"La": "LA", "PA": "P", "RGBa": "RGBA"}[mode])
    elif mode == "LAB":
        from PIL import ImageCms

        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        picture = ImageCms.applyTransform(picture, to_lab)
    rgb = to_rgb(picture.convert(mode))
    assert rgb.mode == "RGB"
    assert max(rgb.getpixel((1, 1))) <= 3
    assert min(rgb.getpixel((6, 1))) >= 252


def disc(hidden):
    """A red disc; what is outside of it is transparent and has a hidden colour."""
    y, x = np.mgrid[:32, :32] - 16
    inside = (x * x + y * y < 100)[..., None]
    colours = np.where(inside, (255, 0, 0), hidden)
    return Image.fromarray(
        np.concatenate([colours, np.where(inside, 255, 0)], axis=2).astype(np.uint8), "RGBA"
    )


HIDDEN = ((0, 0, 0), (255, 255, 255), (0, 255, 0))


def test_look_alikes_with_other_hidden_colours_are_one_picture():
    pictures = [read_picture(saved(disc(colour), "PNG")) for colour in HIDDEN]
    assert len({p.tobytes() for p in pictures}) == 1
    assert pictures[0].getpixel((0, 0)) == (255, 255, 255)
    assert pictures[0].getpixel((16, 16)) == (255, 0, 0)


@pytest.mark.parametrize(("transparency", "corner"), [("black", (0, 0, 0)), ("discard", HIDDEN[2])])
def test_what_shows_through_is_a_setting(transparency, corner):
    reading = Reading(transparency=transparency)
    assert read_picture(saved(disc(HIDDEN[2]), "PNG"), reading=reading).getpixel((0, 0)) == corner


def test_a_transparent_palette_entry_and_grey_with_alpha():
    palette = disc(HIDDEN[2]).quantize(8)
    assert read_picture(saved(palette, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    grey = disc(HIDDEN[0]).convert("LA")
    assert read_picture(saved(grey, "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_a_photo_is_turned_as_its_orientation_says():
    upright = Image.fromarray(np.dstack([GRADIENT, GRADIENT.T, GRADIENT // 2])[:, :12])
    turned = upright.transpose(Image.Transpose.ROTATE_90)  # as a camera on its side stores it
    exif = Image.Exif()
    exif[0x0112] = 6
    file = saved(turned, "PNG", exif=exif).getvalue()
    assert read_picture(io.BytesIO(file)).tobytes() == upright.tobytes()
    ignored = read_picture(io.BytesIO(file), reading=Reading(orientation="ignore"))
    assert ignored.tobytes() == turned.tobytes()


def test_a_line_of_pixels_is_refused_by_its_size():
    file = saved(Image.new("L", (20_000, 1)), "PNG")
    with pytest.raises(BrokenInput, match=r"line\.png: it is 20000 x 1 pixels"):
        read_picture(file, "line.png")


def test_errors_name_no_python_objects():
    with pytest.raises(BrokenInput) as caught:
        read_picture(io.BytesIO(b"<html>not found</html>"), "shard.tar: a.jpg")
    assert "shard.tar: a.jpg" in str(caught.value)
    assert "BytesIO" not in str(caught.value)


ENDINGS = (".jpg", ".JPEG", ".jfif", ".webp", ".avif", ".jp2", ".ppm", ".tif")


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_that_pillow_opens_are_pictures(ending):
    assert is_picture(f"a/b{ending}")


def test_endings_that_it_only_writes_or_hands_on_are_none():
    assert not {".pdf", ".eps", ".h5", ".mpg", ".txt", ".heic"} & set(IMAGE_EXTENSIONS)
    forms = {Image.registered_extensions()[ending] for ending in IMAGE_EXTENSIONS}
    assert not forms & set(NO_PICTURES)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "._a.jpg", "__MACOSX", "@eaDir"])
def test_what_programs_leave_is_hidden(name):
    assert is_hidden(name)


def tiff(samples, bits, photometric):
    """An uncompressed grey TIFF, little-endian, of one strip."""
    height, width = samples.shape
    if bits == 12:
        flat = samples.reshape(-1, 2).astype(np.uint32)
        packed = np.stack(
            [flat[:, 0] >> 4, (flat[:, 0] & 15) << 4 | flat[:, 1] >> 8, flat[:, 1] & 255], axis=1
        )
        data = packed.astype(np.uint8).tobytes()
    else:
        data = samples.astype("<u2").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8),
            (277, 1), (278, height), (279, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return io.BytesIO(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))


def test_twelve_bits_of_a_tiff_are_scaled_from_their_own_white():
    samples = np.full((16, 16), 4095)
    samples[:8] = 2048
    read = np.asarray(read_picture(tiff(samples, 12, 1)))[..., 0]
    assert (read[8:] == 255).all()
    assert abs(int(read[0, 0]) - 128) <= 1


def test_a_tiff_whose_white_is_zero_is_turned_round():
    samples = GRADIENT.astype(np.uint32) * 257
    plain, turned = (read_picture(tiff(samples, 16, photometric)) for photometric in (1, 0))
    assert np.array_equal(np.asarray(turned), 255 - np.asarray(plain))
