"""The commands of a profile: what devices of a kind can be told to do, and with which parameters. No I/O, no clock."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.profiles.schema import Schema, checked_schema

COMMANDS_LIMIT = 100
TTL_LIMIT_S = 30 * 86_400

_CommandName = Annotated[str, Field(min_length=1, max_length=128)]


class Delivery(StrEnum):
    PARALLEL = "parallel"
    SEQUENTIAL = "sequential"


class CommandRule(BaseModel):
    """One command; what is left out is not checked, or is as for any command."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(default="", max_length=1024)
    params: Annotated[dict[str, Any] | None, AfterValidator(checked_schema)] = Field(
        default=None, description="JSON Schema (2020-12) of the parameters."
    )
    ttl_s: int | None = Field(default=None, ge=1, le=TTL_LIMIT_S, description="Where who sends it does not say.")
    timeout_s: int | None = Field(
        default=None, ge=1, le=TTL_LIMIT_S, description="Seconds from the first sending to the end, at most."
    )
    delivery: Delivery | None = Field(default=None, description="null: as the profile says.")


class CommandRules(BaseModel):
    """The part of a profile that is about commands."""

    model_config = ConfigDict(frozen=True)

    commands: dict[_CommandName, CommandRule] = Field(default_factory=dict, max_length=COMMANDS_LIMIT)
    unknown_commands: Literal["accept", "refuse"] = "accept"
    delivery: Delivery = Field(
        default=Delivery.PARALLEL, description="sequential: each is sent once the one before has ended."
    )


class UnfitCommand(ValueError):
    """A command is not as the profile has it; `field` is the place, as in `params/delay_s`."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class CompiledCommands:
    """The commands of a profile, ready to check those that are to be sent."""

    def __init__(self, rules: CommandRules, profile: str) -> None:
        self._rules = rules
        self._profile = profile
        self._schemas = {name: Schema(rule.params) for name, rule in rules.commands.items() if rule.params is not None}

    def rule_of(self, name: str) -> CommandRule:
        """What the profile says of a command; of one that it does not have, nothing but the delivery."""
        rule = self._rules.commands.get(name) or CommandRule()
        return rule if rule.delivery is not None else rule.model_copy(update={"delivery": self._rules.delivery})

    def check(self, name: str, params: Any) -> None:
        """Raises UnfitCommand."""
        if name not in self._rules.commands and self._rules.unknown_commands == "refuse":
            known = ", ".join(sorted(self._rules.commands)[:20]) or "none"
            raise UnfitCommand("name", f"the profile {self._profile} has no such command; it has: {known}")
        schema = self._schemas.get(name)
        if schema is None:
            return
        if schema.is_too_much(params, len(orjson.dumps(params))):
            raise UnfitCommand("params", "too much for the profile's schema")
        if (fault := schema.fault(params)) is not None:
            path, detail = fault
            raise UnfitCommand(f"params{path}", detail)


NO_RULE = CommandRule(delivery=Delivery.PARALLEL)
"""That of a command to a device without a profile."""
