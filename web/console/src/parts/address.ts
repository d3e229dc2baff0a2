// What a list shows lives in the URL: filters, order, page. Changing a filter begins at the first page again.
import { useCallback, useMemo } from "react";
import { useSearchParams } from "react-router";

export interface Address {
  get(name: string): string;
  /** One of `known`, or "": what somebody typed into the address is not sent to the server. */
  pick<Known extends string>(name: string, known: readonly Known[]): Known | "";
  set(change: Record<string, string | null>, how?: { replace?: boolean; keepPage?: boolean }): void;
}

export function useAddress(): Address {
  const [params, setParams] = useSearchParams();
  const set = useCallback<Address["set"]>(
    (change, how = {}) => {
      setParams(
        (before) => {
          const next = new URLSearchParams(before);
          if (!how.keepPage) {
            next.delete("cursor");
            next.delete("page");
          }
          for (const [name, value] of Object.entries(change)) {
            if (value === null || value === "") next.delete(name);
            else next.set(name, value);
          }
          return next;
        },
        { replace: how.replace ?? false },
      );
    },
    [setParams],
  );
  return useMemo(
    () => ({
      get: (name) => params.get(name) ?? "",
      pick: (name, known) => known.find((value) => value === params.get(name)) ?? "",
      set,
    }),
    [params, set],
  );
}
