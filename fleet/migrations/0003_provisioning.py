from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("fleet", "0002_profiles")]

    operations = [
        ops.CreateModel(
            name="ClaimKeyRow",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                ("name", fields.CharField(max_length=128)),
                ("digest", fields.CharField(unique=True, max_length=64)),
                ("hint", fields.CharField(max_length=8)),
                ("mode", fields.CharField(max_length=16)),
                ("profile", fields.CharField(default="", max_length=128)),
                ("tags", fields.TextField(default="[]", unique=False)),
                ("networks", fields.TextField(default="[]", unique=False)),
                ("uses", fields.IntField(default=0)),
                ("uses_limit", fields.IntField()),
                ("created_by", fields.CharField(max_length=128)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("expires_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("revoked_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={"table": "claim_key", "app": "fleet", "pk_attr": "id"},
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ExpectedDeviceRow",
            fields=[
                ("id", fields.IntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "claim_key",
                    fields.ForeignKeyField(
                        "fleet.ClaimKeyRow",
                        source_field="claim_key_id",
                        db_constraint=True,
                        to_field="id",
                        related_name="expected_rows",
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("device_id", fields.CharField(max_length=64)),
                ("claimed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "expected_device",
                "app": "fleet",
                "unique_together": (("claim_key", "device_id"),),
                "pk_attr": "id",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ApplicationRow",
            fields=[
                ("device_id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ("status", fields.CharField(max_length=16)),
                ("nonce", fields.CharField(max_length=64)),
                ("claim_key_id", fields.CharField(default="", max_length=32)),
                ("profile", fields.CharField(default="", max_length=128)),
                ("tags", fields.TextField(default="[]", unique=False)),
                ("info", fields.TextField(default="{}", unique=False)),
                ("address", fields.CharField(default="", max_length=64)),
                ("link", fields.CharField(default="", max_length=64)),
                ("decided_by", fields.CharField(default="", max_length=128)),
                ("version", fields.IntField(default=1)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "application",
                "app": "fleet",
                "indexes": [Index(fields=["status", "device_id"]), Index(fields=["status", "updated_at"])],
                "pk_attr": "device_id",
            },
            bases=["Model"],
        ),
    ]
