// Firmware: what can be sent to devices.
import { Button } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import { deleteArtifact, listArtifacts } from "../api/calls";
import { useMay } from "../api/session";
import type { Artifact } from "../api/shapes";
import { useAddress } from "../parts/address";
import { Ago } from "../parts/ago";
import { Confirm } from "../parts/confirm";
import { LongId } from "../parts/copy";
import { DataTable, type Column } from "../parts/data-table";
import { Pager } from "../parts/pager";
import { Empty, Failure, Lines } from "../parts/states";
import { told } from "../parts/toast";
import { clip } from "../text/clip";
import { bytes } from "../text/numbers";
import { Upload } from "./upload";

export default function Firmware() {
  const address = useAddress();
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const cursor = address.get("cursor");
  const artifacts = useQuery({
    queryKey: ["artifacts", "list", cursor],
    queryFn: () => listArtifacts({ cursor, limit: 100 }),
  });
  const [deleting, setDeleting] = useState<Artifact | null>(null);
  const uploading = address.get("upload") === "1" && mayAct;
  const reload = () => queries.invalidateQueries({ queryKey: ["artifacts"] });
  const columns = artifactColumns(mayAct ? setDeleting : null);
  const items = artifacts.data?.items ?? [];
  const add = mayAct && (
    <Button onClick={() => address.set({ upload: "1" })} data-testid="upload-open">
      Upload firmware
    </Button>
  );
  return (
    <>
      <div className="head">
        <h1>Firmware</h1>
        {items.length > 0 && add}
      </div>
      {artifacts.isError && !artifacts.data ? (
        <Failure
          what="The firmware could not be loaded"
          error={artifacts.error}
          retry={() => void artifacts.refetch()}
        />
      ) : artifacts.isLoading ? (
        <Lines />
      ) : items.length === 0 ? (
        <Empty title="Upload your first firmware" action={add}>
          An image with a version. Devices get it by an update that you start; each reports back which version it runs.
        </Empty>
      ) : (
        <>
          <DataTable
            label="Firmware"
            testid="artifact-table"
            columns={columns}
            rows={items}
            rowId={({ id }) => id}
            rowData={({ version }) => ({ "data-testid": "artifact-row", "data-version": version })}
          />
          <Pager
            address={address}
            next={artifacts.data?.next_cursor}
            total={artifacts.data?.total}
            shown={items.length}
            noun="images"
          />
        </>
      )}
      {uploading && (
        <Upload
          close={() => address.set({ upload: null }, { replace: true })}
          done={(artifact) => {
            address.set({ upload: null }, { replace: true });
            told(`Version ${artifact.version} was uploaded.`, {
              to: `/campaigns/new?artifact=${artifact.id}`,
              text: "Update devices",
            });
            void reload();
          }}
        />
      )}
      {deleting && (
        <Confirm
          title="Delete this firmware?"
          action="Delete firmware"
          type={deleting.version}
          close={() => setDeleting(null)}
          run={async () => {
            await deleteArtifact(deleting.id);
            told(`Version ${deleting.version} was deleted`);
            await reload();
          }}
        >
          {clip(deleting.name, 80)}, {bytes(deleting.size)}, will be gone. Devices that run it are not touched.
        </Confirm>
      )}
    </>
  );
}

/** `remove` is null for who may not act. */
function artifactColumns(remove: ((artifact: Artifact) => void) | null): Column<Artifact>[] {
  return [
    {
      id: "version",
      header: "Version",
      width: 150,
      value: (each) => each.version,
      cell: (each) => (
        <b className="mono" style={{ fontWeight: 600 }} title={clip(each.version, 64)}>
          {clip(each.version, 24)}
        </b>
      ),
    },
    {
      id: "name",
      header: "Name",
      value: (each) => each.name,
      cell: (each) => (
        <span title={clip(`${each.name}\n${each.description}`, 600)}>
          {clip(each.name, 64)}
          {each.description && <span className="dim hide-sm"> {clip(each.description, 80)}</span>}
        </span>
      ),
    },
    {
      id: "size",
      header: "Size",
      width: 86,
      align: "right",
      value: (each) => each.size,
      cell: (each) => bytes(each.size),
    },
    { id: "sha256", header: "SHA-256", width: 160, hide: "md", cell: (each) => <LongId id={each.sha256} /> },
    {
      id: "created",
      header: "Uploaded",
      width: 110,
      align: "right",
      hide: "sm",
      value: (each) => each.created_at,
      cell: (each) => <Ago at={each.created_at} />,
    },
    {
      id: "actions",
      header: "",
      free: true,
      width: remove ? 142 : 1,
      align: "right",
      cell: (each) =>
        remove && (
          <>
            <Button
              variant="subtle"
              color="gray"
              size="compact-xs"
              component={Link}
              to={`/campaigns/new?artifact=${each.id}`}
              data-testid="artifact-roll-out"
            >
              Update…
            </Button>
            <Button
              variant="subtle"
              color="gray"
              size="compact-xs"
              onClick={() => remove(each)}
              data-testid="artifact-delete"
            >
              Delete
            </Button>
          </>
        ),
    },
  ];
}
