"""Strategies that are none, combinations that cannot be, and launchers that start other counts."""

import pytest

from vision.config.load import load_config
from vision.config.schema import TrainerConfig
from vision.training.check import check_config
from vision.training.devices import check_launch

CONFIG = ("configs/vit_ti.yaml", "configs/norm/seednorm.yaml")
FSDP = "trainer.strategy=fsdp"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["trainer.strategy=fsdpp"], r"trainer\.strategy = 'fsdpp': expected auto, ddp"),
        (["trainer.sharded_checkpoint=true"], r"only trainer\.strategy=fsdp has parts"),
        ([FSDP, "trainer.compile=true"], r"trainer\.compile = true: not with"),
        ([FSDP, "model.linear_probe=true"], r"model\.linear_probe = true: its batch norm"),
        ([FSDP, "trainer.precision=16-mixed"], r"trainer\.precision = '16-mixed'.*bf16-mixed"),
    ],
)
def test_what_cannot_be_is_told_with_its_key(overrides: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_config(load_config([*CONFIG], overrides).config)


@pytest.mark.parametrize(
    "overrides",
    [
        [FSDP, "trainer.sharded_checkpoint=true", "ema.decay=0.99", "optim.clip_grad=1"],
        ["trainer.strategy=ddp_find_unused_parameters_true"],
    ],
)
def test_what_can_be_passes(overrides: list[str]) -> None:
    check_config(load_config([*CONFIG], overrides).config)


def test_a_launcher_that_starts_another_number_of_processes_is_told() -> None:
    torchrun = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "8", "SLURM_JOB_NAME": "train"}
    check_launch(TrainerConfig(devices=4, num_nodes=2), torchrun)
    with pytest.raises(ValueError, match=r"trainer\.devices = 1: .* torchrun starts 8"):
        check_launch(TrainerConfig(), torchrun)
    srun = {"SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2"}
    with pytest.raises(ValueError, match=r"trainer\.devices = 1: .* srun starts 2"):
        check_launch(TrainerConfig(), srun)
    check_launch(TrainerConfig(), {**srun, "SLURM_JOB_NAME": "bash"})  # at a prompt: one alone
    check_launch(TrainerConfig(devices=2), {})  # Lightning starts the other
