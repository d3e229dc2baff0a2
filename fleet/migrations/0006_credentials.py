from tortoise import fields, migrations
from tortoise.indexes import Index
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("fleet", "0005_orders")]

    operations = [
        ops.CreateModel(
            name="CertificateAuthorityRow",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                ("name", fields.CharField(max_length=128)),
                ("fingerprint", fields.CharField(unique=True, max_length=64)),
                ("certificate", fields.TextField(unique=False)),
                ("revoked_serials", fields.TextField(default="[]", unique=False)),
                ("expires_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("created_by", fields.CharField(max_length=128)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("version", fields.IntField(default=1)),
            ],
            options={"table": "certificate_authority", "app": "fleet", "pk_attr": "id"},
            bases=["Model"],
        ),
        ops.AddField(
            model_name="CredentialRow",
            name="expires_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name="CredentialRow",
            name="key_id",
            field=fields.CharField(default="", db_default="", max_length=128),
        ),
        ops.AddField(
            model_name="CredentialRow",
            name="kind",
            field=fields.CharField(default="token", db_default="token", max_length=16),
        ),
        ops.AddField(
            model_name="CredentialRow",
            name="name",
            field=fields.CharField(default="", db_default="", max_length=128),
        ),
        ops.AddField(
            model_name="CredentialRow",
            name="secret",
            field=fields.TextField(default="", db_default="", unique=False),
        ),
        ops.AddIndex(
            model_name="CredentialRow",
            index=Index(fields=["device_id"]),
        ),
        ops.AddField(
            model_name="DeviceRow",
            name="quarantined",
            field=fields.BooleanField(default=False, db_default=False),
        ),
    ]
