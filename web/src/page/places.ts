/** Where one can go in the page, and what is referred to there. */
import type { StateRef } from "../../gen/drey/common/v1/state_pb";

/** To a tab, and to a thing of it: `go("snapshots", id)`. */
export const go = (...parts: string[]) => {
  location.hash = `#/${parts.join("/")}`;
};

export type StateInit = { state: Exclude<StateRef["state"], { case: undefined }> };

/** The values of a snapshot, as calls refer to them. */
export const stored = (id: string): StateInit => ({ state: { case: "snapshotId", value: id } });
