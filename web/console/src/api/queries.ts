// The cache of what was asked. Lists stay as they are until somebody acts or the server says that something changed.
import { QueryClient } from "@tanstack/react-query";
import { asProblem } from "./problem";

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      refetchOnWindowFocus: true,
      retry: (tries, error) => {
        const { status } = asProblem(error);
        return tries < 2 && (status === 0 || status >= 500);
      },
    },
    mutations: { retry: false },
  },
});
