"""The most memory that was held while something ran."""

from pathlib import Path
from types import TracebackType

import torch

from ropewalk.execution import peak_bytes

# Linux: writing 5 sets a process's high-water mark back to what it holds now (proc(5), since 4.0).
_RESET = Path("/proc/self/clear_refs")


class Peak:
    """A context: after it, `bytes` is the peak within it, of the CUDA device or of this process; None: not known.

    For a process it starts from what is held already, the model's weights among it.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes: int | None = None
        self._device = device
        self._resets = device.type == "cuda"

    def __enter__(self) -> "Peak":
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._device.type == "cpu" and _RESET.exists():
            try:
                _RESET.write_text("5")
                self._resets = True
            except OSError:  # a container may forbid it; then the peak of this part cannot be told
                self._resets = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._resets:
            on_gpu = self._device.type == "cuda"
            self.bytes = torch.cuda.max_memory_allocated(self._device) if on_gpu else peak_bytes()
