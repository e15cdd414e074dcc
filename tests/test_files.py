"""Files are written whole or not at all, and unreadable ones say where they break."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from nnas_core.errors import EnvironmentFailure, InputError
from nnas_core.files import (
    append_json_line,
    atomic_writer,
    dump_json,
    parse_json,
    prepare_folder,
    read_json,
    read_json_lines,
    write_json,
)


class TestAtomicWriter:
    def test_the_content_is_there_afterwards(self, tmp_path):
        with atomic_writer(tmp_path / "f") as stream:
            stream.write(b"new")
        assert (tmp_path / "f").read_bytes() == b"new"

    def test_before_the_end_the_old_content_is_there(self, tmp_path):
        (tmp_path / "f").write_bytes(b"old")
        with atomic_writer(tmp_path / "f") as stream:
            stream.write(b"new")
            stream.flush()
            during = (tmp_path / "f").read_bytes()
        assert (during, (tmp_path / "f").read_bytes()) == (b"old", b"new")

    @pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt, SystemExit])
    def test_a_failure_leaves_the_old_content_and_nothing_else(self, tmp_path, error):
        (tmp_path / "f").write_bytes(b"precious")

        def write_half():
            with atomic_writer(tmp_path / "f") as stream:
                stream.write(b"half")
                raise error

        with pytest.raises(error):
            write_half()
        assert ({path.name: path.read_bytes() for path in tmp_path.iterdir()}) == {"f": b"precious"}

    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
    def test_the_mode_of_the_old_file_is_kept(self, tmp_path, mode):
        (tmp_path / "f").write_bytes(b"")
        (tmp_path / "f").chmod(mode)
        write_json(tmp_path / "f", {})
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode

    def test_a_new_file_gets_the_mode_of_the_umask(self, tmp_path):
        before = os.umask(0o027)
        try:
            write_json(tmp_path / "f", {})
            after = os.umask(0o027)
        finally:
            os.umask(before)
        assert (stat.S_IMODE((tmp_path / "f").stat().st_mode), after) == (0o640, 0o027)

    def test_a_link_stays_a_link_and_its_target_is_replaced(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "f").write_bytes(b"old")
        (tmp_path / "link").symlink_to("real/f")
        write_json(tmp_path / "link", [1])
        assert ((tmp_path / "link").is_symlink(), read_json(tmp_path / "real" / "f")) == (True, [1])

    def test_a_link_to_nothing_yet_creates_its_target(self, tmp_path):
        (tmp_path / "link").symlink_to("later")
        write_json(tmp_path / "link", [1])
        assert ((tmp_path / "link").is_symlink(), read_json(tmp_path / "later")) == (True, [1])

    def test_a_pipe_stays_a_pipe_and_gets_the_content(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        received = []
        reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
        reader.start()
        write_json(tmp_path / "pipe", [1])
        reader.join()
        assert (received, stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)) == ([b"[\n  1\n]\n"], True)

    def test_a_folder_is_not_replaced(self, tmp_path):
        with pytest.raises(EnvironmentFailure, match="cannot write: it is a directory") as caught:
            write_json(tmp_path, {})
        assert caught.value.hint == "give the name of a file"

    def test_a_part_of_the_path_that_is_a_file(self, tmp_path):
        (tmp_path / "f").write_bytes(b"")
        with pytest.raises(EnvironmentFailure, match="cannot write: a part of the path is not a directory"):
            write_json(tmp_path / "f" / "g", {})

    def test_a_full_disk_is_named_and_the_old_content_stays(self, tmp_path):
        (tmp_path / "f").write_text("old")
        program = (
            "import resource, signal\n"
            "from nnas_core.files import write_json\n"
            "from nnas_core.errors import EnvironmentFailure\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try:\n"
            f"    write_json({str(tmp_path / 'f')!r}, ['x' * 100] * 1000)\n"
            "except EnvironmentFailure as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (
            f"{tmp_path / 'f'}: cannot write: the file would be larger than is allowed here\n",
            "",
        )
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "old"}

    def test_dev_full_is_a_full_disk(self):
        with pytest.raises(EnvironmentFailure, match="/dev/full: cannot write: no space left on the device"):
            write_json("/dev/full", {})


class TestJson:
    def test_keys_are_sorted_with_two_spaces_and_a_final_newline(self):
        assert dump_json({"b": [1], "a": {"é": None}}) == (
            '{\n  "a": {\n    "é": null\n  },\n  "b": [\n    1\n  ]\n}\n'
        )

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
    def test_a_number_that_json_does_not_know_is_not_written(self, tmp_path, number):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(tmp_path / "f", [number])
        assert list(tmp_path.iterdir()) == []

    def test_equal_documents_are_equal_bytes(self):
        assert dump_json({"a": 1, "b": 2}) == dump_json({"b": 2, "a": 1})

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"a": 1,\n "b" 2}', r"file\.json:2:6: not JSON: expecting ':' delimiter"),
            (b'{"a": 1}}', r"file\.json:1:9: not JSON: extra data"),
            (b"", r"file\.json:1:1: is empty, JSON is needed"),
            (b" \n\t ", "is empty, JSON is needed"),
            (b"[NaN]", r"file\.json: not JSON: NaN is not a number that JSON knows"),
            (b"[-Infinity]", r"file\.json: not JSON: -Infinity is not a number that JSON knows"),
            (b'{"a": {"x": 1, "x": 2}}', r"file\.json: not JSON: the name 'x' stands twice in one object"),
            (b'["\xff"]', r"file\.json: not UTF-8 text \(byte 2\)"),
            (b"[" * 100_000, r"file\.json: not a document of ours: nested too deeply"),
            (b"1" * 5_000, r"file\.json: not a document of ours: a number is too long"),
        ],
        ids=["syntax", "extra", "empty", "blank", "nan", "infinity", "twice", "bytes", "deep", "long"],
    )
    def test_what_is_wrong_is_said_with_its_place(self, content, message):
        with pytest.raises(InputError, match=message):
            parse_json(content, "file.json")

    def test_a_byte_order_mark_is_passed_over(self):
        assert parse_json(b"\xef\xbb\xbf[1]", "file.json") == [1]

    def test_no_such_file(self, tmp_path):
        with pytest.raises(InputError, match=r"f\.json: no such file"):
            read_json(tmp_path / "f.json")


class TestJsonLines:
    def test_objects_come_back_in_order(self, tmp_path):
        append_json_line(tmp_path / "e", {"n": 1})
        append_json_line(tmp_path / "e", {"n": 2})
        assert read_json_lines(tmp_path / "e") == [{"n": 1}, {"n": 2}]

    def test_one_object_is_one_line(self, tmp_path):
        append_json_line(tmp_path / "e", {"text": "two\nlines", "a": 1})
        assert (tmp_path / "e").read_text() == '{"a": 1, "text": "two\\nlines"}\n'

    def test_a_torn_last_line_is_passed_over(self, tmp_path):
        (tmp_path / "e").write_bytes(b'{"n": 1}\n{"n": 2')
        assert read_json_lines(tmp_path / "e") == [{"n": 1}]

    @pytest.mark.parametrize("torn", [b'{"n": 2', b'{"n": "\xc3', b"{"])
    def test_what_is_appended_after_a_torn_line_is_not_lost(self, tmp_path, torn):
        (tmp_path / "e").write_bytes(b'{"n": 1}\n' + torn)
        append_json_line(tmp_path / "e", {"n": 3})
        assert read_json_lines(tmp_path / "e") == [{"n": 1}, {"n": 3}]

    def test_nothing_is_appended_for_a_record_that_is_no_json(self, tmp_path):
        append_json_line(tmp_path / "e", {"n": 1})
        with pytest.raises(ValueError, match="JSON compliant"):
            append_json_line(tmp_path / "e", {"n": float("nan")})
        assert (tmp_path / "e").read_text() == json.dumps({"n": 1}) + "\n"

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path):
        with pytest.raises(EnvironmentFailure, match="cannot write: it is a directory"):
            append_json_line(tmp_path, {})


class TestPrepareFolder:
    def test_it_is_made_with_its_parents(self, tmp_path):
        assert prepare_folder(tmp_path / "a" / "b").is_dir()

    def test_a_file_in_the_way_is_named(self, tmp_path):
        (tmp_path / "f").write_text("")
        with pytest.raises(EnvironmentFailure, match="a file of that name is in the way"):
            prepare_folder(tmp_path / "f")
