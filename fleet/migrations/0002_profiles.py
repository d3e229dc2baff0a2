from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("fleet", "0001_initial")]

    operations = [
        ops.CreateModel(
            name="ProfileRow",
            fields=[
                ("name", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ("document", fields.TextField(unique=False)),
                ("version", fields.IntField(default=1)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={"table": "profile", "app": "fleet", "pk_attr": "name"},
            bases=["Model"],
        ),
        ops.AddField(model_name="DeviceRow", name="retention_days", field=fields.IntField(null=True)),
    ]
