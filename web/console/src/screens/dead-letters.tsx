// Messages that were refused: what was wrong with them, and another try once it is mended.
import { Anchor, Button, Group, TextInput } from "@mantine/core";
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import {
  deleteDeadLetter,
  deleteDeadLetters,
  getDeadLetter,
  listDeadLetters,
  replayDeadLetters,
  type LetterFilter,
} from "../api/calls";
import { useMay } from "../api/session";
import type { DeadLetter, Replay } from "../api/shapes";
import { useAddress } from "../parts/address";
import { At } from "../parts/ago";
import { Confirm } from "../parts/confirm";
import { Pager } from "../parts/pager";
import { Payload } from "../parts/payload";
import { Empty, Failure, Lines } from "../parts/states";
import { failed, told } from "../parts/toast";
import { clip, middle } from "../text/clip";
import { hex } from "../text/hex";
import { bytes, count, plural } from "../text/numbers";
import { ReplayProgress } from "./replay-progress";

export default function DeadLetters() {
  const address = useAddress();
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const [deleting, setDeleting] = useState(false);
  const [job, setJob] = useState<Replay | null>(null);
  const filter: LetterFilter = { device: address.get("device"), reason: address.get("reason") };
  const isFiltered = filter.device !== "" || filter.reason !== "";
  const query = { ...filter, cursor: address.get("cursor"), limit: 50 };
  const letters = useQuery({
    queryKey: ["dead-letters", query],
    queryFn: () => listDeadLetters(query),
    placeholderData: keepPreviousData,
    refetchInterval: 15_000,
  });
  const changed = (): void => {
    void queries.invalidateQueries({ queryKey: ["dead-letters"] });
    void queries.invalidateQueries({ queryKey: ["overview"] });
  };
  const replay = async (which: { ids: number[] } | { filter: LetterFilter }): Promise<void> => {
    try {
      setJob(await replayDeadLetters(which));
    } catch (error) {
      failed("The replay could not be started", error);
    }
  };
  const items = letters.data?.items ?? [];
  const total = letters.data?.total ?? 0;
  const field = (name: "device" | "reason", placeholder: string) => (
    <TextInput
      size="xs"
      w={180}
      placeholder={placeholder}
      aria-label={placeholder}
      defaultValue={filter[name]}
      key={`${name} ${filter[name]}`}
      {...(name === "device" ? { "data-page-search": true } : {})}
      onBlur={(event) => {
        if (event.currentTarget.value.trim() !== filter[name])
          address.set({ [name]: event.currentTarget.value.trim() });
      }}
      onKeyDown={(event) => {
        if (event.key === "Enter") address.set({ [name]: event.currentTarget.value.trim() });
      }}
    />
  );
  return (
    <>
      <div className="head">
        <h1>Dead letters</h1>
        {mayAct && total > 0 && (
          <Group gap="xs">
            <Button onClick={() => void replay({ filter })} data-testid="replay-all">
              Replay {isFiltered ? "these" : "all"} {count(total)}
            </Button>
            <Button variant="default" onClick={() => setDeleting(true)} data-testid="delete-all">
              Delete
            </Button>
          </Group>
        )}
      </div>
      <div className="filters" role="search">
        {field("device", "Device")}
        {field("reason", "Reason: invalid_json")}
        {isFiltered && (
          <Button variant="subtle" color="gray" onClick={() => address.set({ device: null, reason: null })}>
            Clear
          </Button>
        )}
        {Object.entries(letters.data?.reasons ?? {})
          .slice(0, 6)
          .map(([reason, n]) => (
            <Anchor component="button" type="button" size="xs" key={reason} onClick={() => address.set({ reason })}>
              {clip(reason, 40)} {count(n)}
            </Anchor>
          ))}
      </div>
      {job && <ReplayProgress job={job} changed={changed} close={() => setJob(null)} />}
      {letters.isError && !letters.data ? (
        <Failure
          what="The dead letters could not be loaded"
          error={letters.error}
          retry={() => void letters.refetch()}
        />
      ) : letters.isLoading ? (
        <Lines rows={10} />
      ) : items.length === 0 ? (
        <Empty
          title={isFiltered ? "Nothing matches" : "No message was refused"}
          action={
            <Button component={Link} to="/devices" variant="default">
              Devices
            </Button>
          }
        >
          A message that cannot be read or stored is kept here with the reason, so that it can be tried again once the
          cause is mended.
        </Empty>
      ) : (
        <>
          <ul className="entries" data-testid="letter-list" style={{ borderTop: "1px solid var(--line)" }}>
            {items.map((letter) => (
              <Entry
                key={letter.id}
                letter={letter}
                mayAct={mayAct}
                replay={() => void replay({ ids: [letter.id] })}
                changed={changed}
              />
            ))}
          </ul>
          <Pager
            address={address}
            next={letters.data?.next_cursor}
            total={total}
            shown={items.length}
            noun="messages"
          />
        </>
      )}
      {deleting && (
        <Confirm
          title={`Delete ${plural(total, "message")}?`}
          action="Delete"
          run={async () => {
            const { deleted } = await deleteDeadLetters(filter);
            told(`Deleted ${plural(deleted, "message")}.`);
            changed();
          }}
          close={() => setDeleting(false)}
        >
          They were never stored: their readings are lost for good.
        </Confirm>
      )}
    </>
  );
}

