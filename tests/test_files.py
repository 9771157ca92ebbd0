"""Files are written whole or not at all, whatever happens during the write."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from alexnet_mf import files

OLD, NEW = b"the old content", b"the new content " * 10


@pytest.fixture(autouse=True)
def small_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit a write to 100 bytes, so that a file takes several writes."""
    monkeypatch.setattr(files, "MOST_PER_WRITE", 100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_file_is_synchronized_before_its_rename_and_the_folder_after(path, failing_os):
    recorded = failing_os()
    files.write(path, NEW)
    assert path.read_bytes() == NEW
    assert recorded.calls == [
        "open", "write", "write", "close", "open", "fsync", "close", "replace", "open", "fsync", "close"]
    assert os.listdir(path.parent) == ["file"]


def test_a_file_that_another_library_writes_is_synchronized_too(path, failing_os):
    recorded = failing_os()
    with files.replacing(path) as partial:
        partial.write_bytes(NEW)
    assert path.read_bytes() == NEW
    assert recorded.calls == ["open", "fsync", "close", "replace", "open", "fsync", "close"]
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [None, errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("at", range(11))
@pytest.mark.parametrize("old", [OLD, None], ids=["replaced", "new"])
def test_a_failure_at_any_call_leaves_the_old_or_the_new_file_whole(path, failing_os, old, at, error):
    if old is not None:
        path.write_bytes(old)
    failing = failing_os(at, error)
    with pytest.raises(failing.Crash if error is None else OSError):
        files.write(path, NEW)
    content = path.read_bytes() if path.exists() else None
    assert content == (old if at < 8 else NEW)
    if error is not None:
        assert os.listdir(path.parent) == (["file"] if content else []), "an error leaves no partial file"
    failing_os()
    files.write(path, NEW + OLD)
    assert path.read_bytes() == NEW + OLD
    files.remove_partial(path.parent)
    assert os.listdir(path.parent) == ["file"]


def test_writing_to_a_link_changes_its_target(path):
    path.write_bytes(OLD)
    link = path.with_name("link")
    link.symlink_to(path)
    files.write(link, NEW)
    assert link.is_symlink()
    assert path.read_bytes() == NEW


def rename_over(path: Path, content: bytes) -> None:
    """Write by a rename, as safetensors does: as root, a trace written to /dev/null replaced the device."""
    with files.replacing(path) as whole:
        other = path.with_name("other")
        other.write_bytes(content)
        os.replace(other, whole)


@pytest.mark.parametrize("write", [files.write, rename_over])
def test_a_pipe_stays_a_pipe(path, write):
    os.mkfifo(path)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()), daemon=True)
    reader.start()
    write(path, NEW)
    reader.join(10)
    assert received == [NEW] and path.is_fifo()


def test_linked_files_do_not_share_later_writes(path):
    other = path.with_name("other")
    files.write(path, OLD)
    files.link(path, other)
    files.link(path, other)
    assert path.samefile(other)
    files.write(path, NEW)
    assert (path.read_bytes(), other.read_bytes()) == (NEW, OLD)
    assert sorted(os.listdir(path.parent)) == ["file", "other"]


def test_a_file_system_without_links_gets_a_copy(path, failing_os):
    files.write(path, OLD)
    failing_os(0, errno.EPERM)
    files.link(path, path.with_name("other"))
    assert path.with_name("other").read_bytes() == OLD
    assert not path.samefile(path.with_name("other"))


def test_a_growing_file_is_truncated_and_continued(path):
    grown = files.GrowingFile(path)
    grown.write(b"one\n")
    at_one = (grown.size, grown.checksum())
    grown.write(b"two\n")
    grown.close()
    assert at_one == (4, hashlib.sha256(b"one\n").hexdigest())
    again = files.GrowingFile(path, keep=4)
    again.write(b"three\n")
    assert (again.size, again.checksum()) == (10, hashlib.sha256(b"one\nthree\n").hexdigest())
    again.close()
    assert path.read_bytes() == b"one\nthree\n"


# Files of other programs


def test_read_refuses_large_files_folders_and_bad_paths(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert files.read(path, 7) == b"content"
    for other, most, message in ((path, 6, "larger than 6e-06 MB"), (tmp_path, 9, "not a file"),
                                 (tmp_path / "gone", 9, "No such file"), (Path("a\0b"), 9, "the path has a null byte")):
        with pytest.raises(OSError, match=message):
            files.read(other, most)


def test_reading_takes_the_memory_of_the_content_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    tracemalloc.start()
    files.read(tmp_path / "file", 10**9)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_parse_json_refuses_invalid_json():
    assert files.parse_json(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    for text in ("", "{", "NaN", "[-Infinity]", "[" * 100_000, b"\xff", "1" * 5000):
        with pytest.raises(ValueError):
            files.parse_json(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_is_read_in_every_encoding_with_a_mark(path, encoding):
    """PowerShell's `>` writes UTF-16 with a byte order mark, Windows' Notepad UTF-8 with one."""
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    path.write_bytes(f"{mark}tä\r\nb\n".encode(encoding))
    assert files.read_text(path, 100) == "tä\r\nb\n"


@pytest.mark.parametrize("content, message", [
    ("tä".encode("latin-1"), r"is not UTF-8 text \(byte 0xe4 at position 1\); save it as UTF-8"),
    ("tt".encode("utf-16-le"), r"is not UTF-8 text \(null bytes, as in UTF-16 without a byte order mark\); save it"),
    ("tt".encode("utf-32"), "null bytes"), (b"\xff\xfet", r"is not UTF-8 text \(byte 0x74 at position 2\)"),
    (b"\xff\xfe\x00\xd8", "is not UTF-8 text")])
def test_text_in_another_encoding_is_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.read_text(path, 100)


def test_a_text_that_is_too_large_is_not_read(path):
    path.write_bytes(bytes(101))
    with pytest.raises(OSError, match=r"larger than 0\.0001 MB"):
        files.read_text(path, 100)
