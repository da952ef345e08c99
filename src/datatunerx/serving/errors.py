"""What goes wrong, in the shape that OpenAI's clients read."""

from typing import Any


class ApiError(Exception):
    """An answer that is an error; `status` is its HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after
        """Seconds after which it may be asked again, if that could help."""

    @property
    def document(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def refused(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """The request itself is at fault."""
    return ApiError(400, message, code, param=param)
