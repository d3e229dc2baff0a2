"""The fleet's tables, as Tortoise models; only the services see them.

Three rules hold for all of them. A row with a state has an integer `version` and is written by compare-and-swap on
it. JSON is kept as text, so that both databases give back the bytes that were put in (jsonb refuses NUL and loses
the order of keys). A column that lists are sorted by is never NULL: SQLite and PostgreSQL put NULLs at opposite ends.

What is to be said of a table is said in comments: Tortoise puts a model's docstring into its SQL.
"""

from tortoise import fields
from tortoise.indexes import Index
from tortoise.models import Model

from fleet.clock import EPOCH

ID = 32  # an id of ours has 26 characters
DEVICE_ID = 64
STATE = 16
NAME = 128
ADDRESS = 64


# `status` is what people see: `presence`, unless the device is disabled. EPOCH in `last_seen_at` is never.
class DeviceRow(Model):
    id = fields.CharField(DEVICE_ID, primary_key=True)
    name = fields.CharField(NAME)
    profile = fields.CharField(NAME, default="")
    tags = fields.TextField(default="[]")
    attributes = fields.TextField(default="{}")
    status = fields.CharField(STATE)
    presence = fields.CharField(STATE)
    disabled = fields.BooleanField(default=False)
    quarantined = fields.BooleanField(default=False, db_default=False)
    since = fields.DatetimeField(null=True)
    last_seen_at = fields.DatetimeField(default=EPOCH)
    address = fields.CharField(ADDRESS, default="")
    link = fields.CharField(ADDRESS, default="")
    firmware = fields.CharField(NAME, default="")
    # The version as a text that sorts as versions do ("" for what is none); NULL while no firmware is known.
    firmware_key = fields.CharField(255, null=True)
    target_firmware = fields.CharField(NAME, default="")
    # How long its readings are kept; NULL: as its profile or the settings say.
    retention_days = fields.IntField(null=True)
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "device"
        indexes = (
            Index(fields=("name", "id")),
            Index(fields=("status", "id")),
            Index(fields=("last_seen_at", "id")),
            Index(fields=("firmware", "id")),
            Index(fields=("presence",)),
            Index(fields=("firmware_key",)),
            Index(fields=("profile", "id")),
        )


# A tag of a device once more, to find devices by it.
class DeviceTagRow(Model):
    id = fields.IntField(primary_key=True)
    device: fields.ForeignKeyRelation[DeviceRow] = fields.ForeignKeyField(
        "fleet.DeviceRow", related_name="tag_rows", on_delete=fields.CASCADE
    )
    tag = fields.CharField(NAME)

    class Meta:
        table = "device_tag"
        unique_together = (("tag", "device"),)
        indexes = (Index(fields=("device_id",)),)


# A leaf of a device's attributes once more, to find devices by it: `number` is NULL for texts, true and false.
class DeviceAttributeRow(Model):
    id = fields.IntField(primary_key=True)
    device: fields.ForeignKeyRelation[DeviceRow] = fields.ForeignKeyField(
        "fleet.DeviceRow", related_name="attribute_rows", on_delete=fields.CASCADE
    )
    path = fields.CharField(NAME)
    value = fields.CharField(NAME)
    number = fields.FloatField(null=True)

    class Meta:
        table = "device_attribute"
        indexes = (
            Index(fields=("path", "value")),
            Index(fields=("path", "number")),
            Index(fields=("device_id",)),
        )


