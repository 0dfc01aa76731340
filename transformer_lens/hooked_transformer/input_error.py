"""What the model says of an argument it cannot use."""


class InputError(ValueError, AssertionError):
    """Raised for an argument that the model cannot use.

    It is a ``ValueError``, and also the ``AssertionError`` that earlier releases raised in these places, so that old
    ``except`` clauses hold.
    """
