from collections.abc import Mapping
from typing import Any

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from fleet.audit_chain import COLUMNS, START, Mark, link_of

_ROWS = 1_000


async def chain(apps: Any, editor: Any) -> None:
    """Number and chain the entries that are there, oldest first."""
    client, place = editor.client, "$" if editor.client.capabilities.dialect == "postgres" else "?"
    p = [f"${n}" if place == "$" else "?" for n in range(1, 6)]
    names = ", ".join(name for name in COLUMNS if name not in ("seq", "prev", "digest"))
    head, after = START, ""
    while True:
        rows: list[Mapping[str, Any]] = await client.execute_query_dict(
            f"SELECT {names} FROM audit WHERE id > {p[0]} ORDER BY id LIMIT {_ROWS}",  # noqa: S608
            [after],
        )
        changes = []
        for row in rows:
            link = link_of({**row, "seq": head.seq + 1, "prev": head.digest, "digest": ""})
            changes.append([link.seq, link.prev, link.computed(), link.id])
            head = Mark(seq=link.seq, digest=link.computed())
        if changes:
            await client.execute_many(
                f"UPDATE audit SET seq = {p[0]}, prev = {p[1]}, digest = {p[2]} WHERE id = {p[3]}",  # noqa: S608
                changes,
            )
        if len(rows) < _ROWS:
            break
        after = rows[-1]["id"]
    await client.execute_query(
        "INSERT INTO audit_chain (id, head_seq, head_digest, anchor_seq, anchor_digest)"
        f" VALUES ({', '.join(p)})",
        [1, head.seq, head.digest, START.seq, START.digest],
    )


def _person(related_name: str) -> Any:
    return fields.ForeignKeyField(
        "fleet.PersonRow",
        source_field="person_id",
        db_constraint=True,
        to_field="id",
        related_name=related_name,
        on_delete=OnDelete.CASCADE,
    )


class Migration(migrations.Migration):
    dependencies = [("fleet", "0007_groups")]

    operations = [
        ops.AddField(model_name="AuditRow", name="seq", field=fields.BigIntField(null=True, unique=True)),
        ops.AddField(model_name="AuditRow", name="prev", field=fields.CharField(null=True, max_length=64)),
        ops.AddField(model_name="AuditRow", name="digest", field=fields.CharField(null=True, max_length=64)),
        ops.CreateModel(
            name="AuditChainRow",
            fields=[
                ("id", fields.IntField(generated=False, primary_key=True, unique=True, db_index=True)),
                ("head_seq", fields.BigIntField()),
                ("head_digest", fields.CharField(max_length=64)),
                ("anchor_seq", fields.BigIntField()),
                ("anchor_digest", fields.CharField(max_length=64)),
            ],
            options={"table": "audit_chain", "app": "fleet", "pk_attr": "id"},
            bases=["Model"],
        ),
        ops.RunPython(chain),
        ops.AddField(model_name="PersonRow", name="totp_secret", field=fields.CharField(null=True, max_length=255)),
        ops.AddField(
            model_name="PersonRow",
            name="totp_since",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(model_name="PersonRow", name="totp_step", field=fields.BigIntField(null=True)),
        ops.AddField(model_name="LoginRow", name="user_agent", field=fields.CharField(null=True, max_length=128)),
        ops.AddField(
            model_name="LoginRow",
            name="renewed_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.CreateModel(
            name="RecoveryCodeRow",
            fields=[
                ("digest", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ("person", _person("recovery_rows")),
            ],
            options={"table": "recovery_code", "app": "fleet", "pk_attr": "digest"},
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ApiKeyRow",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=32)),
                ("person", _person("api_key_rows")),
                ("name", fields.CharField(max_length=64)),
                ("digest", fields.CharField(unique=True, max_length=64)),
                ("hint", fields.CharField(max_length=8)),
                ("role", fields.CharField(max_length=16)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("expires_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_used_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("revoked_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "api_key",
                "app": "fleet",
                "indexes": [Index(fields=["person_id", "id"])],
                "pk_attr": "id",
            },
            bases=["Model"],
        ),
    ]
