"""The results of many runs as Parquet: a shard for every chunk, one sorted file in the end.

A folder holds ``runs.parquet`` and ``failures.parquet``, written when all is done, and until then
``shards/``, one small file for every chunk of runs. Each file appears whole or not at all. A process killed
while files are merged can leave a run in two of them; its rows are the same in both, and are read once.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecosystem.errors import InputError
from ecosystem.scenario import write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TABLES = ("runs", "failures")

_MERGE = 256  # shards that are merged into one, so that a sweep of days leaves no million of files
_BLOCK = 200_000  # rows of the sorted file that are in memory at once, about


class Shards:
    """The two tables of a folder: ``runs``, and ``failures`` for the runs that gave nothing.

    Parameters
    ----------
    folder : Path
        Is made if it is not there.
    schemas : mapping of table to pyarrow schema
        Each with the columns ``run`` (identifies a run), ``point`` and ``replicate``.
    """

    def __init__(self, folder: Path, schemas: Mapping[str, pa.Schema]) -> None:
        self.folder, self.schemas = folder, schemas
        self.parts = folder / "shards"
        folder.mkdir(parents=True, exist_ok=True)
        for partial in (*folder.glob(".*.partial"), *self.parts.glob(".*.partial")):
            partial.unlink(missing_ok=True)  # of a process that was killed
        self._small = len(files(folder, "runs"))

    def add(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Save rows of whole runs; when this returns they outlive the process."""
        if not rows:
            return
        self.parts.mkdir(exist_ok=True)
        _write(
            pa.Table.from_pylist(rows, self.schemas[table]), self.parts / f"{table}-{rows[0]['run']}.parquet"
        )
        if table == "runs":
            self._small += 1
            if self._small > _MERGE:
                self._merge()

    def done(self, table: str) -> set[str]:
        """Return the runs that a table holds."""
        found: set[str] = set()
        for file in files(self.folder, table):
            found.update(_read(file, ["run"])["run"].unique().to_pylist())
        return found

    def forget(self, table: str) -> None:
        """Drop a table."""
        for file in files(self.folder, table):
            file.unlink()

    def renumber(self, points: Mapping[str, int]) -> None:
        """Give every run the number that its point has in a design that has grown."""
        for table in TABLES:
            for file in files(self.folder, table):
                old = _read(file)
                new = pa.array([points[run] for run in old["run"].to_pylist()], pa.int64())
                if not new.equals(old["point"].combine_chunks()):
                    place = old.schema.get_field_index("point")
                    _write(old.set_column(place, self.schemas[table].field("point"), new), file)

    def compact(self) -> None:
        """Merge everything into one file a table, sorted by point, replicate and round."""
        for table in TABLES:
            parts = files(self.folder, table)
            target = self.folder / f"{table}.parquet"
            if parts == [target]:
                continue  # a table without rows is written as well
            partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
            try:
                with partial.open("wb") as stream:
                    with pq.ParquetWriter(stream, self.schemas[table], **_format(self.schemas[table])) as out:
                        for block in _sorted_blocks(parts, self.schemas[table]):
                            out.write_table(block)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            for part in parts:
                if part != target:
                    part.unlink()
        self._small = 0
        with suppress(OSError):
            self.parts.rmdir()

    def _merge(self) -> None:
        """Replace the small shards by one of all their rows."""
        parts = sorted(self.parts.glob("runs-*.parquet"))
        whole = pa.concat_tables([_read(part) for part in parts])
        name = str(whole["run"][0])
        _write(whole, self.parts / f"runs+{name}-{len(whole)}.parquet")
        for part in parts:
            part.unlink()
        self._small = 0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write to a folder; the lock ends with the process, however it ends.

    Folders that are made for it are removed if they are empty in the end.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another command is writing to {folder}; wait for it, or stop it") from None
            except OSError:
                pass  # a file system without locks
        yield
    finally:
        if handle is not None:
            os.close(handle)
        with suppress(OSError):
            for place in made:
                place.rmdir()


def files(folder: Path, table: str) -> list[Path]:
    """Return the files of a table, the sorted one first."""
    compacted = folder / f"{table}.parquet"
    shards = folder / "shards"
    parts = sorted((*shards.glob(f"{table}-*.parquet"), *shards.glob(f"{table}+*.parquet")))
    return [compacted, *parts] if compacted.is_file() else parts


def read(folder: Path, table: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Return a table of a folder, sorted, each run once, whether or not all is done."""
    parts = files(folder, table)
    if not parts:
        return pd.DataFrame(columns=columns)
    if parts == [folder / f"{table}.parquet"]:
        return _read(parts[0], columns).to_pandas()
    schema = pq.read_schema(parts[0])
    rows = _sorted(pa.concat_tables([_read(part) for part in parts]), schema)
    return rows.select(columns or rows.column_names).to_pandas()


def _sorted_blocks(parts: list[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield all rows in order, a range of points at a time."""
    if not parts:
        return
    rows: dict[int, int] = {}
    for part in parts:
        for count in _read(part, ["point"])["point"].value_counts().to_pylist():
            rows[count["values"]] = rows.get(count["values"], 0) + count["counts"]
    for low, high in _ranges(rows):
        inside = [("point", ">=", low), ("point", "<=", high)]
        yield _sorted(pa.concat_tables([_read(part, filters=inside) for part in parts]), schema)


def _ranges(rows: Mapping[int, int]) -> Iterable[tuple[int, int]]:
    """Yield ranges of points that hold about `_BLOCK` rows each."""
    low, held, last = None, 0, 0
    for point in sorted(rows):
        low, held, last = point if low is None else low, held + rows[point], point
        if held >= _BLOCK:
            yield low, point
            low, held = None, 0
    if low is not None:
        yield low, last


def _sorted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    keys = [name for name in ("point", "replicate", "round") if name in schema.names]
    frame = rows.select(["run", *keys]).to_pandas().drop_duplicates(["run", *keys[2:]])
    return rows.take(pa.array(frame.sort_values(keys, kind="stable").index.to_numpy()))


def _read(file: Path, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns, filters=filters, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file} is damaged ({reason}); remove it, and its runs are repeated") from None


def _write(rows: pa.Table, file: Path) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, **_format(rows.schema))
    write_atomically(file, buffer.getvalue().to_pybytes())


def _format(schema: pa.Schema) -> dict[str, Any]:
    """Numbers change little from row to row: their bytes are stored place by place, then compressed."""
    numbers = [field.name for field in schema if pa.types.is_floating(field.type)]
    others = [field.name for field in schema if field.name not in numbers]
    return {"compression": "zstd", "use_dictionary": others, "use_byte_stream_split": numbers}
