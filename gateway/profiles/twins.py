"""What a profile says of twins: the schemas of both parts. No I/O, no clock."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.profiles.schema import Schema, checked_schema

_Schema = Annotated[dict[str, Any] | None, AfterValidator(checked_schema)]


class TwinRules(BaseModel):
    """JSON Schemas (2020-12) of the whole part, after a change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    desired: _Schema = Field(default=None, description="What people may ask for; anything else is refused.")
    reported: _Schema = Field(default=None, description="What devices should say; anything else is kept, and marked.")


class CompiledTwins:
    """The schemas ready for use."""

    def __init__(self, rules: TwinRules) -> None:
        self._desired = None if rules.desired is None else Schema(rules.desired)
        self._reported = None if rules.reported is None else Schema(rules.reported)

    def fault_of_desired(self, document: Mapping[str, Any]) -> tuple[str, str] | None:
        """The place, as a JSON pointer, and what is wrong there; None when nothing is."""
        return _fault(self._desired, document)

    def fault_of_reported(self, document: Mapping[str, Any]) -> tuple[str, str] | None:
        return _fault(self._reported, document)


def _fault(schema: Schema | None, document: Mapping[str, Any]) -> tuple[str, str] | None:
    if schema is None:
        return None
    if schema.is_too_much(document, len(orjson.dumps(document))):
        return "", "too much for the profile's schema"
    return schema.fault(document)
