from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("fleet", "0004_timeline_identity")]

    operations = [
        ops.AddField(
            model_name="CommandRow", name="sequential", field=fields.BooleanField(default=False, db_default=False)
        ),
        ops.AddField(model_name="CommandRow", name="timeout_s", field=fields.IntField(null=True)),
        ops.AddField(
            model_name="CommandRow",
            name="answer_by",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name="TwinRow", name="fault", field=fields.CharField(default="", db_default="", max_length=300)
        ),
        ops.CreateModel(
            name="TwinChangeRow",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                (
                    "device",
                    fields.ForeignKeyField(
                        "fleet.DeviceRow",
                        source_field="device_id",
                        db_constraint=True,
                        to_field="id",
                        related_name="twin_change_rows",
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("version", fields.IntField()),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("by", fields.CharField(max_length=128)),
                ("patch", fields.TextField(unique=False)),
            ],
            options={
                "table": "twin_change",
                "app": "fleet",
                "unique_together": (("device", "version"),),
                "pk_attr": "id",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="TwinTemplateRow",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                ("name", fields.CharField(max_length=128)),
                ("desired", fields.TextField(unique=False)),
                ("target", fields.TextField(unique=False)),
                ("created_by", fields.CharField(max_length=128)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("applied_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={"table": "twin_template", "app": "fleet", "pk_attr": "id"},
            bases=["Model"],
        ),
        ops.CreateModel(
            name="TwinTemplateDeviceRow",
            fields=[
                ("id", fields.IntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "template",
                    fields.ForeignKeyField(
                        "fleet.TwinTemplateRow",
                        source_field="template_id",
                        db_constraint=True,
                        to_field="id",
                        related_name="device_rows",
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "device",
                    fields.ForeignKeyField(
                        "fleet.DeviceRow",
                        source_field="device_id",
                        db_constraint=True,
                        to_field="id",
                        related_name="twin_template_rows",
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("state", fields.CharField(max_length=16)),
                ("since", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("error", fields.TextField(default="", unique=False)),
            ],
            options={
                "table": "twin_template_device",
                "app": "fleet",
                "unique_together": (("template", "device"),),
                "indexes": [Index(fields=["device_id"]), Index(fields=["state", "id"])],
                "pk_attr": "id",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ScheduleRow",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                ("name", fields.CharField(max_length=128)),
                ("command", fields.TextField(unique=False)),
                ("device_ids", fields.TextField(unique=False)),
                ("at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("cron", fields.CharField(null=True, max_length=128)),
                ("time_zone", fields.CharField(max_length=64)),
                ("catch_up", fields.CharField(max_length=16)),
                ("paused", fields.BooleanField(default=False)),
                ("next_run_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_run_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("owed", fields.BooleanField(default=False)),
                ("runs", fields.IntField(default=0)),
                ("skipped", fields.IntField(default=0)),
                ("version", fields.IntField(default=1)),
                ("created_by", fields.CharField(max_length=128)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "schedule",
                "app": "fleet",
                "indexes": [Index(fields=["next_run_at"]), Index(fields=["owed"])],
                "pk_attr": "id",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ScheduleRunRow",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                (
                    "schedule",
                    fields.ForeignKeyField(
                        "fleet.ScheduleRow",
                        source_field="schedule_id",
                        db_constraint=True,
                        to_field="id",
                        related_name="run_rows",
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("run", fields.IntField()),
                ("device_id", fields.CharField(max_length=64)),
                ("due_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("command_id", fields.CharField(default="", max_length=32)),
                ("error", fields.TextField(default="", unique=False)),
            ],
            options={
                "table": "schedule_run",
                "app": "fleet",
                "unique_together": (("schedule", "run", "device_id"),),
                "indexes": [Index(fields=["schedule_id", "id"])],
                "pk_attr": "id",
            },
            bases=["Model"],
        ),
    ]