# `digest` is the SHA-256 of a 256-bit random token: nothing to guess, so nothing to slow down. Of the other kinds it is
# random, and `secret` holds what they are checked with: an argon2id hash, a public key, a certificate (PEM).
class CredentialRow(Model):
    id = fields.CharField(ID, primary_key=True)
    device: fields.ForeignKeyRelation[DeviceRow] = fields.ForeignKeyField(
        "fleet.DeviceRow", related_name="credential_rows", on_delete=fields.CASCADE
    )
    device_id: str
    digest = fields.CharField(64, unique=True)
    hint = fields.CharField(8)
    kind = fields.CharField(STATE, default="token", db_default="token")
    name = fields.CharField(NAME, default="", db_default="")
    secret = fields.TextField(default="", db_default="")
    # The `kid` of a JWK; the SHA-256 of a certificate, in hex.
    key_id = fields.CharField(NAME, default="", db_default="")
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField(null=True)
    last_used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "credential"
        indexes = (Index(fields=("device_id",)),)


# Who may issue certificates to devices. `revoked_serials` is a JSON list of hexadecimal numbers.
class CertificateAuthorityRow(Model):
    id = fields.CharField(ID, primary_key=True)
    name = fields.CharField(NAME)
    fingerprint = fields.CharField(64, unique=True)
    certificate = fields.TextField()
    revoked_serials = fields.TextField(default="[]")
    expires_at = fields.DatetimeField()
    created_by = fields.CharField(NAME)
    created_at = fields.DatetimeField()
    version = fields.IntField(default=1)

    class Meta:
        table = "certificate_authority"


# `differs` says whether the delta is not empty, so that a reconnect storm reads only the twins that matter. No foreign
# key: one that is the primary key too confuses Tortoise's migrations.
class TwinRow(Model):
    device_id = fields.CharField(DEVICE_ID, primary_key=True)
    desired = fields.TextField(default="{}")
    reported = fields.TextField(default="{}")
    differs = fields.BooleanField(default=False)
    # In what way the reported part was not as the device's profile has it, when it was reported.
    fault = fields.CharField(300, default="", db_default="")
    version = fields.IntField(default=1)
    updated_at = fields.DatetimeField()

    class Meta:
        table = "twin"


# The last changes of the desired part.
class TwinChangeRow(Model):
    id = fields.CharField(ID, primary_key=True)
    device: fields.ForeignKeyRelation[DeviceRow] = fields.ForeignKeyField(
        "fleet.DeviceRow", related_name="twin_change_rows", on_delete=fields.CASCADE
    )
    device_id: str
    version = fields.IntField()
    at = fields.DatetimeField()
    by = fields.CharField(NAME)
    patch = fields.TextField()

    class Meta:
        table = "twin_change"
        unique_together = (("device", "version"),)


class TwinTemplateRow(Model):
    id = fields.CharField(ID, primary_key=True)
    name = fields.CharField(NAME)
    desired = fields.TextField()
    target = fields.TextField()
    created_by = fields.CharField(NAME)
    created_at = fields.DatetimeField()
    applied_at = fields.DatetimeField()

    class Meta:
        table = "twin_template"


# One device of a template, and since when it is in its state.
class TwinTemplateDeviceRow(Model):
    id = fields.IntField(primary_key=True)
    template: fields.ForeignKeyRelation[TwinTemplateRow] = fields.ForeignKeyField(
        "fleet.TwinTemplateRow", related_name="device_rows", on_delete=fields.CASCADE
    )
    template_id: str
    device: fields.ForeignKeyRelation[DeviceRow] = fields.ForeignKeyField(
        "fleet.DeviceRow", related_name="twin_template_rows", on_delete=fields.CASCADE
    )
    device_id: str
    state = fields.CharField(STATE)
    since = fields.DatetimeField()
    error = fields.TextField(default="")

    class Meta:
        table = "twin_template_device"
        unique_together = (("template", "device"),)
        indexes = (Index(fields=("device_id",)), Index(fields=("state", "id")))


