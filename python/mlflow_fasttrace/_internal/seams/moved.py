"""The error for an MLflow that is not as this package knows it."""


class MovedSeam(Exception):
    """MLflow is not as this package knows it; the message names the place."""
