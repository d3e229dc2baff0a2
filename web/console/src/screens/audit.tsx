// Who did what, when, to what.
import { Anchor, Button, TextInput } from "@mantine/core";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import { listAudit } from "../api/calls";
import type { AuditEntry } from "../api/shapes";
import { useAddress } from "../parts/address";
import { At } from "../parts/ago";
import { Pager } from "../parts/pager";
import { Payload } from "../parts/payload";
import { Empty, Failure, Lines } from "../parts/states";
import { clip, middle } from "../text/clip";

export default function Audit() {
  const address = useAddress();
  const query = {
    actor: address.get("actor"),
    action: address.get("action"),
    target: address.get("target"),
    cursor: address.get("cursor"),
    limit: 100,
  };
  const isFiltered = query.actor !== "" || query.action !== "" || query.target !== "";
  const audit = useQuery({
    queryKey: ["audit", query],
    queryFn: () => listAudit(query),
    placeholderData: keepPreviousData,
  });
  const items = audit.data?.items ?? [];
  const field = (name: "actor" | "action" | "target", placeholder: string) => (
    <TextInput
      size="xs"
      w={150}
      placeholder={placeholder}
      aria-label={placeholder}
      defaultValue={query[name]}
      key={`${name} ${query[name]}`}
      {...(name === "target" ? { "data-page-search": true } : {})}
      onBlur={(event) => {
        if (event.currentTarget.value.trim() !== query[name]) address.set({ [name]: event.currentTarget.value.trim() });
      }}
      onKeyDown={(event) => {
        if (event.key === "Enter") address.set({ [name]: event.currentTarget.value.trim() });
      }}
    />
  );
  return (
    <>
      <div className="head">
        <h1>Audit</h1>
      </div>
      <div className="filters" role="search">
        {field("actor", "Who")}
        {field("action", "Action: device.create")}
        {field("target", "Target")}
        {isFiltered && (
          <Button
            variant="subtle"
            color="gray"
            onClick={() => address.set({ actor: null, action: null, target: null })}
          >
            Clear
          </Button>
        )}
      </div>
      {audit.isError && !audit.data ? (
        <Failure what="The audit could not be loaded" error={audit.error} retry={() => void audit.refetch()} />
      ) : audit.isLoading ? (
        <Lines rows={10} />
      ) : items.length === 0 ? (
        <Empty title={isFiltered ? "Nothing matches" : "Nothing has been changed yet"}>
          Every change that a person or a device makes to the fleet is kept here.
        </Empty>
      ) : (
        <>
          <ul className="entries" data-testid="audit-list" style={{ borderTop: "1px solid var(--line)" }}>
            {items.map((entry) => (
              <Entry key={entry.id} entry={entry} />
            ))}
          </ul>
          <Pager
            address={address}
            next={audit.data?.next_cursor}
            total={audit.data?.total}
            shown={items.length}
            noun="entries"
          />
        </>
      )}
    </>
  );
}

const places: Record<string, string> = { device: "/devices/", campaign: "/campaigns/" };

function Entry({ entry }: { entry: AuditEntry }) {
  const [opened, setOpened] = useState(false);
  const has = (value: unknown): boolean => value !== null && value !== undefined;
  const place = places[entry.target.kind];
  return (
    <li data-testid="audit-row" data-action={entry.action}>
      <At at={entry.at} />
      <span className="cut" title={entry.actor.address ? `from ${clip(entry.actor.address, 60)}` : undefined}>
        {clip(entry.actor.id || entry.actor.kind, 40)}
        {entry.actor.kind !== "user" && <span className="dim"> {entry.actor.kind}</span>}
      </span>
      <div className="what">
        <b className="mono" style={{ fontWeight: 600 }}>
          {clip(entry.action, 60)}
        </b>{" "}
        <span className="dim">{clip(entry.target.kind, 30)}</span>{" "}
        {place ? (
          <Link className="plain mono" to={place + encodeURIComponent(entry.target.id)}>
            {middle(entry.target.id, 40)}
          </Link>
        ) : (
          <span className="mono">{middle(entry.target.id, 40)}</span>
        )}
        {(has(entry.before) || has(entry.after)) && (
          <>
            {" "}
            <Anchor
              component="button"
              type="button"
              size="xs"
              onClick={() => setOpened(!opened)}
              aria-expanded={opened}
            >
              {opened ? "Less" : "Change"}
            </Anchor>
          </>
        )}
        {opened && (
          <div className="two" style={{ marginTop: 6 }}>
            <div>
              <span className="dim">Before</span>
              {has(entry.before) ? <Payload value={entry.before} /> : <div className="dim">nothing</div>}
            </div>
            <div>
              <span className="dim">After</span>
              {has(entry.after) ? <Payload value={entry.after} /> : <div className="dim">nothing</div>}
            </div>
          </div>
        )}
      </div>
    </li>
  );
}
