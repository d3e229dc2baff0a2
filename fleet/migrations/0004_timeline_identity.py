from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("fleet", "0003_provisioning")]

    operations = [
        ops.AddField(
            model_name="TimelineRow", name="identity", field=fields.CharField(null=True, unique=True, max_length=32)
        ),
    ]
