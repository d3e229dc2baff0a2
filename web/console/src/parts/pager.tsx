// Cursor paging: forward by the server's cursor, back by the browser's own history, so that the back button agrees.
import { Button } from "@mantine/core";
import { useLocation, useNavigate } from "react-router";
import { count } from "../text/numbers";
import type { Address } from "./address";

export function Pager({
  address,
  next,
  total,
  shown,
  noun,
}: {
  address: Address;
  next: string | null | undefined;
  total: number | null | undefined;
  shown: number;
  noun: string;
}) {
  const navigate = useNavigate();
  const location = useLocation();
  const page = Number(address.get("page") || 1);
  const forward = (): void => {
    const params = new URLSearchParams(location.search);
    params.set("cursor", next!);
    params.set("page", String(page + 1));
    void navigate({ search: params.toString() }, { state: { paged: true } });
  };
  const back = (): void => {
    if ((location.state as { paged?: boolean } | null)?.paged) void navigate(-1);
    else address.set({});
  };
  return (
    <div className="table-foot" data-testid="pager">
      <span>
        {total === null || total === undefined
          ? `${count(shown)} shown`
          : // A list that stands still may show rows that are gone by now.
            `${count(shown)} of ${count(Math.max(total, shown))} ${noun}`}
        {page > 1 && ` · page ${page}`}
      </span>
      {(page > 1 || next) && (
        <span style={{ marginLeft: "auto", display: "flex", gap: 6 }}>
          <Button variant="default" disabled={page <= 1} onClick={back} data-testid="page-back">
            Back
          </Button>
          <Button variant="default" disabled={!next} onClick={forward} data-testid="page-next">
            Next
          </Button>
        </span>
      )}
    </div>
  );
}
