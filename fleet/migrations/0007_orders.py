from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("fleet", "0003_provisioning")]

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
    ]
