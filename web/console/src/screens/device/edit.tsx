// A device's name, profile and tags. Without a name it goes by its id.
import { Autocomplete, Button, Group, Modal, Stack, TagsInput, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { listProfiles, updateDevice } from "../../api/calls";
import type { Device } from "../../api/shapes";
import { failed, told } from "../../parts/toast";
import { clip } from "../../text/clip";

export function Edit({ device, close }: { device: Device; close: () => void }) {
  const queries = useQueryClient();
  const [name, setName] = useState(device.name === device.id ? "" : device.name);
  const [profile, setProfile] = useState(device.profile ?? "");
  const profiles = useQuery({ queryKey: ["profiles", "list", ""], queryFn: () => listProfiles({ limit: 100 }) });
  const [tags, setTags] = useState(device.tags);
  const [busy, setBusy] = useState(false);
  const save = async (): Promise<void> => {
    setBusy(true);
    try {
      await updateDevice(device.id, { name: name.trim(), profile: profile.trim(), tags });
      await queries.invalidateQueries({ queryKey: ["devices"] });
      told("Saved");
      close();
    } catch (error) {
      failed("Not saved", error);
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={close} title={<b>Edit {clip(device.id, 40)}</b>}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void save();
        }}
      >
        <Stack gap="sm">
          <TextInput
            label="Name"
            description="Leave it empty to call the device by its id"
            placeholder={device.id}
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            maxLength={128}
            data-autofocus
            data-testid="edit-name"
          />
          <Autocomplete
            label="Profile"
            description="What its payloads mean. A name without a profile changes nothing"
            data={(profiles.data?.items ?? []).map((each) => each.name)}
            value={profile}
            onChange={setProfile}
            maxLength={128}
            data-testid="edit-profile"
          />
          <TagsInput
            label="Tags"
            value={tags}
            onChange={setTags}
            maxTags={64}
            splitChars={[",", " "]}
            data-testid="edit-tags"
          />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={busy} data-testid="edit-save">
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