# The row is the outbox: what is unfinished is sent again on connect, and at `next_send_at` while connected.
class CommandRow(Model):
    id = fields.CharField(ID, primary_key=True)
    device: fields.ForeignKeyRelation[DeviceRow] = fields.ForeignKeyField(
        "fleet.DeviceRow", related_name="command_rows", on_delete=fields.CASCADE
    )
    device_id: str
    name = fields.CharField(NAME)
    params = fields.TextField(default="null")
    # Whether it waits for the sequential ones before it to end.
    sequential = fields.BooleanField(default=False, db_default=False)
    # Seconds from the first sending to `answer_by`; NULL: it may take until it expires.
    timeout_s = fields.IntField(null=True)
    answer_by = fields.DatetimeField(null=True)
    status = fields.CharField(STATE)
    progress = fields.IntField(null=True)
    result = fields.TextField(default="null")
    error = fields.TextField(default="")
    # What the device answered after the end: recorded, not applied.
    late = fields.CharField(STATE, default="")
    attempts = fields.IntField(default=0)
    version = fields.IntField(default=1)
    created_by = fields.CharField(NAME)
    created_at = fields.DatetimeField()
    sent_at = fields.DatetimeField(null=True)
    next_send_at = fields.DatetimeField(null=True)
    updated_at = fields.DatetimeField()
    finished_at = fields.DatetimeField(null=True)
    expires_at = fields.DatetimeField()

    class Meta:
        table = "command"
        indexes = (
            Index(fields=("device_id", "id")),
            Index(fields=("status", "expires_at")),
            Index(fields=("next_send_at",)),
        )


# A command to devices by time. `owed`: the run of number `runs` has begun, and not every device has its command yet.
class ScheduleRow(Model):
    id = fields.CharField(ID, primary_key=True)
    name = fields.CharField(NAME)
    command = fields.TextField()
    device_ids = fields.TextField()
    at = fields.DatetimeField(null=True)
    cron = fields.CharField(NAME, null=True)
    time_zone = fields.CharField(64)
    catch_up = fields.CharField(STATE)
    paused = fields.BooleanField(default=False)
    next_run_at = fields.DatetimeField(null=True)
    last_run_at = fields.DatetimeField(null=True)
    owed = fields.BooleanField(default=False)
    runs = fields.IntField(default=0)
    skipped = fields.IntField(default=0)
    version = fields.IntField(default=1)
    created_by = fields.CharField(NAME)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "schedule"
        indexes = (Index(fields=("next_run_at",)), Index(fields=("owed",)))


# What a run made of a device: the command's id, or the error. Unique, so that a run makes no second command.
class ScheduleRunRow(Model):
    id = fields.CharField(ID, primary_key=True)
    schedule: fields.ForeignKeyRelation[ScheduleRow] = fields.ForeignKeyField(
        "fleet.ScheduleRow", related_name="run_rows", on_delete=fields.CASCADE
    )
    schedule_id: str
    run = fields.IntField()
    device_id = fields.CharField(DEVICE_ID)
    due_at = fields.DatetimeField()
    command_id = fields.CharField(ID, default="")
    error = fields.TextField(default="")

    class Meta:
        table = "schedule_run"
        unique_together = (("schedule", "run", "device_id"),)
        indexes = (Index(fields=("schedule_id", "id")),)


# What payloads mean. Devices name it in `profile`: no foreign key, since they may name one that is still to come.
class ProfileRow(Model):
    name = fields.CharField(64, primary_key=True)
    document = fields.TextField()
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "profile"


# The bytes are in data_dir/artifacts/{id}.
class ArtifactRow(Model):
    id = fields.CharField(ID, primary_key=True)
    name = fields.CharField(255)
    release = fields.CharField(NAME)
    description = fields.TextField(default="")
    size = fields.BigIntField()
    sha256 = fields.CharField(64)
    # Release and digest while the artifact is there; NULL once it was deleted and is only a campaign's record.
    identity = fields.CharField(200, null=True, unique=True)
    created_by = fields.CharField(NAME)
    created_at = fields.DatetimeField()

    class Meta:
        table = "artifact"