function Entry({
  letter,
  mayAct,
  replay,
  changed,
}: {
  letter: DeadLetter;
  mayAct: boolean;
  replay: () => void;
  changed: () => void;
}) {
  const [opened, setOpened] = useState(false);
  const [deleting, setDeleting] = useState(false);
  return (
    <li data-testid="letter-row" data-reason={letter.reason}>
      <At at={letter.received_at} />
      <Link className="plain mono cut" to={`/devices/${encodeURIComponent(letter.device)}`}>
        {middle(letter.device, 40)}
      </Link>
      <div className="what">
        <b style={{ fontWeight: 600 }}>{clip(letter.reason, 60)}</b>{" "}
        <span className="dim">
          {clip(letter.channel, 60)} · {bytes(letter.size)}
          {letter.replays > 0 && ` · refused again ${plural(letter.replays, "time")}`}
        </span>{" "}
        <Anchor component="button" type="button" size="xs" onClick={() => setOpened(!opened)} aria-expanded={opened}>
          {opened ? "Less" : "Message"}
        </Anchor>
        <div style={{ overflowWrap: "anywhere" }}>{clip(letter.detail, 300)}</div>
        {opened && (
          <div style={{ marginTop: 6 }}>
            <Whole letter={letter} />
            {mayAct && (
              <Group gap="xs" mt={6}>
                <Button size="xs" disabled={!letter.replayable} onClick={replay} data-testid="replay-one">
                  Replay
                </Button>
                <Button size="xs" variant="default" onClick={() => setDeleting(true)} data-testid="delete-one">
                  Delete
                </Button>
                {!letter.replayable && (
                  <span className="dim">Too large: only its beginning was kept, so it cannot be replayed.</span>
                )}
              </Group>
            )}
          </div>
        )}
      </div>
      {deleting && (
        <Confirm
          title="Delete this message?"
          action="Delete"
          run={async () => {
            await deleteDeadLetter(letter.id);
            changed();
          }}
          close={() => setDeleting(false)}
        >
          It was never stored: its readings are lost for good.
        </Confirm>
      )}
    </li>
  );
}

/** The payload as text, or as hex where it is none. */
function Whole({ letter }: { letter: DeadLetter }) {
  // A payload never changes: it is not asked for again, least of all when its letter is gone.
  const whole = useQuery({
    queryKey: ["dead-letter", letter.id],
    queryFn: () => getDeadLetter(letter.id),
    staleTime: Infinity,
  });
  const { payload, encoding } = whole.data ?? letter;
  if (payload === "") return <span className="dim">An empty message.</span>;
  return <Payload value={encoding === "base64" ? hex(payload) : payload} testid="letter-payload" />;
}
