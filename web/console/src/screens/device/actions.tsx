// What one may do to a device. What cuts it off or cannot be undone is asked first.
import { ActionIcon, Menu } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";
import { deleteDevice, kickSession, updateDevice } from "../../api/calls";
import type { Device } from "../../api/shapes";
import { Confirm } from "../../parts/confirm";
import { Icon } from "../../parts/icons";
import { failed, told } from "../../parts/toast";
import { Edit } from "./edit";

export function Actions({ device }: { device: Device }) {
  const { id, status } = device;
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [dialog, setDialog] = useState<"edit" | "disable" | "delete" | "kick" | null>(null);
  const close = (): void => setDialog(null);
  const act = (what: string, run: () => Promise<unknown>) => async (): Promise<void> => {
    await run();
    told(what);
    await queries.invalidateQueries({ queryKey: ["devices"] });
  };
  const enable = (): void => {
    act("Enabled", () => updateDevice(id, { disabled: false }))().catch((error: unknown) =>
      failed("Not enabled", error),
    );
  };
  const remove = async (): Promise<void> => {
    await deleteDevice(id);
    told(`${id} was deleted`);
    void navigate("/devices");
    queries.removeQueries({ queryKey: ["devices", "one", id] });
    await queries.invalidateQueries({ queryKey: ["devices", "list"] });
  };
  return (
    <>
      <Menu position="bottom-end" width={190}>
        <Menu.Target>
          <ActionIcon variant="default" size="md" aria-label="Actions" data-testid="device-actions">
            <Icon name="more" />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item onClick={() => setDialog("edit")} data-testid="device-edit">
            Edit name, profile, tags
          </Menu.Item>
          <Menu.Item onClick={() => setDialog("kick")} disabled={status !== "online"} data-testid="device-kick">
            Drop the connection
          </Menu.Item>
          {status === "disabled" ? (
            <Menu.Item onClick={enable} data-testid="device-enable">
              Enable
            </Menu.Item>
          ) : (
            <Menu.Item onClick={() => setDialog("disable")} data-testid="device-disable">
              Disable
            </Menu.Item>
          )}
          <Menu.Divider />
          <Menu.Item c="var(--bad)" onClick={() => setDialog("delete")} data-testid="device-delete">
            Delete
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      {dialog === "edit" && <Edit device={device} close={close} />}
      {dialog === "kick" && (
        <Confirm
          title="Drop the connection?"
          action="Drop connection"
          close={close}
          run={act("Connection dropped", () => kickSession(id))}
        >
          <b className="mono">{id}</b> will be disconnected. Nothing keeps it from connecting again.
        </Confirm>
      )}
      {dialog === "disable" && (
        <Confirm
          title="Disable this device?"
          action="Disable device"
          close={close}
          run={act("Disabled", () => updateDevice(id, { disabled: true }))}
        >
          <b className="mono">{id}</b> is disconnected and cannot connect until somebody enables it. Its readings are
          kept.
        </Confirm>
      )}
      {dialog === "delete" && (
        <Confirm title="Delete this device?" action="Delete device" type={id} close={close} run={remove}>
          <b className="mono">{id}</b> with its credentials, twin and history will be gone. This cannot be undone.
        </Confirm>
      )}
    </>
  );
}