class CampaignRow(Model):
    id = fields.CharField(ID, primary_key=True)
    name = fields.CharField(NAME)
    artifact: fields.ForeignKeyRelation[ArtifactRow] = fields.ForeignKeyField(
        "fleet.ArtifactRow", related_name="campaign_rows", on_delete=fields.RESTRICT
    )
    artifact_id: str
    status = fields.CharField(STATE)
    timeouts = fields.TextField()
    version = fields.IntField(default=1)
    created_by = fields.CharField(NAME)
    created_at = fields.DatetimeField()
    started_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        table = "campaign"
        indexes = (Index(fields=("status", "id")),)


# One device of a campaign. Outlives its device, so that the counts always add up; hence no foreign key.
class JobRow(Model):
    id = fields.CharField(ID, primary_key=True)
    campaign: fields.ForeignKeyRelation[CampaignRow] = fields.ForeignKeyField(
        "fleet.CampaignRow", related_name="job_rows", on_delete=fields.CASCADE
    )
    campaign_id: str
    device_id = fields.CharField(DEVICE_ID)
    # Whether its campaign was started: jobs of a draft are queued, and due for nothing.
    started = fields.BooleanField(default=False)
    status = fields.CharField(STATE)
    progress = fields.IntField(null=True)
    error = fields.TextField(default="")
    attempt = fields.IntField(default=1)
    from_version = fields.CharField(NAME, default="")
    to_version = fields.CharField(NAME)
    # The device id while the device has the offer: a device has one job at a time, and NULLs do not collide.
    slot = fields.CharField(DEVICE_ID, null=True, unique=True)
    # When the present state began.
    step_at = fields.DatetimeField()
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()
    finished_at = fields.DatetimeField(null=True)
    deadline = fields.DatetimeField(null=True)
    next_offer_at = fields.DatetimeField(null=True)
    offers = fields.IntField(default=0)

    class Meta:
        table = "job"
        unique_together = (("campaign", "device_id"),)
        indexes = (
            Index(fields=("campaign_id", "status")),
            Index(fields=("device_id", "status")),
            Index(fields=("deadline",)),
            Index(fields=("next_offer_at",)),
        )


# No foreign key: an entry that loses the race against its device's deletion must not fail its whole batch.
class TimelineRow(Model):
    id = fields.CharField(ID, primary_key=True)
    device_id = fields.CharField(DEVICE_ID)
    at = fields.DatetimeField()
    kind = fields.CharField(STATE)
    level = fields.CharField(STATE)
    summary = fields.TextField()
    data = fields.TextField(default="{}")
    # Of an event of the device's own that may come twice: the same one again is no entry. NULLs do not collide.
    identity = fields.CharField(32, null=True, unique=True)

    class Meta:
        table = "timeline"
        indexes = (Index(fields=("device_id", "id")),)


# Its last three columns are the chain (audit_chain.py). No entry has NULL there; a column added later cannot say so.
class AuditRow(Model):
    id = fields.CharField(ID, primary_key=True)
    at = fields.DatetimeField()
    actor_kind = fields.CharField(STATE)
    actor_id = fields.CharField(NAME)
    actor_address = fields.CharField(ADDRESS, default="")
    action = fields.CharField(64)
    target_kind = fields.CharField(STATE)
    target_id = fields.CharField(NAME)
    before = fields.TextField(null=True)
    after = fields.TextField(null=True)
    seq = fields.BigIntField(null=True, unique=True)
    prev = fields.CharField(64, null=True)
    digest = fields.CharField(64, null=True)

    class Meta:
        table = "audit"
        indexes = (
            Index(fields=("target_kind", "target_id", "id")),
            Index(fields=("actor_id", "id")),
        )


# One row: the newest entry of the audit, and the newest of those that were dropped. Locked by whoever adds an entry.
class AuditChainRow(Model):
    id = fields.IntField(primary_key=True, generated=False)
    head_seq = fields.BigIntField()
    head_digest = fields.CharField(64)
    anchor_seq = fields.BigIntField()
    anchor_digest = fields.CharField(64)

    class Meta:
        table = "audit_chain"


