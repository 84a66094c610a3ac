"""A method is not tested on the prompts that it was calibrated on."""

from ropewalk.errors import EvaluationError
from ropewalk.methods import Combined, Method
from ropewalk.profile import find_profile


def refuse_calibrated(method: Method, prompt: str) -> None:
    """Raise EvaluationError when the profile of a method says that this prompt calibrated it.

    Args:
        prompt: `prompt_sha256` of the prompt.
    """
    for part in (method.position, method.frequency) if isinstance(method, Combined) else (method,):
        profile = getattr(part, "profile", None)
        if profile is not None and prompt in find_profile(profile).provenance.get("prompts", ()):
            raise EvaluationError(
                f"the profile {str(profile)!r} was calibrated on this prompt; test on others: take another seed"
            )
