"""What users see when something is wrong: one line that says what was given, what was wanted and what to do."""


class RopewalkError(Exception):
    """Base of every error that ropewalk raises on purpose."""


class MethodError(RopewalkError):
    """A method, a parameter or a plan that cannot be: unknown name, value out of range, target beyond the reach."""


class ModelError(RopewalkError):
    """A model that cannot be extended, loaded or found."""


class BackendError(RopewalkError):
    """An attention backend that cannot run what was asked of it."""


class ProfileError(RopewalkError):
    """A saved plan or profile that is missing, malformed or made for another model."""


class EvaluationError(RopewalkError):
    """A task, length or text that cannot be evaluated."""


class TrainingError(RopewalkError):
    """A training run that cannot begin or go on: its data, its positions, its table or its checkpoint."""
