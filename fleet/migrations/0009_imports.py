from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("fleet", "0008_people")]

    operations = [
        ops.CreateModel(
            name="DeviceImportRow",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                ("status", fields.CharField(max_length=16)),
                ("on_conflict", fields.CharField(max_length=16)),
                ("dry_run", fields.BooleanField(default=False)),
                ("turns", fields.IntField(default=0)),
                ("actor_kind", fields.CharField(max_length=16)),
                ("created_by", fields.CharField(max_length=128)),
                ("address", fields.CharField(default="", max_length=64)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={"table": "device_import", "app": "fleet", "pk_attr": "id"},
            bases=["Model"],
        ),
        ops.CreateModel(
            name="DeviceImportEntryRow",
            fields=[
                ("id", fields.IntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "owner",
                    fields.ForeignKeyField(
                        "fleet.DeviceImportRow",
                        source_field="owner_id",
                        db_constraint=True,
                        to_field="id",
                        related_name="entry_rows",
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("line", fields.IntField()),
                ("device_id", fields.CharField(max_length=64)),
                ("given", fields.TextField(unique=False)),
                ("outcome", fields.CharField(max_length=16)),
                ("column", fields.CharField(default="", max_length=128)),
                ("reason", fields.TextField(default="", unique=False)),
                ("is_handed_out", fields.BooleanField(default=False)),
            ],
            options={
                "table": "device_import_entry",
                "app": "fleet",
                "indexes": [Index(fields=["owner_id", "outcome", "id"])],
                "pk_attr": "id",
            },
            bases=["Model"],
        ),
    ]