# `folded` is the user name as it is compared: two names that differ in case alone are one.
class PersonRow(Model):
    id = fields.CharField(ID, primary_key=True)
    username = fields.CharField(NAME)
    folded = fields.CharField(255, unique=True)
    password_hash = fields.CharField(255)
    role = fields.CharField(STATE)
    disabled = fields.BooleanField(default=False)
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField()
    last_login_at = fields.DatetimeField(null=True)
    # The second factor: its secret, sealed; since when it is asked for (NULL: not yet); the last step that was used.
    totp_secret = fields.CharField(255, null=True)
    totp_since = fields.DatetimeField(null=True)
    totp_step = fields.BigIntField(null=True)

    class Meta:
        table = "person"


# What lets somebody in whose second factor is lost, once: the SHA-256 of 80 random bits.
class RecoveryCodeRow(Model):
    digest = fields.CharField(64, primary_key=True)
    person: fields.ForeignKeyRelation[PersonRow] = fields.ForeignKeyField(
        "fleet.PersonRow", related_name="recovery_rows", on_delete=fields.CASCADE
    )
    person_id: str

    class Meta:
        table = "recovery_code"


# For programs: acts for its owner, with a role of its own. `digest` as a device's token's.
class ApiKeyRow(Model):
    id = fields.CharField(ID, primary_key=True)
    person: fields.ForeignKeyRelation[PersonRow] = fields.ForeignKeyField(
        "fleet.PersonRow", related_name="api_key_rows", on_delete=fields.CASCADE
    )
    person_id: str
    name = fields.CharField(64)
    digest = fields.CharField(64, unique=True)
    hint = fields.CharField(8)
    role = fields.CharField(STATE)
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField(null=True)
    last_used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "api_key"
        indexes = (Index(fields=("person_id", "id")),)


# One login and all the tokens that grew out of it.
class LoginRow(Model):
    id = fields.CharField(ID, primary_key=True)
    person: fields.ForeignKeyRelation[PersonRow] = fields.ForeignKeyField(
        "fleet.PersonRow", related_name="login_rows", on_delete=fields.CASCADE
    )
    person_id: str
    address = fields.CharField(ADDRESS, default="")
    user_agent = fields.CharField(NAME, null=True)
    created_at = fields.DatetimeField()
    renewed_at = fields.DatetimeField(null=True)
    expires_at = fields.DatetimeField()
    ended_at = fields.DatetimeField(null=True)

    class Meta:
        table = "login"
        indexes = (Index(fields=("expires_at",)),)


# A refresh token by its SHA-256. It stays after its use, to recognise a second one.
class RefreshTokenRow(Model):
    digest = fields.CharField(64, primary_key=True)
    login: fields.ForeignKeyRelation[LoginRow] = fields.ForeignKeyField(
        "fleet.LoginRow", related_name="refresh_rows", on_delete=fields.CASCADE
    )
    login_id: str
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "refresh_token"


# A one-time code by its SHA-256: the first set-up (no person), or a login link.
class CodeRow(Model):
    digest = fields.CharField(64, primary_key=True)
    purpose = fields.CharField(STATE)
    person: fields.ForeignKeyNullableRelation[PersonRow] = fields.ForeignKeyField(
        "fleet.PersonRow", related_name="code_rows", on_delete=fields.CASCADE, null=True
    )
    person_id: str | None
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()

    class Meta:
        table = "code"


# What a batch of devices is made with: each exchanges it for a credential of its own. `digest` as a device's token's.
class ClaimKeyRow(Model):
    id = fields.CharField(ID, primary_key=True)
    name = fields.CharField(NAME)
    digest = fields.CharField(64, unique=True)
    hint = fields.CharField(8)
    mode = fields.CharField(STATE)
    profile = fields.CharField(NAME, default="")
    tags = fields.TextField(default="[]")
    networks = fields.TextField(default="[]")
    uses = fields.IntField(default=0)
    uses_limit = fields.IntField()
    created_by = fields.CharField(NAME)
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "claim_key"


