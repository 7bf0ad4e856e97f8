# ruff: noqa: E402 - what needs PyTorch is imported once it is known to be there
from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (requirements/training.txt)")
onnx = pytest.importorskip("onnx", reason="onnx is not installed (requirements/training.txt)")


from training.checkpoint import load
from training.data import Field
from training.errors import CheckpointError, WeightsError
from training.export import METADATA, export, session, verify
from training.exported_weights import load_exported_weights
from training.network import UNet, normalise
from training.sampler import Sampler
from training.settings import TrainingSettings
from training.slides import Teacher
from training.train import losses, rate_at, train

SMALL = TrainingSettings(steps=6, batch=2, size=32, warmup=2, decay=0.34, base=2, threads=1, seed=3, lessons=())


@pytest.fixture
def sampler(fields: dict[str, list[Field]]) -> Sampler:
    return Sampler(fields, SMALL.size, SMALL.batch, SMALL.seed)


def test_a_killed_run_resumes_to_the_same_weights(sampler: Sampler, tmp_path: Path) -> None:
    straight = train(sampler, SMALL, tmp_path / "a.pt", every=100)

    class Killed(Exception): ...

    class Mortal(Sampler):
        def batch_at(self, step: int):
            if step == 4:
                raise Killed
            return super().batch_at(step)

    with pytest.raises(Killed):
        train(Mortal(sampler.fields, SMALL.size, SMALL.batch, SMALL.seed), SMALL, tmp_path / "b.pt", every=3)
    resumed = train(sampler, SMALL, tmp_path / "b.pt", every=3)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_checkpoint_of_the_plateau_serves_another_number_of_steps(sampler: Sampler, tmp_path: Path) -> None:
    shorter = replace(SMALL, steps=5)
    straight = train(sampler, shorter, tmp_path / "a.pt")
    with pytest.raises(IndexError):
        train(_Short(sampler.fields, SMALL.size, SMALL.batch, SMALL.seed), SMALL, tmp_path / "b.pt", every=2)
    moved = train(sampler, shorter, tmp_path / "b.pt", every=2)
    assert all(torch.equal(value, moved.state_dict()[key]) for key, value in straight.state_dict().items())


class _Short(Sampler):
    def batch_at(self, step: int):
        if step == 3:
            raise IndexError
        return super().batch_at(step)


def test_a_training_starts_from_the_weights_of_a_model(sampler: Sampler, tmp_path: Path) -> None:
    first = train(sampler, SMALL, tmp_path / "a.pt")
    model = export(first, tmp_path / "models")
    tiles = np.concatenate([sampler.batch_at(step)[0] for step in range(3)])
    again = UNet(base=SMALL.base)
    load_exported_weights(again, model, tiles)
    with torch.no_grad():
        outputs = [network.eval()(normalise(torch.from_numpy(tiles))) for network in (first, again)]
    assert torch.allclose(*outputs, atol=1e-4)
    later = train(sampler, replace(SMALL, start="its hash"), tmp_path / "b.pt", model=model)
    assert not torch.equal(later.head.weight, first.head.weight)
    with pytest.raises(CheckpointError, match="start"):
        train(sampler, SMALL, tmp_path / "b.pt")


def test_the_weights_of_another_network_are_refused(sampler: Sampler, tmp_path: Path) -> None:
    model = export(UNet(base=3).eval(), tmp_path / "models")
    for path, text in (
        (model, "has no .* of shape"),
        (tmp_path / "none.onnx", "cannot be read"),
        (Path(__file__), "ONNX"),
    ):
        with pytest.raises(WeightsError, match=text):
            train(sampler, replace(SMALL, start="its hash"), tmp_path / "a.pt", model=path)


def test_a_checkpoint_of_other_settings_is_refused(sampler: Sampler, tmp_path: Path) -> None:
    train(sampler, SMALL, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="seed"):
        train(sampler, replace(SMALL, seed=4), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="steps"):
        train(sampler, replace(SMALL, steps=9), tmp_path / "a.pt")  # the rate of a past step would differ


def test_another_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_text("hi\n")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load(path)
    torch.save({"step": 1}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load(path)


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate_at(step, TrainingSettings(steps=100, warmup=10, decay=0.5, rate=1.0)) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[9:51]) == {1.0}
    assert all(a > b for a, b in itertools.pairwise(rates[50:]))
    assert rates[-1] < 0.01


def test_losses_vanish_for_a_perfect_output_and_not_for_a_wrong_one() -> None:
    target = torch.ones((1, 3, 8, 8))
    target[:, :2, 5:] = 0.0
    sure = (target[:, :2] - 0.5) * 80.0
    right, wrong = losses(sure, target), losses(-sure, target)
    assert all(float(part.max()) < 1e-3 for part in right)
    assert float(wrong[0].min()) > 10
    assert float(wrong[1].min()) > 0.9
    target[:, 1] = 0.5  # a depth: the right output is not a certain one, and has no loss either
    assert float(losses(torch.zeros_like(sure), target)[0][1]) < 1e-6


def test_unknown_pixels_have_no_loss() -> None:
    target = torch.zeros((1, 3, 8, 8))
    target[:, 2, :4] = 1.0
    output = torch.full((1, 2, 8, 8), -40.0)
    output[:, :, 4:] = 40.0
    entropy, dice = losses(output, target)
    assert float(entropy.max()) < 1e-3
    assert float(dice.max()) < 1e-3


def test_exports_a_checked_model(sampler: Sampler, tmp_path: Path) -> None:
    network = train(sampler, SMALL, tmp_path / "a.pt")
    path = export(network, tmp_path / "models")
    verify(network, path)
    model = session(path)
    assert [(i.name, i.type, i.shape) for i in model.get_inputs()] == [
        ("tiles", "tensor(uint8)", ["batch", "height", "width", 3])
    ]
    assert [(o.name, o.type, o.shape) for o in model.get_outputs()] == [
        ("masks", "tensor(uint8)", ["batch", "height", "width", 2])
    ]
    assert model.get_modelmeta().custom_metadata_map == METADATA
    assert model.run(None, {"tiles": np.zeros((3, 32, 80, 3), np.uint8)})[0].shape == (3, 32, 80, 2)
    assert str(tmp_path).encode() not in path.read_bytes()
    first = path.read_bytes()
    assert export(network, tmp_path / "again").read_bytes() == first


def test_a_run_killed_after_a_pseudo_label_step_resumes_to_the_same_weights(
    sampler: Sampler, fields: dict[str, list[Field]], tmp_path: Path
) -> None:
    settings = replace(SMALL, lessons=(2, 4))
    slides = [fields["stained_he"][0].image]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    straight = train(sampler, settings, tmp_path / "a" / "c.pt", teacher=Teacher(slides, tmp_path / "a"))
    with pytest.raises(IndexError):
        train(
            _Short(sampler.fields, SMALL.size, SMALL.batch, SMALL.seed),
            settings,
            tmp_path / "b" / "c.pt",
            every=1,
            teacher=Teacher(slides, tmp_path / "b"),
        )
    assert not (tmp_path / "b" / "slides-4.npz").exists()
    resumed = train(sampler, settings, tmp_path / "b" / "c.pt", teacher=Teacher(slides, tmp_path / "b"))
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in straight.state_dict().items())
