// A profile as text, and what the server finds wrong with it, place by place.
import { Textarea } from "@mantine/core";
import type { Problem } from "../../api/problem";
import { clip } from "../../text/clip";
import { parsed } from "../../text/profile";

export function Editor({
  text,
  onChange,
  problem,
  readOnly = false,
}: {
  text: string;
  onChange: (text: string) => void;
  problem: Problem | null;
  readOnly?: boolean;
}) {
  const document = parsed(text);
  return (
    <>
      <Textarea
        value={text}
        onChange={(event) => onChange(event.currentTarget.value)}
        autosize
        minRows={14}
        maxRows={36}
        classNames={{ input: "mono" }}
        spellCheck={false}
        readOnly={readOnly}
        aria-label="Profile, JSON"
        data-testid="profile-editor"
        error={typeof document === "string" ? clip(document, 200) : undefined}
      />
      {problem && <Wrong problem={problem} />}
    </>
  );
}

function Wrong({ problem }: { problem: Problem }) {
  return (
    <div className="notice" data-tone="bad" role="alert" data-testid="profile-problem">
      {problem.errors.length === 0 ? (
        clip(problem.message, 500)
      ) : (
        <ul className="problems">
          {problem.errors.map(({ field, detail }, i) => (
            <li key={i}>
              <span className="mono">{clip(field || "the profile", 120)}</span>: {clip(detail, 300)}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
