"""A file that is replaced keeps what it is."""

from __future__ import annotations

import stat

from autolr.runtime.whole_file import write_whole


def test_its_mode_stays(tmp_path):
    file = tmp_path / "run.jsonl"
    file.write_text("old")
    file.chmod(0o664)
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o664
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]


def test_where_the_folder_takes_no_other_file_it_is_written_in_place(tmp_path, monkeypatch):
    file, write = tmp_path / "run.jsonl", type(tmp_path).write_text

    def refused(path, *arguments, **settings):
        if path.suffix == ".part":
            raise PermissionError(13, "Permission denied")
        return write(path, *arguments, **settings)

    file.write_text("old")
    monkeypatch.setattr(type(tmp_path), "write_text", refused)
    write_whole(file, "new")
    assert file.read_text() == "new"
