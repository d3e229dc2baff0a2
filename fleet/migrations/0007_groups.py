from typing import Any

import orjson
from tortoise import fields, migrations
from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from fleet.query.leaves import leaves
from fleet.query.versions import version_key

_TURN = 1_000  # devices at once: a million of them do not fit into memory


async def fill(apps: object, editor: Any) -> None:
    """What devices had before it was kept beside them: the keys of their versions, the leaves of their attributes."""
    client: BaseDBAsyncClient = editor.client
    postgres = client.capabilities.dialect == "postgres"

    def places(count: int) -> list[str]:
        return [f"${n}" if postgres else "?" for n in range(1, count + 1)]

    versions = await client.execute_query_dict("SELECT DISTINCT firmware FROM device WHERE firmware <> ''")
    key, version = places(2)
    for row in versions:
        await client.execute_query(
            f"UPDATE device SET firmware_key = {key} WHERE firmware = {version}",  # noqa: S608
            [version_key(row["firmware"]), row["firmware"]],
        )
    insert = f"INSERT INTO device_attribute (device_id, path, value, number) VALUES ({', '.join(places(4))})"  # noqa: S608
    after = ""
    while True:
        devices = await client.execute_query_dict(
            f"SELECT id, attributes FROM device WHERE id > {places(1)[0]} ORDER BY id LIMIT {_TURN}",  # noqa: S608
            [after],
        )
        if not devices:
            return
        after = devices[-1]["id"]
        found = [
            [row["id"], leaf.path, leaf.value, leaf.number]
            for row in devices
            for leaf in leaves(orjson.loads(row["attributes"]))
        ]
        if found:
            await client.execute_many(insert, found)


class Migration(migrations.Migration):
    dependencies = [('fleet', '0006_credentials')]

    operations = [
        ops.CreateModel(
            name='BulkJobRow',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                ('status', fields.CharField(max_length=16)),
                ('action', fields.TextField(unique=False)),
                ('selection', fields.TextField(unique=False)),
                ('total', fields.IntField(default=0)),
                ('worker', fields.CharField(default='', max_length=32)),
                ('lease_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('actor_kind', fields.CharField(max_length=16)),
                ('created_by', fields.CharField(max_length=128)),
                ('address', fields.CharField(default='', max_length=64)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('started_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'bulk_job', 'app': 'fleet', 'indexes': [Index(fields=['status', 'id'])], 'pk_attr': 'id'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='BulkTargetRow',
            fields=[
                ('id', fields.IntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('job', fields.ForeignKeyField('fleet.BulkJobRow', source_field='job_id', db_constraint=True, to_field='id', related_name='target_rows', on_delete=OnDelete.CASCADE)),
                ('device_id', fields.CharField(max_length=64)),
                ('status', fields.CharField(max_length=16)),
                ('error', fields.TextField(default='', unique=False)),
            ],
            options={'table': 'bulk_target', 'app': 'fleet', 'unique_together': (('job', 'device_id'),), 'indexes': [Index(fields=['job_id', 'status', 'device_id'])], 'pk_attr': 'id'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='DeviceAttributeRow',
            fields=[
                ('id', fields.IntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('device', fields.ForeignKeyField('fleet.DeviceRow', source_field='device_id', db_constraint=True, to_field='id', related_name='attribute_rows', on_delete=OnDelete.CASCADE)),
                ('path', fields.CharField(max_length=128)),
                ('value', fields.CharField(max_length=128)),
                ('number', fields.FloatField(null=True)),
            ],
            options={'table': 'device_attribute', 'app': 'fleet', 'indexes': [Index(fields=['path', 'value']), Index(fields=['path', 'number']), Index(fields=['device_id'])], 'pk_attr': 'id'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='GroupRow',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                ('name', fields.CharField(unique=True, max_length=128)),
                ('description', fields.TextField(default='', unique=False)),
                ('query', fields.TextField(default='', unique=False)),
                ('parent_id', fields.CharField(null=True, max_length=32)),
                ('version', fields.IntField(default=1)),
                ('created_by', fields.CharField(max_length=128)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('updated_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'device_group', 'app': 'fleet', 'pk_attr': 'id'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='GroupMemberRow',
            fields=[
                ('id', fields.IntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('group', fields.ForeignKeyField('fleet.GroupRow', source_field='group_id', db_constraint=True, to_field='id', related_name='member_rows', on_delete=OnDelete.CASCADE)),
                ('device', fields.ForeignKeyField('fleet.DeviceRow', source_field='device_id', db_constraint=True, to_field='id', related_name='group_rows', on_delete=OnDelete.CASCADE)),
            ],
            options={'table': 'group_member', 'app': 'fleet', 'unique_together': (('group', 'device'),), 'indexes': [Index(fields=['device_id'])], 'pk_attr': 'id'},
            bases=['Model'],
        ),
        ops.AddField(
            model_name='DeviceRow',
            name='firmware_key',
            field=fields.CharField(null=True, max_length=255),
        ),
        ops.AddIndex(
            model_name='DeviceRow',
            index=Index(fields=['firmware_key']),
        ),
        ops.AddIndex(
            model_name='DeviceRow',
            index=Index(fields=['profile', 'id']),
        ),
        ops.AddIndex(
            model_name='DeviceTagRow',
            index=Index(fields=['device_id']),
        ),
        ops.RunPython(fill),
    ]
