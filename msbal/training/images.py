"""Check a run's images at its start: whether they can be read, and whether the framework reads them as they are.

All images of a data set of usual size are decoded before the training. Of a larger one a sample spread over it is, and
the rest during the training, which then stops at a bad one.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from msbal.backend import Detector, ReadsImages
from msbal.data import DetectionData, ImageRecord, read_pixels
from msbal.data.files import named
from msbal.data.images.image_check import LOOKED_AT, refuse, spread
from msbal.data.images.image_files import Header, decode, misfit, read_header, turn, without_warnings
from msbal.errors import DataError, MsbalError

Progress = Callable[[int, int], None]

PROVEN_BY = 3  # images of one kind
MAX_DIFFERENCE = 16.0  # of 255, on average: decoders differ a little in rounding and in colours for print
ODD_ASPECT = 16.0


class ImageCheck:
    """Checks the image files of a run, each once.

    Args:
        splits: by the spec's key, ``data.train`` and ``data.val``.
        detector: where its framework reads files itself, its readings of a few images of every kind of file are
            compared to ours.
        backend: its name, for messages.
    """

    def __init__(self, splits: dict[str, DetectionData], detector: Detector, backend: str) -> None:
        self._splits, self._detector, self._backend = splits, detector, backend
        self._read = detector.read_images if isinstance(detector, ReadsImages) else None
        self._proven: Counter[tuple[object, ...]] = Counter()

    def before_training(self, progress: Progress | None = None, limit: int = LOOKED_AT) -> None:
        """Check a sample of `limit` images spread over each split, or all of a small one.

        Raises:
            DataError: naming the first bad image, with how many there are.
        """
        chosen = {key: spread(len(data), limit) for key, data in self._splits.items()}
        total, done = sum(map(len, chosen.values())), 0
        with without_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for key, indices in chosen.items():
                images = [self._splits[key].images[i] for i in indices]
                wrong = []
                for image, problem in zip(images, pool.map(self.problem, images), strict=True):
                    done += 1
                    if problem is not None:
                        wrong.append((image.path, *problem))
                    if progress is not None:
                        progress(done, total)
                refuse(wrong, len(images), key)
        for key, data in self._splits.items():
            self._odd_shapes(key, data)

    def rest(self) -> Iterator[ImageRecord]:
        """Yield the images that `before_training` did not check, those for evaluation first."""
        for data in reversed(self._splits.values()):
            seen = set(spread(len(data)))
            yield from (image for i, image in enumerate(data.images) if i not in seen)

    def problem(self, image: ImageRecord) -> tuple[str, str] | None:
        """Return what is wrong with an image, and what to do about it; None where nothing is."""
        try:
            header = read_header(image.path)
            wrong = misfit(header, image.width, image.height)
            if wrong is not None:
                return wrong
            turned = header.is_turned(image.width, image.height)
            kind = (header.format, header.mode, header.orientation, header.elsewhere, turned)
            if self._read is None or self._proven[kind] >= PROVEN_BY:
                decode(image.path)
                return None
            pixels = read_pixels(image.path, image.width, image.height)
            try:
                readings = self._read(image)
            except MsbalError:
                raise
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                return f"cannot be read by {self._backend}: {reason}", "save it as a JPEG or PNG"
            # An image that looks the same when turned, such as a blank page, proves nothing.
            if header.orientation == 1 or _difference(pixels, turn(pixels, header.orientation)):
                self._proven[kind] += 1
            return next(
                filter(None, (self._misread(reading, pixels, header, turned) for reading in readings)), None
            )
        except DataError as error:
            return error.found, error.fix

    def _odd_shapes(self, key: str, data: DetectionData) -> None:
        """Make a batch of the widest and of the tallest image, where they are extreme."""
        aspects = np.array([image.width / image.height for image in data.images])
        for index in sorted({int(aspects.argmin()), int(aspects.argmax())}):
            image = data.images[index]
            if 1 / ODD_ASPECT <= aspects[index] <= ODD_ASPECT:
                continue
            try:
                self._detector.batch(data, [index])
            except MsbalError:
                raise
            except Exception as error:
                reason = re.sub(
                    r"^OpenCV\S* \S+ error: ", "", (str(error).strip().splitlines() or [repr(error)])[0]
                )
                raise DataError(
                    key,
                    f"{named(image.path)} is {image.width} x {image.height} pixels, which {self._backend} cannot "
                    f"resize: {reason[:160]}",
                    fix="cut images this long into parts",
                ) from error

    def _misread(
        self, reading: NDArray[np.uint8], pixels: NDArray[np.uint8], header: Header, turned: bool
    ) -> tuple[str, str] | None:
        right = _difference(reading, pixels)
        otherwise = turn(pixels, _BACK[header.orientation] if turned else header.orientation)
        if _difference(reading, otherwise) < right:
            done, wanted = ("does not turn", "shown") if turned else ("turns", "stored")
            return (
                f"is annotated as {wanted}, but {self._backend} {done} it as its EXIF orientation "
                f"{header.orientation} says",
                "turn the pixels themselves or remove the orientation, e.g. with exiftool, so that both agree",
            )
        if right > MAX_DIFFERENCE:
            return (
                f"({header.format}, {header.mode}) is read wrongly by {self._backend}: other pixels than its own",
                "save it as an 8-bit RGB JPEG or PNG",
            )
        return None


_BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""For each EXIF orientation, the one that undoes it."""


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference, of 255; infinity where the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one.astype(np.int16) - other).mean())


class BesideTraining:
    """Checks the remaining images while a run trains.

    Args:
        found: called once, from the thread, at a bad one.

    Attributes:
        error: the bad image, or None.
    """

    def __init__(self, check: ImageCheck, found: Callable[[], None]) -> None:
        self.error: DataError | None = None
        self._check, self._found, self._ended = check, found, threading.Event()
        self._images, self._quiet = list(check.rest()), ExitStack()
        self._thread = threading.Thread(target=self._run, name="msbal images", daemon=True)

    def __enter__(self) -> BesideTraining:
        self._quiet.enter_context(without_warnings())
        if self._images:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._images:
            self._thread.join()
        self._quiet.close()

    def _run(self) -> None:
        for image in self._images:
            if self._ended.is_set():
                return
            problem = self._check.problem(image)
            if problem is not None:
                self.error = DataError(str(image.path), problem[0], fix=problem[1] or "repair or remove it")
                self._found()
                return
