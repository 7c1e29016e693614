/** Who is at the screen, and what the page shares among its parts. */
import { createContext, useContext } from "react";
import type { DreyClient } from "@drey/client";
import type { WhoAmIResponse } from "../../gen/drey/access/v1/access_service_pb";
import type { PvStore } from "./pv_store";

export interface Session {
  readonly client: DreyClient;
  readonly who: WhoAmIResponse;
  readonly pvs: PvStore;
  /** Whether the key holds a permission, as `snapshot.snapshots.take`. */
  may(permission: string): boolean;
}

export const SessionContext = createContext<Session | undefined>(undefined);

export function useSession(): Session {
  const session = useContext(SessionContext);
  if (session === undefined) throw new Error("used outside of a session");
  return session;
}
