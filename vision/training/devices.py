"""Which settings of the trainer go together, and whether a run was started for its devices."""

from __future__ import annotations

from collections.abc import Mapping

from vision.config.schema import Config, TrainerConfig


def check_trainer(config: Config) -> None:
    """Raise ValueError for settings of the trainer that something else does not go with."""
    trainer = config.trainer
    if trainer.epochs is None and trainer.max_steps is None:
        raise ValueError(
            "trainer.epochs = null: expected a number, or trainer.max_steps=STEPS in its place"
        )
    if trainer.epochs is not None and config.optim.warmup_epochs >= trainer.epochs:
        raise ValueError(
            f"optim.warmup_epochs = {config.optim.warmup_epochs}: no shorter than the training "
            f"(trainer.epochs = {trainer.epochs})"
        )
    if trainer.compile and trainer.diagnostics_every_n_steps is not None:
        raise ValueError(
            f"trainer.diagnostics_every_n_steps = {trainer.diagnostics_every_n_steps}: a "
            "compiled model does not call hooks; set trainer.compile=false, or this to null"
        )
    if trainer.strategy != "fsdp":
        if trainer.sharded_checkpoint:
            raise ValueError(
                "trainer.sharded_checkpoint = true: only trainer.strategy=fsdp has parts to save; "
                "set it to false"
            )
        return
    if trainer.compile:
        raise ValueError(
            "trainer.compile = true: not with trainer.strategy=fsdp, which gathers weights in "
            "hooks; set it to false, or use ddp"
        )
    if config.model.linear_probe:
        raise ValueError(
            "model.linear_probe = true: its batch norm would keep separate statistics per rank "
            "with trainer.strategy=fsdp; use ddp"
        )
    if trainer.precision not in ("auto", "32-true", "bf16-mixed"):
        raise ValueError(
            f"trainer.precision = {trainer.precision!r}: trainer.strategy=fsdp takes auto, 32-true "
            "or bf16-mixed; choose one of these, or use ddp"
        )


def check_launch(trainer: TrainerConfig, environment: Mapping[str, str]) -> None:
    """Raise ValueError if torchrun or srun started other processes than the run is to have.

    Else several would each train alone, into one directory.
    """
    expected = trainer.devices * trainer.num_nodes
    if "TORCHELASTIC_RUN_ID" in environment:
        launcher, count = "torchrun", environment.get("WORLD_SIZE", "1")
    elif environment.get("SLURM_JOB_NAME") not in (None, "bash", "interactive"):
        launcher, count = "srun", environment.get("SLURM_NTASKS", str(expected))
    else:
        return
    if int(count) != expected:
        raise ValueError(
            f"trainer.devices = {trainer.devices}: with trainer.num_nodes = {trainer.num_nodes} "
            f"that is {expected} process(es), but {launcher} starts {count}; set both as there"
        )
