"""The leaves of devices' attributes, kept beside them to find devices by. Written in the transaction of the change."""

import orjson

from fleet.models import DeviceAttributeRow
from fleet.query.leaves import leaves


async def put_attributes(device_id: str, attributes: str, *, is_new: bool = False) -> None:
    """`attributes` is the JSON object as it is stored."""
    if not is_new:
        await DeviceAttributeRow.filter(device_id=device_id).delete()
    await DeviceAttributeRow.bulk_create(
        [
            DeviceAttributeRow(device_id=device_id, path=leaf.path, value=leaf.value, number=leaf.number)
            for leaf in leaves(orjson.loads(attributes))
        ]
    )
