"""What came with v1.0 is told in codes that v0.3 knows; everything else stays as it is."""

import pytest

from a2a_server.protocol import errors
from a2a_server.v0_3.errors import error_object


@pytest.mark.parametrize("error", [errors.VersionNotSupported(), errors.ExtensionSupportRequired()])
def test_later_errors_are_unsupported_operations(error: errors.A2AError) -> None:
    told = error_object(error)
    assert (told["code"], told["message"]) == (-32004, error.message)
    assert told["data"][0]["reason"] == "UNSUPPORTED_OPERATION"


@pytest.mark.parametrize(
    "error",
    [errors.TaskNotFound(), errors.InvalidParams(), errors.Overloaded(), errors.Unauthenticated(), errors.ParseError()],
)
def test_all_others_are_those_of_v1(error: errors.A2AError) -> None:
    assert error_object(error) == errors.to_object(error)
