"""Where human items come from: a named law, a text, a table of counts, or an array.

Every source becomes a `HumanSource`: the law h that fresh human items are drawn from.
"""

import codecs
import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ecosystem.errors import InputError
from ecosystem.types import Floats

ALLOWED = '"uniform", "zipf", "english", "text:PATH", "counts:PATH", or a list of probabilities that sum to 1'
DEFAULT_OUTPUTS = 100
"""Number of outputs of a uniform or Zipf law when the scenario does not say."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_CHUNK = 1 << 20
_LONGEST_WORD = 1000


@dataclass(frozen=True, eq=False)
class HumanSource:
    """The law of human data.

    Attributes
    ----------
    law : ndarray, shape (V,)
        Probability h_v of each output; read-only, sums to 1.
    labels : tuple of str, or None
        What each output is (a word), where the source knows.
    origin : dict
        Provenance: the source as written, and for files their SHA-256, how many items and distinct
        outputs they hold, and the share of the items that the kept outputs cover.
    """

    law: Floats
    labels: tuple[str, ...] | None = None
    origin: dict[str, Any] = field(default_factory=dict)


def load(source: str | Floats, n_outputs: int | None = None, zipf_exponent: float = 1.0) -> HumanSource:
    """Return the human source that a scenario names.

    Parameters
    ----------
    source : str or array_like, shape (V,)
        "uniform"; "zipf" (h_v ∝ (v+1)^−zipf_exponent); "english" (the shipped word counts, see
        ``ecosystem/data/README.md``); "text:PATH" (a UTF-8 text, cut into lower-case words);
        "counts:PATH" (CSV or TSV rows of output and count, with or without a header line); or the
        law itself.
    n_outputs : int, optional
        V. Of a text or table the V most frequent outputs are kept and their shares renormalised;
        by default all. Named laws have 100 outputs by default.
    zipf_exponent : float
        Exponent of the Zipf law, ≥ 0.

    Raises
    ------
    InputError
        If the source is unknown, unreadable or empty, is no law, or has fewer than ``n_outputs`` outputs.
    """
    if not isinstance(source, str):
        return HumanSource(_checked_law(source, n_outputs), origin={"source": "array"})
    kind, _, path = source.partition(":")
    if path and kind in ("text", "counts"):
        file = existing_file(path)
        return _most_frequent(*_read(kind, file, file.stat().st_mtime_ns), source, n_outputs)
    if source == "english":
        with resources.as_file(resources.files("ecosystem") / "data" / "english_words.csv") as file:
            return _most_frequent(*_read("counts", file, 0), source, n_outputs)
    size = n_outputs or DEFAULT_OUTPUTS
    if source == "uniform":
        return HumanSource(_normalised(np.ones(size)), origin={"source": source})
    if source == "zipf":
        return HumanSource(_normalised(np.arange(1.0, size + 1) ** -zipf_exponent), origin={"source": source})
    raise InputError(f"{source!r} is not a human source; allowed: {ALLOWED}")


def existing_file(path: str) -> Path:
    """Return the path of a file that is there, or raise `InputError`."""
    file = expanded(path)
    try:
        if file.is_file():
            with file.open("rb"):
                return file
        what = "is a folder" if file.is_dir() else "is no plain file" if file.exists() else "does not exist"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    raise InputError(f"the file {file} {what}; give the path of a file")


def expanded(path: str) -> Path:
    """Return a path with ~ replaced by the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"the path {path} names a user who is not known; write it in full") from None


def _normalised(weights: Floats) -> Floats:
    law = weights / fsum(weights)  # correctly rounded, so that the law is the same on every machine
    law.flags.writeable = False
    return law


def _checked_law(values: Floats, n_outputs: int | None) -> Floats:
    law = np.array(values, dtype=np.float64)
    if law.ndim != 1 or law.size == 0:
        raise InputError(f"an array of shape {law.shape} is no law: give one probability per output")
    if not np.isfinite(law).all() or (law < 0).any():
        worst = int(np.flatnonzero(~np.isfinite(law) | (law < 0))[0])
        raise InputError(f"entry {worst} is {law[worst]}: probabilities are finite and not negative")
    if abs(total := fsum(law)) == 0 or abs(total - 1) > 1e-6:
        raise InputError(f"the probabilities sum to {total:.6g}, not to 1: divide them by their sum")
    if n_outputs is not None and n_outputs != law.size:
        raise InputError(f"the array has {law.size} entries but n_outputs = {n_outputs}: leave n_outputs out")
    return _normalised(law)


