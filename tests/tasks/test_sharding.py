"""Sharded models compute what whole ones do, and gather what autocast would cast anyway."""

from collections.abc import Iterator

import pytest
import torch
from timm.layers import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from vision.tasks.sharding import shard


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """One process, which gathers from itself."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def model() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=16, depth=2, num_heads=2,
        init_values=0.5,
    )  # fmt: skip


def test_blocks_gather_linear_weights_in_the_dtype_of_autocast(mesh: DeviceMesh) -> None:
    x = torch.randn(4, 1, 8, 8)
    whole, sharded = model(), model()
    shard(mesh, sharded, compute_dtype=torch.bfloat16)
    seen: dict[type, set[torch.dtype]] = {}

    def look(module: nn.Module, inputs: object) -> None:
        for parameter in module.parameters(recurse=False):
            seen.setdefault(type(module), set()).add(parameter.dtype)

    for name, module in sharded.named_modules():
        if ".".join(name.split(".")[2:]):  # within a block
            module.register_forward_pre_hook(look)
    outputs = []
    for each in (whole, sharded):
        with torch.autocast("cpu", torch.bfloat16):
            y = each(x)
        y.float().square().sum().backward()
        outputs.append(y)
    dtypes = {
        dtype for kind, found in seen.items() if issubclass(kind, nn.Linear) for dtype in found
    }
    assert dtypes == {torch.bfloat16}
    others = {d for kind, found in seen.items() if not issubclass(kind, nn.Linear) for d in found}
    assert others == {torch.float32} and any(issubclass(kind, LayerScale) for kind in seen)
    assert torch.equal(outputs[0], outputs[1])
    for (name, a), b in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        assert b.dtype == torch.float32 and b.grad.dtype == torch.float32
        assert torch.equal(a.grad, b.grad.full_tensor()), name
