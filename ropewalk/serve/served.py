"""What an engine runs: the plan of every layer, told from the configuration before weights are loaded."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
from transformers import PretrainedConfig

from ropewalk.errors import MethodError, ModelError
from ropewalk.grid import Grid
from ropewalk.methods import Method, parse
from ropewalk.models.manifest import Manifest, require_plan
from ropewalk.models.method_files import unpack
from ropewalk.models.sidecar import ARRAYS
from ropewalk.models.spec import rope_parameters, spec_from_config
from ropewalk.plan import Band, Plan, Region
from ropewalk.rotary import FrequencyTable, RotarySpec, default_inv_freq
from ropewalk.serve.setting import Setting

# Model types whose vLLM implementation was run against our transformers path (tests/vllm/test_families.py).
TESTED = (
    "gemma2",
    "gemma3_text",
    "glm4",
    "llama",
    "mistral",
    "phi3",
    "qwen2",
    "qwen3",
    "stablelm",
)


@dataclass(frozen=True)
class Served:
    """A setting filled for one model.

    Attributes:
        setting: as it was given.
        method: with every field filled.
        spec: the rotary embedding of the extended layers, in the half layout, which the plug-in brings keys into.
        plan: of the extended layers, for texts of up to `target_length` tokens.
        target_length: tokens.
        windowed: the table of layers with a window within the trained length.
    """

    setting: Setting
    method: Method
    spec: RotarySpec
    plan: Plan
    target_length: int
    windowed: FrequencyTable

    @property
    def takes_attention(self) -> bool:
        """True where another table in the rotary module is not enough, or would reach layers that stay as they are."""
        shared = "sliding" in self.spec.layer_kinds and self.windowed == self.spec.table != self.plan.table
        return self.plan.takes_attention or shared

    def require_reach(self, window: int | None) -> None:
        """Raise ModelError when an extended layer's own window is shorter than the target."""
        if window is not None and window < self.target_length:
            raise ModelError(
                f"layers of this model never look back more than {window} tokens (sliding window), wanted "
                f"{self.target_length}; set sliding_window to null with --hf-overrides, or take a smaller target"
            )

    def layer_plan(self, layer: int, window: int | None) -> Plan:
        """The plan of one layer, whose own window is `window` tokens or None.

        Raises:
            ModelError: an extended layer that never looks back as far as the target.
        """
        if self.spec.layer_kinds[layer] == "full":
            self.require_reach(window)
            return self.plan
        return Plan((Band(Region(0, window)),), self.windowed)


def served(setting: Setting, config: PretrainedConfig, longest: int) -> Served:
    """Fill a setting for the model of a configuration.

    Args:
        config: of the text model.
        longest: tokens that the engine lets a request grow to.

    Raises:
        ModelError: a model type that was not tested in the engine, or layers that cannot be extended, whose own window
            is shorter than the target.
        MethodError: a method that does not fit the model or the length.
        ProfileError: a saved folder that is altered or for another model.
    """
    require_family(config)
    if setting.folder is not None:
        method, target, spec = _saved(Path(setting.folder), config)
    else:
        assert setting.method is not None
        method = parse(setting.method)
        spec = spec_from_config(config, pretrained=setting.pretrained_length)
        target = setting.target_length or longest
    if longest > target:
        raise MethodError(
            f"the engine lets requests grow to {longest} tokens and ropewalk is set up for {target}; "
            f"start it with --max-model-len {target}, or give a larger target_length"
        )
    filled = method.resolve(spec, target)
    filled.check_target(spec, target)
    plan = filled.plan(spec, target)
    if setting.folder is not None:
        require_plan(Path(setting.folder), plan)
    now = Served(setting, filled, spec, plan, target, _windowed(config, spec))
    now.require_reach(_window(config, spec))
    return now


def require_family(config: PretrainedConfig) -> None:
    """Raise ModelError for a model type that was not run in the engine."""
    if config.model_type not in TESTED:
        raise ModelError(
            f"ropewalk's vLLM plug-in was not tested on {config.model_type} models; tested: {', '.join(TESTED)}; "
            "run this one in transformers with ropewalk"
        )


def _saved(folder: Path, config: PretrainedConfig) -> tuple[Method, int, RotarySpec]:
    """Method, target and rotary embedding of a saved folder; its layout is the model's, ours is the half one."""
    saved = Manifest.load(folder)
    arrays = safetensors.numpy.load_file(folder / ARRAYS) if ARRAYS in saved.files else {}
    saved.require_shape(config, str(config.name_or_path))
    spec = spec_from_config(config, pretrained=saved.pretrained_length)
    saved.require_rotary(replace(spec, layout=saved.rotary.get("layout", spec.layout)), str(config.name_or_path))
    return unpack(saved.method, folder, arrays), saved.target_length, spec


def _window(config: PretrainedConfig, spec: RotarySpec) -> int | None:
    """Tokens that extended layers look back, where they have a window: beyond the trained length, or on every layer."""
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * spec.num_layers
    both = zip(kinds, spec.layer_kinds, strict=True)
    has_one = any(kind == "sliding_attention" and here == "full" for kind, here in both)
    return getattr(config, "sliding_window", None) if has_one else None


def _windowed(config: PretrainedConfig, spec: RotarySpec) -> FrequencyTable:
    """The table of layers with a window: their own where the configuration has one, else that of the others."""
    parameters = rope_parameters(config, "sliding_attention")
    if "sliding" not in spec.layer_kinds or parameters is rope_parameters(config):
        return spec.table
    if parameters.get("rope_type", "default") != "default":
        raise ModelError(
            f"{config.model_type}: its layers with a window rotate by a {parameters['rope_type']!r} table, which "
            "ropewalk's plug-in does not serve; run it in transformers with ropewalk"
        )
    theta = default_inv_freq(float(parameters["rope_theta"]), spec.rotary_dim)
    return FrequencyTable(Grid(theta.astype(np.float32)))