# A device that may come with a claim key of mode "listed"; `claimed_at`: it has come.
class ExpectedDeviceRow(Model):
    id = fields.IntField(primary_key=True)
    claim_key: fields.ForeignKeyRelation[ClaimKeyRow] = fields.ForeignKeyField(
        "fleet.ClaimKeyRow", related_name="expected_rows", on_delete=fields.CASCADE
    )
    device_id = fields.CharField(DEVICE_ID)
    claimed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "expected_device"
        unique_together = (("claim_key", "device_id"),)


# Who asked to be let in, by the id it wants. `nonce` is the SHA-256 of what only the asker knows.
class ApplicationRow(Model):
    device_id = fields.CharField(DEVICE_ID, primary_key=True)
    status = fields.CharField(STATE)
    nonce = fields.CharField(64)
    claim_key_id = fields.CharField(ID, default="")
    profile = fields.CharField(NAME, default="")
    tags = fields.TextField(default="[]")
    info = fields.TextField(default="{}")
    address = fields.CharField(ADDRESS, default="")
    link = fields.CharField(ADDRESS, default="")
    decided_by = fields.CharField(NAME, default="")
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "application"
        indexes = (Index(fields=("status", "device_id")), Index(fields=("status", "updated_at")))


# A group of devices: of those in `group_member`, or, with a `query`, of those that match it at the time of asking.
class GroupRow(Model):
    id = fields.CharField(ID, primary_key=True)
    name = fields.CharField(NAME, unique=True)
    description = fields.TextField(default="")
    query = fields.TextField(default="")
    parent_id = fields.CharField(ID, null=True)
    version = fields.IntField(default=1)
    created_by = fields.CharField(NAME)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "device_group"


class GroupMemberRow(Model):
    id = fields.IntField(primary_key=True)
    group: fields.ForeignKeyRelation[GroupRow] = fields.ForeignKeyField(
        "fleet.GroupRow", related_name="member_rows", on_delete=fields.CASCADE
    )
    device: fields.ForeignKeyRelation[DeviceRow] = fields.ForeignKeyField(
        "fleet.DeviceRow", related_name="group_rows", on_delete=fields.CASCADE
    )
    device_id: str

    class Meta:
        table = "group_member"
        unique_together = (("group", "device"),)
        indexes = (Index(fields=("device_id",)),)


# One piece of work on many devices. `lease_until`: until then the node named in `worker` is at it.
class BulkJobRow(Model):
    id = fields.CharField(ID, primary_key=True)
    status = fields.CharField(STATE)
    action = fields.TextField()
    selection = fields.TextField()
    total = fields.IntField(default=0)
    worker = fields.CharField(ID, default="")
    lease_until = fields.DatetimeField(null=True)
    actor_kind = fields.CharField(STATE)
    created_by = fields.CharField(NAME)
    address = fields.CharField(ADDRESS, default="")
    created_at = fields.DatetimeField()
    started_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        table = "bulk_job"
        indexes = (Index(fields=("status", "id")),)


# One device of a bulk job; its id is the device's text, since the result outlives the device.
class BulkTargetRow(Model):
    id = fields.IntField(primary_key=True)
    job: fields.ForeignKeyRelation[BulkJobRow] = fields.ForeignKeyField(
        "fleet.BulkJobRow", related_name="target_rows", on_delete=fields.CASCADE
    )
    job_id: str
    device_id = fields.CharField(DEVICE_ID)
    status = fields.CharField(STATE)
    error = fields.TextField(default="")

    class Meta:
        table = "bulk_target"
        unique_together = (("job", "device_id"),)
        indexes = (Index(fields=("job_id", "status", "device_id")),)
