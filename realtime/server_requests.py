"""What the methods of the server API take, field by field. Names and meanings are those of Centrifugo's HTTP API."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from realtime.control import Whose
from realtime.protocol.codes import Disconnect

_KEY_LENGTH: Final = 255  # with a channel and a source it has to fit an entry of PostgreSQL's index


Key = Annotated[str, Field(max_length=_KEY_LENGTH, pattern=r"^[^\x00]*$")]
"""PostgreSQL keeps every character but this one."""


Moment = Annotated[int, Field(ge=0, lt=2**53)]
"""Unix time in seconds; 0 is never."""


class Request(BaseModel):
    """A field that nobody knows here is refused: to pass over one that narrows whom a method is about would be to do it
    to others as well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _what_is_asked(cls, given: object) -> object:
        """Null is as good as nothing, and so is what is empty in a field that is not known: libraries write such."""
        if not isinstance(given, dict):
            return given
        known = cls.model_fields
        return {
            name: value
            for name, value in given.items()
            if (value or name in known) and (value is not None or name == "data")
        }


class Content(Request):
    data: JsonValue = None
    b64data: str = ""
    skip_history: bool = False
    delta: bool = False
    tags: dict[str, str] = Field(default_factory=dict)
    idempotency_key: Key = ""
    version: Annotated[int, Field(ge=0, lt=2**63)] = 0
    version_epoch: Key = ""


class PublishRequest(Content):
    channel: str


class BroadcastRequest(Content):
    channels: Annotated[list[str], Field(min_length=1)]


class SinceRequest(Request):
    offset: Annotated[int, Field(ge=0, lt=2**64)] = 0
    epoch: str = ""


class HistoryRequest(Request):
    channel: str
    limit: int = 0
    since: SinceRequest | None = None
    reverse: bool = False


class ChannelRequest(Request):
    channel: str


class WhoseRequest(Request):
    user: Annotated[str, Field(max_length=255)]
    client: str = ""
    session: str = ""

    @property
    def whose(self) -> Whose:
        return Whose(self.user, self.client, self.session)


def _are_words(reason: str) -> str:
    """SDKs read a reason that is JSON as something else, and reconnect for ever on an empty one."""
    if reason in {"true", "false", "null"}:
        raise ValueError(reason)
    return reason or Disconnect.FORCE_NO_RECONNECT.reason


class DisconnectReason(Request):
    code: Annotated[int, Field(ge=3000, le=4999)] = Disconnect.FORCE_NO_RECONNECT.code
    reason: Annotated[str, Field(pattern=r"^([A-Za-z][ -~]{0,121})?$"), AfterValidator(_are_words)] = (
        Disconnect.FORCE_NO_RECONNECT.reason
    )


class DisconnectRequest(WhoseRequest):
    whitelist: list[str] = Field(default_factory=list)
    disconnect: DisconnectReason = DisconnectReason()


class UnsubscribeRequest(WhoseRequest):
    channel: str


class Switch(Request):
    value: bool


class Overrides(Request):
    presence: Switch | None = None
    join_leave: Switch | None = None
    force_push_join_leave: Switch | None = None
    force_recovery: Switch | None = None
    force_positioning: Switch | None = None


class SubscribeRequest(WhoseRequest):
    channel: str
    expire_at: Moment = 0
    info: JsonValue = None
    b64info: str = ""
    data: JsonValue = None
    b64data: str = ""
    recover_since: SinceRequest | None = None
    override: Overrides = Overrides()


class RefreshRequest(WhoseRequest):
    expired: bool = False
    expire_at: Moment = 0


class ConnectionsRequest(Request):
    user: Annotated[str, Field(max_length=255)]


class ChannelsRequest(Request):
    pattern: Annotated[str, Field(max_length=255)] = ""


class BatchRequest(Request):
    commands: list[dict[str, JsonValue]]
    parallel: bool = False
