import pytest

from misc_utils.files import atomic_folder, atomic_path, write_bytes, write_text


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new folder" / "ssd7.weights.h5"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".ssd7.weights.h5")
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_refused_before_the_work(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"), atomic_path(tmp_path):
        pytest.fail("the block must not run")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_text(path, "Käse\n")
    assert path.read_bytes() == b"K\xc3\xa4se\n"
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"


def test_a_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "models" / "ssd7"
    with atomic_folder(path) as temporary:
        (temporary / "part").write_text("new")
        assert not path.exists()
    assert (path / "part").read_text() == "new"
    with atomic_folder(path) as temporary:
        (temporary / "other part").write_text("newer")
    assert [file.name for file in path.iterdir()] == ["other part"]
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_block_leaves_the_old_folder_and_nothing_else(tmp_path):
    path = tmp_path / "ssd7"
    path.mkdir()
    (path / "part").write_text("old")

    def write_half():
        with atomic_folder(path) as temporary:
            (temporary / "part").write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert (path / "part").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(NotADirectoryError, match="is a file"), atomic_folder(path):
        pytest.fail("the block must not run")
