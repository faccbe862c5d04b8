import hashlib
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from ecosystem import InputError, Scenario, human


def test_named_laws():
    np.testing.assert_array_equal(human.load("uniform", 4).law, np.full(4, 0.25))
    zipf = human.load("zipf", 3, zipf_exponent=2).law
    np.testing.assert_allclose(zipf, np.array([1, 1 / 4, 1 / 9]) / (1 + 1 / 4 + 1 / 9))


def test_array_is_copied_and_frozen():
    given = np.array([0.2, 0.8])
    law = human.load(given).law
    given[0] = 5
    np.testing.assert_array_equal(law, [0.2, 0.8])
    with pytest.raises(ValueError, match="read-only"):
        law[0] = 1


def test_shipped_counts_are_what_their_note_says():
    data = resources.files("ecosystem") / "data"
    raw = (data / "english_words.csv").read_bytes()
    assert hashlib.sha256(raw).hexdigest() in (data / "README.md").read_text(encoding="utf-8")
    source = human.load("english")
    assert source.law.size == 20000
    assert source.labels[:3] == ("the", "of", "and")
    assert source.law[0] == pytest.approx(23135851162 / source.origin["items"])
    assert human.load("english", 100).origin["covered_share"] < 1


def test_words_of_a_text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("Don't panic! The THE the café\u2014caf\u00e9 42 snake_case", encoding="utf-8")
    source = human.load(f"text:{file}")
    assert dict(zip(source.labels, source.law * 9, strict=True)) == pytest.approx(
        {"the": 3, "café": 2, "don't": 1, "panic": 1, "snake": 1, "case": 1}
    )


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_words_do_not_depend_on_where_chunks_end(tmp_path, monkeypatch, chunk):
    text = "the rock 'n' roll\u2019s d\u00e9j\u00e0 vu \U0001f600 o'clock\nthe end" * 3
    file = tmp_path / f"text{chunk}.txt"
    file.write_bytes(text.encode())
    whole = human._count_words(file)
    monkeypatch.setattr(human, "_CHUNK", chunk)
    assert human._count_words(file) == whole
    assert whole[0]["déjà"] == 3


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@pytest.mark.parametrize(
    ("content", "byte"), [(b"caf\xe9 au lait", 3), (b"all is well \xc3", 12), (b"\xff\xfe", 0)]
)
def test_undecodable_bytes_are_located(tmp_path, monkeypatch, chunk, content, byte):
    monkeypatch.setattr(human, "_CHUNK", chunk)
    file = tmp_path / f"latin{chunk}{byte}.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"byte {byte}; the file must be UTF-8"):
        Scenario(human=f"text:{file}")


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"123 456 !!", "no words"), (b"a" * 5000, "without a space")]
)
def test_texts_without_words(tmp_path, content, message):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Scenario(human=f"text:{file}")


@pytest.mark.parametrize("header", ["", "word,count\n"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_tables_of_counts(tmp_path, header, separator):
    file = tmp_path / "counts.csv"
    file.write_text((header + "b,1\na,3\nnever,0\nc,1\n").replace(",", separator))
    source = human.load(f"counts:{file}")
    assert source.labels == ("a", "b", "c")
    np.testing.assert_allclose(source.law, [0.6, 0.2, 0.2])
    assert human.load(f"counts:{file}", 1).origin["covered_share"] == 0.6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no counts"),
        ("word,count\n", "no counts"),
        ("a,1\nb\n", "line 2: 1 columns"),
        ("a,1\nb,-2\n", "line 2: the count '-2'"),
        ("a,1.5\n", "line 1: the count '1.5'"),
        ("a,1\nb,many\n", "line 2: the count 'many'"),
        ("a,1\na,2\n", "already counted in line 1"),
        ("a,0\n", "no counts"),
    ],
)
def test_bad_tables_are_located(tmp_path, content, message):
    file = tmp_path / "counts.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        Scenario(human=f"counts:{file}")


@pytest.mark.slow
def test_a_text_of_100_mb_reads_in_bounded_memory(tmp_path):
    file = tmp_path / "large.txt"
    words = [f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(10000)]
    line = (" ".join(words) + "\n").encode()
    with file.open("wb") as stream:
        for _ in range(100_000_000 // len(line) + 1):
            stream.write(line)
    script = (
        "import resource, sys; from ecosystem import human\n"
        "human.load('english'); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "source = human.load('text:' + sys.argv[1])\n"
        "print(source.law.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=True)
    distinct, kilobytes = map(int, done.stdout.split())
    assert distinct == 10000
    assert kilobytes < 100_000
    assert "large.txt" in done.stderr  # the progress bar
