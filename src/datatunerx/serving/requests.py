"""What a client may ask, in OpenAI's words. What is not done here is refused by name, never passed over."""

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from datatunerx.serving.errors import ApiError, refused

MOST_CHOICES = 64
Stop = Annotated[str, Field(max_length=256)]
Stops = Stop | Annotated[list[Stop], Field(max_length=8)] | None
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (None, 0), "presence_penalty": (None, 0), "logit_bias": (None, {}),
    "best_of": (None, 1), "echo": (None, False), "suffix": (None, ""),
    "response_format": (None, {"type": "text"}), "functions": (None, []), "function_call": (None, "none"),
    "modalities": (None, ["text"]), "audio": (None,), "prediction": (None,), "web_search_options": (None,),
    "reasoning_effort": (None,), "verbosity": (None,), "store": (None, False), "moderation": (None,),
}  # fmt: skip
"""Parameters that OpenAI knows -> the values that ask for nothing."""
_HARMLESS = {
    "user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
}  # fmt: skip
"""Parameters that change no answer."""

Asked = TypeVar("Asked", bound="Common")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Part):
    include_usage: bool = False
    include_obfuscation: bool = False


class Common(_Part):
    """What chats and completions have in common."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class TextPart(_Part):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A turn; fields that only a template knows are passed on to it."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    def plain(self) -> dict[str, Any]:
        """As templates want it: content is text."""
        said = self.content
        text = "".join(part.text for part in said) if isinstance(said, list) else said or ""
        others = self.model_dump(exclude_none=True, exclude={"content", "role"})
        return {"role": "system" if self.role == "developer" else self.role, "content": text, **others}


class ChatRequest(Common):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None

    @field_validator("tool_choice")
    @classmethod
    def _free(cls, value: Any) -> Any:
        if value not in (None, "auto", "none"):
            raise ValueError("only auto and none are supported: an answer cannot be forced into a tool call")
        return value

    @property
    def written_tools(self) -> list[dict[str, Any]]:
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def likeliest(self) -> int | None:
        if not self.logprobs:
            if self.top_logprobs:
                raise refused("top_logprobs needs logprobs to be true", "top_logprobs")
            return None
        return self.top_logprobs or 0


class CompletionRequest(Common):
    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or more prompts, as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and all(isinstance(one, int) for one in self.prompt):
            return [[one for one in self.prompt if isinstance(one, int)]]
        return [one for one in self.prompt if not isinstance(one, int)]


def parse(kind: type[Asked], body: bytes) -> Asked:
    """Raises `ApiError` naming the parameter."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise refused(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(document, dict):
        raise refused("the body must be a JSON object", code="invalid_json")
    for name in _HARMLESS & document.keys():
        del document[name]
    for name in _UNSUPPORTED.keys() & document.keys() - kind.model_fields.keys():
        if document.pop(name) not in _UNSUPPORTED[name]:
            raise refused(f"{name} is not supported here; leave it out", name, "unsupported_parameter")
    for name in document.keys() - kind.model_fields.keys():
        raise refused(f"{name[:64]!r} is not a parameter of this call", name[:64], "unknown_parameter")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise _first_of(error) from error


def _first_of(error: ValidationError) -> ApiError:
    found = error.errors(include_url=False, include_context=False)
    # of a union every arm complains; the deepest complaint is about the arm that was meant
    worst = max(found, key=lambda one: len(one["loc"]))
    where = ".".join(str(part) for part in worst["loc"] if not str(part).startswith(("list[", "str", "int")))
    return refused(f"{where}: {worst['msg']}; found {str(worst['input'])[:80]!r}", where)