def _most_frequent(
    counts: dict[str, int], origin: dict[str, Any], source: str, n_outputs: int | None
) -> HumanSource:
    size = n_outputs or len(counts)
    if size > len(counts):
        raise InputError(
            f"{source!r} has {len(counts)} distinct outputs, fewer than n_outputs = {n_outputs}: "
            f"give at most {len(counts)}, or leave n_outputs out to keep them all"
        )
    ranked = sorted(counts, key=lambda label: (-counts[label], label))[:size]
    weights = np.array([counts[label] for label in ranked], dtype=np.float64)
    covered = float(weights.sum() / origin["items"])
    return HumanSource(
        _normalised(weights), tuple(ranked), {"source": source, **origin, "covered_share": covered}
    )


@lru_cache(maxsize=8)
def _read(kind: str, file: Path, modified: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Count the outputs of a file once for as long as it does not change."""
    try:
        counts, digest = (_count_words if kind == "text" else _read_counts)(file)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: {error.reason} at byte {error.start}; the file must be UTF-8, "
            f"e.g. iconv -f latin1 -t utf-8 {file.name} > utf8-{file.name}"
        ) from None
    return counts, {"sha256": digest, "items": sum(counts.values()), "distinct": len(counts)}


def _count_words(file: Path) -> tuple[dict[str, int], str]:
    """Count lower-case words, reading a chunk at a time: memory grows with the distinct words only."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    digest = hashlib.sha256()
    counts: Counter[str] = Counter()
    carried, read = "", 0
    size = file.stat().st_size
    with (
        file.open("rb") as stream,
        tqdm(total=size, desc=f"reading {file.name}", unit="B", unit_scale=True, delay=1, leave=False) as bar,
    ):
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            pending = len(decoder.getstate()[0])
            try:
                text = carried + decoder.decode(chunk)
            except UnicodeDecodeError as error:
                error.start += read - pending
                raise
            read += len(chunk)
            # The last word may go on in the next chunk; an apostrophe may be followed by more of it.
            cut = len(text)
            while cut and not text[cut - 1].isspace() and len(text) - cut <= _LONGEST_WORD:
                cut -= 1
            if len(text) - cut > _LONGEST_WORD:
                raise InputError(
                    f"{file} has more than {_LONGEST_WORD} characters without a space before byte {read}: "
                    "it is not a text of words; give a plain text, or count its items yourself (counts:PATH)"
                )
            counts.update(_WORD.findall(text[:cut].lower()))
            carried = text[cut:]
            bar.update(len(chunk))
        try:
            carried += decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            error.start = read - 1
            raise
        counts.update(_WORD.findall(carried.lower()))
    if size == 0:
        raise InputError(f"{file} is empty; give a text with words in it")
    if not counts:
        raise InputError(f"{file} holds no words (no letters in {size} bytes); give a text with words in it")
    return dict(counts), digest.hexdigest()


def _read_counts(file: Path) -> tuple[dict[str, int], str]:
    raw = file.read_bytes()
    text = raw.decode("utf-8-sig")
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        counts = dict(_counted(file, rows))
    except csv.Error as error:
        raise InputError(f"{file}, line {rows.line_num}: {error}; give rows of output and count") from None
    if not counts:
        raise InputError(f"{file} holds no counts; give rows of output and count, e.g. the,2313")
    return counts, hashlib.sha256(raw).hexdigest()


def _counted(file: Path, rows: Iterable[list[str]]) -> Iterable[tuple[str, int]]:
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, start=1):
        if not row:
            continue
        where = f"{file}, line {line}"
        if len(row) != 2:
            raise InputError(f"{where}: {len(row)} columns; give two, output and count, e.g. the,2313")
        output, count = row[0].strip(), row[1].strip()
        if not count.isascii() or not count.isdigit() or len(count) > 18:
            if line == 1 and not any(character.isdigit() for character in count):
                continue  # a header
            raise InputError(f"{where}: the count {count!r} must be a whole number from 0 to 10^18")
        if output in seen:
            raise InputError(f"{where}: {output!r} was already counted in line {seen[output]}; add them up")
        seen[output] = line
        if int(count) > 0:
            yield output, int(count)
