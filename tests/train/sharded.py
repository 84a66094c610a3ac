"""One process of a run with sharded weights: `python -m tests.train.sharded FILE`, started by torchrun or alone.

Two steps of plain gradient descent on CLEX in a tiny model, by torch's fully_shard where there is more than one
process; the network of CLEX is a shard group of its own. Writes the whole weights.
"""

import os
import sys

import safetensors.torch
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ropewalk.methods import CLEX
from ropewalk.train.learned import Learned
from ropewalk.train.network import whole
from tests.architectures import build


def main(file: str) -> None:
    count = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    model = build("llama").train()
    with Learned(model, CLEX(max_factor=4), generator=torch.Generator().manual_seed(0)) as learned:
        torch.manual_seed(0)
        torch.nn.init.normal_(learned.network.down, std=1e-3)
        if count > 1:
            dist.init_process_group("gloo")
            mesh = init_device_mesh("cpu", (count,))
            for part in (learned.network, *model.model.layers, model):
                fully_shard(part, mesh=mesh)
        ids = torch.randint(3, 90, (4, 24), generator=torch.Generator().manual_seed(0)).chunk(count)[rank]
        times = torch.tensor([1.0, 1.5, 2.0, 4.0], dtype=torch.float64).chunk(count)[rank]
        own = [one for name, one in model.named_parameters() if "clex" not in name]
        optimizer = torch.optim.SGD(
            [{"params": own, "lr": 0.1}, {"params": list(learned.network.parameters()), "lr": 1e-3}]
        )
        for _ in range(2):
            learned.time = times
            model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        weights = {name: whole(one.detach()).clone() for name, one in model.named_parameters()}
        learned.network.method()  # by all processes
    if rank == 0:
        safetensors.torch.save_file(weights, file)
    if count > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
