"""Checkpoints: what was written is read, and nothing else is, whatever is in the file."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from nnas_core.errors import EnvironmentFailure, ExitCode, InputError
from nnas_core.runs.checkpoint import FORMAT, read_checkpoint, write_checkpoint

HEADER = {
    "nnas": "0.1.0",
    "torch": "2.13.0",
    "threads": 1,
    "command": "search",
    "model": "model.py",
    "seed": 0,
    "progress": {"epoch": 1, "epochs": 2, "batch": 0, "step": 10},
    "metrics": {"accuracy": 0.5},
}


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.pt"
    write_checkpoint(path, HEADER, {"state": {"model": {"w": torch.arange(4096.0)}, "list": [1, (2.5, None), b"x"]}})
    return path


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        read_checkpoint(path)
    assert caught.value.exit_code == ExitCode.INPUT
    assert str(caught.value).startswith(str(path))


class TestRoundTrip:
    def test_content_and_header_come_back(self, good):
        content = read_checkpoint(good)
        assert content["header"] == {"format": "nnas.checkpoint/1", **HEADER}
        assert torch.equal(content["state"]["model"]["w"], torch.arange(4096.0))
        assert content["state"]["list"] == [1, (2.5, None), b"x"]

    @pytest.mark.parametrize(
        "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    )
    def test_tensors_of_every_dtype(self, tmp_path, dtype):
        tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
        write_checkpoint(tmp_path / "c.pt", HEADER, {"t": tensor})
        again = read_checkpoint(tmp_path / "c.pt")["t"]
        assert (again.dtype, torch.equal(again, tensor)) == (dtype, True)

    def test_nan_infinity_and_empty_tensors(self, tmp_path):
        write_checkpoint(
            tmp_path / "c.pt", HEADER, {"t": torch.tensor([float("nan"), float("inf")]), "e": torch.empty(0, 3)}
        )
        content = read_checkpoint(tmp_path / "c.pt")
        assert (content["t"].isnan().tolist(), content["e"].shape) == ([True, False], (0, 3))

    def test_state_of_model_and_optimizer(self, tmp_path):
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        parts = {"model": OrderedDict(model.state_dict()), "optimizer": optimizer.state_dict()}
        write_checkpoint(tmp_path / "c.pt", HEADER, parts)
        again = read_checkpoint(tmp_path / "c.pt")
        assert torch.equal(again["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])

    def test_torch_itself_reads_it_with_weights_only(self, good):
        assert torch.load(good, weights_only=True)["header"]["format"] == FORMAT

    def test_views_of_one_storage_stay_views(self, tmp_path):
        whole = torch.arange(6.0)
        write_checkpoint(tmp_path / "c.pt", HEADER, {"whole": whole, "part": whole[2:4]})
        content = read_checkpoint(tmp_path / "c.pt")
        content["whole"][2] = 50.0
        assert content["part"].tolist() == [50.0, 3.0]


class TestWriting:
    @pytest.mark.parametrize(
        ("value", "path"),
        [
            (np.float64(0.5), r"checkpoint\['x'\] is a float64"),
            (np.float32(0.5), r"checkpoint\['x'\] is a float32"),
            ([1, {"deep": np.int64(1)}], r"checkpoint\['x'\]\[1\]\['deep'\] is a int64"),
            (np.zeros(2), r"checkpoint\['x'\] is a ndarray"),
            ({1, 2}, r"checkpoint\['x'\] is a set"),
            (Path("x"), r"checkpoint\['x'\] is a \w*Path"),
            (len, r"checkpoint\['x'\] is a builtin_function_or_method"),
            (torch.nn.Linear(1, 1), r"checkpoint\['x'\] is a Linear"),
            ({(1, 2): 3}, r"checkpoint\['x'\] has the key \(1, 2\) of type tuple"),
        ],
        ids=["float64", "float32", "deep int64", "array", "set", "path", "function", "module", "key"],
    )
    def test_what_could_not_be_read_again_is_refused_when_it_is_saved(self, tmp_path, value, path):
        with pytest.raises(TypeError, match=path):
            write_checkpoint(tmp_path / "c.pt", HEADER, {"x": value})
        assert list(tmp_path.iterdir()) == []

    def test_a_refused_write_keeps_the_previous_checkpoint(self, good):
        before = good.read_bytes()
        with pytest.raises(TypeError):
            write_checkpoint(good, HEADER, {"x": np.float64(1)})
        assert good.read_bytes() == before

    def test_a_full_disk_keeps_the_previous_checkpoint(self, good):
        before = good.read_bytes()
        program = (
            "import os, resource, signal, torch\n"
            f"before = open({str(good)!r}, 'rb').read()\n"
            "from nnas_core.runs.checkpoint import write_checkpoint\n"
            "from nnas_core.errors import EnvironmentFailure\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
            "for limit in 0, 5_000, 30_000:\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))\n"
            "    try:\n"
            f"        write_checkpoint({str(good)!r}, {HEADER!r}, {{'w': torch.zeros(100_000)}})\n"
            "    except EnvironmentFailure as error:\n"
            "        print(error)\n"
            f"    print(limit, os.listdir({str(good.parent)!r}), open({str(good)!r}, 'rb').read() == before)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        refused = f"{good}: cannot write: the file would be larger than is allowed here\n"
        left = [f"{refused}{limit} ['good.pt'] True\n" for limit in (0, 5_000, 30_000)]
        assert (done.stdout, done.stderr) == ("".join(left), "")
        assert good.read_bytes() == before

    def test_a_folder_that_does_not_exist_is_named(self, tmp_path):
        with pytest.raises(EnvironmentFailure, match="cannot write: no such directory") as caught:
            write_checkpoint(tmp_path / "none" / "c.pt", HEADER, {})
        assert caught.value.exit_code == ExitCode.ENVIRONMENT


class TestOtherFiles:
    @pytest.mark.parametrize("content", [b"", b"hello\n", b"PK\x03\x04", b"\x80\x02}q\x00.", bytes(range(256)) * 12])
    def test_a_file_of_something_else(self, tmp_path, content):
        (tmp_path / "c.pt").write_bytes(content)
        refused(tmp_path / "c.pt", "is not a checkpoint of nnas, or it is truncated")

    def test_no_such_file(self, tmp_path):
        refused(tmp_path / "c.pt", "no such file")

    def test_a_folder_with_a_checkpoint_in_it_is_explained(self, tmp_path):
        (tmp_path / "checkpoint.pt").write_bytes(b"")
        with pytest.raises(InputError, match="is a directory, a checkpoint file is needed") as caught:
            read_checkpoint(tmp_path)
        assert caught.value.hint == f"did you mean {tmp_path}/checkpoint.pt?"

    def test_a_plain_zip(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
            archive.writestr("readme.txt", "hello")
        refused(tmp_path / "c.pt", "is not a checkpoint of nnas, or it is damaged")

    def test_a_compressed_zip(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.pkl", b"x" * 10_000)
        refused(tmp_path / "c.pt", r"is not a checkpoint of nnas \(it is compressed\)")

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ({"weight": torch.ones(2)}, r"is not a checkpoint of nnas \(it has no header\)"),
            ([1, 2], r"is not a checkpoint of nnas \(it holds no dictionary\)"),
            (torch.ones(2), r"is not a checkpoint of nnas \(it holds no dictionary\)"),
            ({"header": 5}, r"is not a checkpoint of nnas \(it has no header\)"),
            ({"header": {"format": 1}}, r"is not a checkpoint of nnas \(it has no header\)"),
            (
                {"header": {"format": "nnas.checkpoint/2", **HEADER}},
                "has the format 'nnas.checkpoint/2', this nnas reads 'nnas.checkpoint/1'",
            ),
            ({"header": {"format": FORMAT}}, "not a checkpoint header"),
            ({"header": {"format": FORMAT, **HEADER, "threads": 0, "surplus": 1}}, "not a checkpoint header"),
        ],
        ids=["weights", "list", "tensor", "number", "number as format", "newer", "empty header", "two problems"],
    )
    def test_a_file_of_torch_save(self, tmp_path, content, match):
        torch.save(content, tmp_path / "c.pt")
        refused(tmp_path / "c.pt", match)

    def test_two_problems_of_a_header_are_both_listed(self, tmp_path):
        torch.save({"header": {"format": FORMAT, **HEADER, "threads": 0, "surplus": 1}}, tmp_path / "c.pt")
        with pytest.raises(InputError) as caught:
            read_checkpoint(tmp_path / "c.pt")
        assert len(caught.value.problems) == 2

    def test_a_file_of_the_legacy_format(self, tmp_path):
        torch.save({"header": HEADER}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
        refused(tmp_path / "c.pt", "is not a checkpoint of nnas, or it is truncated")


class TestDamage:
    @pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9, 0.99])
    def test_a_truncated_file(self, good, fraction):
        content = good.read_bytes()
        good.write_bytes(content[: int(len(content) * fraction)])
        refused(good, "is not a checkpoint of nnas, or it is truncated")

    @pytest.mark.parametrize("missing", [1, 5, 22])
    def test_a_file_that_lacks_its_last_bytes(self, good, missing):
        good.write_bytes(good.read_bytes()[:-missing])
        refused(good, "is not a checkpoint of nnas, or it is truncated")

    @pytest.mark.parametrize("bit", [0, 7])
    def test_one_flipped_bit_in_the_numbers(self, good, bit):
        content = bytearray(good.read_bytes())
        place = content.index(torch.arange(4096.0).numpy().tobytes()) + 8_001
        content[place] ^= 1 << bit
        good.write_bytes(content)
        refused(good, "is damaged: checksum mismatch in .*data/0")

    def test_no_flipped_bit_anywhere_leads_to_another_content_or_to_a_crash(self, tmp_path):
        path = tmp_path / "c.pt"
        write_checkpoint(path, HEADER, {"state": {"w": torch.arange(16.0)}})
        content, rng = path.read_bytes(), random.Random(0)
        outcomes = set()
        for _ in range(400):
            damaged = bytearray(content)
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            try:
                again = read_checkpoint(path)
            except InputError:
                outcomes.add("refused")
            else:  # padding, times and attributes of the archive mean nothing
                assert again["header"] == {"format": FORMAT, **HEADER}
                assert torch.equal(again["state"]["w"], torch.arange(16.0))
                outcomes.add("the same")
        assert outcomes == {"refused", "the same"}

    def rewritten(self, path, change):
        """The archive with its pickle changed and all checksums right."""
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, change(content) if name.endswith("data.pkl") else content)

    def test_no_flipped_bit_in_the_structure_leads_to_a_crash(self, tmp_path):
        path, rng, outcomes = tmp_path / "c.pt", random.Random(1), set()
        for _ in range(300):
            write_checkpoint(path, HEADER, {"state": {"w": torch.arange(16.0)}})

            def flip(content):
                damaged = bytearray(content)
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
                return bytes(damaged)

            self.rewritten(path, flip)
            try:
                read_checkpoint(path)
            except InputError:
                outcomes.add("refused")
        assert outcomes == {"refused"}

    def test_something_that_contains_itself(self, tmp_path):
        loop = []
        loop.append(loop)
        torch.save({"header": {"format": FORMAT, **HEADER}, "state": loop}, tmp_path / "c.pt")
        refused(tmp_path / "c.pt", "is damaged: .* is nested too deeply")

    def test_an_archive_that_claims_more_than_it_holds(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
            archive.writestr("a/data.pkl", b"x" * 100)
        content = (tmp_path / "c.pt").read_bytes()
        (tmp_path / "c.pt").write_bytes(content.replace((100).to_bytes(4, "little"), (2**31 - 1).to_bytes(4, "little")))
        refused(tmp_path / "c.pt", "is damaged: it claims to hold more than it does")


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


class TestUnsafe:
    def content(self, marker):
        return {"header": {"format": FORMAT, **HEADER}, "state": Touch(marker)}

    def test_code_in_a_zip_is_refused_and_not_run(self, tmp_path):
        torch.save(self.content(tmp_path / "marker"), tmp_path / "c.pt")
        with pytest.raises(InputError, match="holds more than tensors and plain data: refused, nothing in it was run"):
            read_checkpoint(tmp_path / "c.pt")
        assert not (tmp_path / "marker").exists()

    @pytest.mark.parametrize("legacy", [True, False])
    def test_code_in_a_legacy_file_or_a_bare_pickle_is_refused_and_not_run(self, tmp_path, legacy):
        content = self.content(tmp_path / "marker")
        if legacy:
            torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
        else:
            (tmp_path / "c.pt").write_bytes(pickle.dumps(content))
        refused(tmp_path / "c.pt", "is not a checkpoint of nnas, or it is truncated")
        assert not (tmp_path / "marker").exists()

    def test_the_file_would_have_run_its_code_elsewhere(self, tmp_path):
        torch.save(self.content(tmp_path / "marker"), tmp_path / "c.pt")
        torch.load(tmp_path / "c.pt", weights_only=False)
        assert (tmp_path / "marker").exists()

    def test_a_whole_module_is_refused(self, tmp_path):
        torch.save({"header": {"format": FORMAT, **HEADER}, "state": torch.nn.Linear(1, 1)}, tmp_path / "c.pt")
        refused(tmp_path / "c.pt", "holds more than tensors and plain data")

    def test_a_sparse_tensor_is_refused(self, tmp_path):
        torch.save(
            {"header": {"format": FORMAT, **HEADER}, "state": {"w": torch.eye(3).to_sparse()}}, tmp_path / "c.pt"
        )
        refused(tmp_path / "c.pt", "the tensor state.w is not dense")

    def test_a_small_storage_that_claims_to_be_large_is_refused(self, tmp_path):
        large = torch.zeros(1).expand(10**9)
        torch.save({"header": {"format": FORMAT, **HEADER}, "state": [large]}, tmp_path / "c.pt")
        refused(tmp_path / "c.pt", r"the tensor state\[0\] claims more elements than are stored")

    def test_a_meta_tensor_is_refused(self, tmp_path):
        torch.save({"header": {"format": FORMAT, **HEADER}, "w": torch.empty(3, device="meta")}, tmp_path / "c.pt")
        refused(tmp_path / "c.pt", "the tensor w is not dense|holds more than tensors")

    def test_reading_does_not_leave_sparse_checks_on(self, good):
        before = torch.sparse.check_sparse_tensor_invariants.is_enabled()
        read_checkpoint(good)
        assert torch.sparse.check_sparse_tensor_invariants.is_enabled() == before


def test_a_stream_is_no_path_but_its_bytes_are_what_torch_reads(good):
    # the format is torch's own: other tools can look into it
    assert sorted(torch.load(io.BytesIO(good.read_bytes()), weights_only=True)) == ["header", "state"]
