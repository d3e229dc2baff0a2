// Every action ends in a toast, with a link to its result where there is one.
import { Anchor } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { Link } from "react-router";
import { asProblem } from "../api/problem";
import { clip } from "../text/clip";

export function told(message: string, link?: { to: string; text: string }): void {
  notifications.show({
    message: (
      <>
        {clip(message, 300)}
        {link && (
          <>
            {" "}
            <Anchor component={Link} to={link.to} inherit fw={600}>
              {link.text}
            </Anchor>
          </>
        )}
      </>
    ),
    color: "var(--ok)",
    autoClose: 6000,
    withBorder: true,
  });
}

export function failed(what: string, error: unknown): void {
  notifications.show({
    title: what,
    message: clip(asProblem(error).message, 300),
    color: "var(--bad)",
    autoClose: 12_000,
    withBorder: true,
  });
}
